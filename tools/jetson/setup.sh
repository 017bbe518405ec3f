#!/usr/bin/env bash
# Makes a Jetson ready to run bundles: checks the system, installs what is missing, builds the TensorRT plugin, and proves
# the installation. Run it again at any time: what is there already is left alone.
#
#   tools/jetson/setup.sh [--check] [--venv DIR] [--bundle DIR] [--power-mode ID] [--fix-clocks] [--no-swap]
#
#   --check          change nothing; say what is there and what would be done
#   --venv DIR       where the Python environment goes (default: .venv in this checkout)
#   --bundle DIR     build this bundle's engine and run its self-test at the end
#   --power-mode ID  set this nvpmodel mode (0 is the one without limits on a Nano)
#   --fix-clocks     run jetson_clocks, for steady timings; until the next boot
#   --no-swap        leave swap alone
#   --root DIR       folder that stands for "/", for trying the script out
#
# Exit codes: 0 ready; 1 something lacks (--check) or failed; 2 wrong usage, or this is no Jetson.
# Written for JetPack 4.6.1 and newer (Ubuntu 18.04, Python 3.6) up to JetPack 6. docs/jetson.md explains each step.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
check=false venv=$here/.venv bundle="" power_mode="" fix_clocks=false swap=true root=""
lacks=0
swap_mib=4096
sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo "

usage() { sed -n '2,/^set -u/p' "${BASH_SOURCE[0]}" | sed -e '/^set -u/d' -e 's/^# \{0,1\}//'; }
wrong() { printf 'error: %s; see setup.sh --help\n' "$1" >&2; exit 2; }
line() { printf '%-7s %-12s %s\n' "$1" "$2" "$3"; }
ok() { line ok "$1" "$2"; }
lack() { lacks=$((lacks + 1)); line lacks "$1" "$2"; }
# What no command of ours mends: a newer JetPack, another board.
fatal() { line lacks "$1" "$2"; printf 'error: %s\n' "$3" >&2; exit 1; }

# act NAME COMMAND...: run it, or with --check say that it would be run.
act() {
  local name=$1 shown code; shift
  shown="$*"; shown=${shown/#as_root /$sudo}
  if $check; then line would "$name" "$shown"; return 0; fi
  line does "$name" "$shown"
  "$@" || { code=$?; printf 'error: %s: "%s" ended with exit code %s\n' "$name" "$shown" "$code" >&2; exit 1; }
}

as_root() { $sudo "$@"; }
# version_at_least 8.2.1 8.2
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
installed() { [ "$(dpkg-query -W -f='${Status}' "$1" 2>/dev/null)" = "install ok installed" ]; }
package_version() { dpkg-query -W -f='${Version}' "$1" 2>/dev/null; }

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --check) check=true ;;
      --fix-clocks) fix_clocks=true ;;
      --no-swap) swap=false ;;
      --venv | --bundle | --power-mode | --root)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        case $1 in --venv) venv=$2 ;; --bundle) bundle=$2 ;; --power-mode) power_mode=$2 ;; --root) root=${2%/} ;; esac
        shift ;;
      -h | --help) usage; exit 0 ;;
      *) wrong "'$1' is not known" ;;
    esac
    shift
  done
  case $power_mode in *[!0-9]*) wrong "--power-mode '$power_mode': expected a number, such as 0" ;; esac
  if [ -n "$bundle" ] && [ ! -f "$bundle/manifest.json" ]; then wrong "--bundle '$bundle': no bundle is there"; fi
}

check_board() {
  local release_file=$root/etc/nv_tegra_release model release
  [ -r "$release_file" ] || { printf 'error: %s is not there, so this is no Jetson with JetPack on it\n' \
    "$release_file" >&2; exit 2; }
  model=$(tr -d '\0' < "$root/proc/device-tree/model" 2>/dev/null)
  release=$(sed -n '1s/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\),.*/\1.\2/p' "$release_file")
  ok board "${model:-unknown model}"
  [ -n "$release" ] || fatal L4T "unreadable" "the first line of $release_file does not name a release"
  version_at_least "$release" 32.7 || fatal L4T "$release" \
    "L4T $release (before JetPack 4.6.1) has a TensorRT older than 8.2; flash a newer JetPack, see docs/jetson.md"
  ok L4T "$release"
}

check_packages() {
  local missing=() package
  for package in build-essential python3-dev python3-venv python3-pip libnvinfer-dev python3-libnvinfer; do
    if installed "$package"; then ok "apt" "$package $(package_version "$package")"; else missing+=("$package"); fi
  done
  [ -x "$root/usr/local/cuda/bin/nvcc" ] || missing+=("nvidia-jetpack")
  [ ${#missing[@]} = 0 ] && return
  lack apt "${missing[*]}"
  act apt as_root apt-get update
  act apt as_root apt-get install -y --no-install-recommends "${missing[@]}"
}

check_swap() {
  local memory_kib disk_kib file=$root/swapfile
  memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "$root/proc/meminfo")
  disk_kib=$(awk 'NR > 1 && $1 !~ /zram/ { kib += $3 } END { print kib + 0 }' "$root/proc/swaps" 2>/dev/null)
  if [ "${memory_kib:-0}" -gt 5242880 ] || [ "${disk_kib:-0}" -ge 3145728 ]; then
    ok swap "$((${disk_kib:-0} / 1024)) MiB on disk, $((${memory_kib:-0} / 1024)) MiB of memory"; return
  fi
  $swap || { line "" swap "$((${disk_kib:-0} / 1024)) MiB on disk, left alone"; return; }
  lack swap "$((${disk_kib:-0} / 1024)) MiB on disk: building an engine needs more than 4 GB"
  if [ ! -e "$file" ]; then
    act swap as_root fallocate -l "${swap_mib}M" "$file"
    act swap as_root chmod 600 "$file"
    act swap as_root mkswap "$file"
  fi
  act swap as_root swapon "$file"
  grep -qs '^/swapfile ' "$root/etc/fstab" || act swap as_root sh -c "echo '/swapfile none swap sw 0 0' >> '$root/etc/fstab'"
}

check_groups() {
  local user=${SUDO_USER:-$(id -un)}
  case " $(id -nG "$user") " in
    *" video "* | *" root "*) ok groups "$user may use the GPU" ;;
    *) lack groups "$user is not in the group video"; act groups as_root usermod -aG video "$user" ;;
  esac
}

check_python() {
  local python=$venv/bin/python version
  version=$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || version=""
  version_at_least "${version:-0}" 3.6 || fatal Python "${version:-none}" "Python 3.6 or newer is needed"
  ok Python "$version"
  # JetPack's tensorrt, OpenCV and numpy are built for the system's Python: let the environment see them
  if [ -x "$python" ]; then ok venv "$venv"; else lack venv "$venv"; act venv python3 -m venv --system-site-packages "$venv"; fi
  if "$python" -c 'import dance_deploy, typer' >/dev/null 2>&1; then
    ok package dance_deploy
  else
    lack package dance_deploy
    # pip 9 of Ubuntu 18.04 knows no manylinux2014 and would compile numpy; 21.3 is the last for Python 3.6
    if ! version_at_least "$version" 3.7; then act pip "$python" -m pip install --quiet 'pip>=20.3,<22' 'setuptools<60' wheel; fi
    act package "$python" -m pip install --quiet -e "$here"
  fi
  check_numpy "$python"
  if "$python" -c 'import pycuda' >/dev/null 2>&1; then ok pycuda present; else
    lack pycuda "not installed"
    local wanted=pycuda
    if ! version_at_least "$version" 3.7; then wanted='pycuda<2021.1'; fi # as TensorRT 8.2's own samples ask
    act pycuda env "PATH=/usr/local/cuda/bin:$PATH" "CPATH=/usr/local/cuda/include" \
      "LIBRARY_PATH=/usr/local/cuda/lib64" "$python" -m pip install --quiet "$wanted"
  fi
}

check_numpy() {
  [ -x "$1" ] || return 0
  "$1" -c 'import numpy' >/dev/null 2>&1
  case $? in
    0) ok numpy "$("$1" -c 'import numpy; print(numpy.__version__)')" ;;
    132 | 137 | 139) # OpenBLAS in numpy 1.19.5 takes the Cortex-A57 for another core
      lack numpy "crashes when it is imported (Illegal instruction)"
      act numpy "$1" -m pip install --quiet --force-reinstall 'numpy<1.19.5' ;;
    *) lack numpy "does not import"; act numpy "$1" -m pip install --quiet 'numpy>=1.13' ;;
  esac
}

check_plugin() {
  local folder library=$here/dance_deploy/runtime/lib/libdance_trt.so
  for folder in kernels/trt kernels .; do
    if grep -qs '^plugin:' "$here/$folder/Makefile"; then
      if [ -e "$library" ]; then ok plugin "$library"; else lack plugin "not built"; fi
      act plugin make -C "$here/$folder" plugin # make knows whether anything changed
      return
    fi
  done
  fatal plugin "not built" "no Makefile of this checkout has a rule 'plugin'"
}

set_power() {
  if [ -n "$power_mode" ]; then
    if grep -qs "^pmode:0*$power_mode\b" "$root/var/lib/nvpmodel/status"; then ok "power mode" "$power_mode"; else
      lack "power mode" "not $power_mode"; act "power mode" as_root nvpmodel -m "$power_mode"
    fi
  fi
  if $fix_clocks; then act clocks as_root jetson_clocks; fi
}

prove() {
  if [ -n "$bundle" ]; then
    act engine "$venv/bin/dance-export" "$bundle" --engine
    act self-test "$venv/bin/dance-run" "$bundle" --self-test --backend tensorrt
  fi
  $check || "$venv/bin/dance-doctor" || { printf 'error: dance-doctor names what is missing, above\n' >&2; exit 1; }
}

read_options "$@"
check_board
check_packages
check_swap
check_groups
check_python
check_plugin
set_power
prove
if $check && [ "$lacks" -gt 0 ]; then
  printf '%s thing%s lacking; without --check they are put right\n' "$lacks" "$([ "$lacks" = 1 ] || echo s)"; exit 1
fi
printf 'ready%s\n' "$($check && echo ', nothing would be installed')"
