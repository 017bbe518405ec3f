"""tools/jetson/setup.sh on trees and commands that stand for a board: what it finds, does, leaves alone, and says.

The commands that change a system are stand-ins that write down how they were called and behave like the real ones as
far as the script can tell (a package is there after apt-get installed it, and so on). On a board it has not run.
"""
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "jetson" / "setup.sh"
PACKAGES = ("build-essential", "python3-dev", "python3-venv", "python3-pip", "libnvinfer-dev", "python3-libnvinfer")
FAKE = r"""#!/bin/sh
# One stand-in for all: named after the command that it stands for.
name=$(basename "$0")
case $name in dpkg-query | id) ;; *) echo "$name $*" >> "$STATE/log" ;; esac
[ -e "$STATE/fails-$name" ] && exit 7
case $name in
  sudo) exec "$@" ;;
  id) case $1 in -u) echo "$FAKE_UID" ;; -un) echo ann ;; -nG) cat "$STATE/groups" ;; esac ;;
  dpkg-query) for last; do :; done
    [ -e "$STATE/apt/$last" ] || exit 1
    case $2 in *Status*) printf 'install ok installed' ;; *) printf '1.0' ;; esac ;;
  apt-get) [ "$1" = install ] || exit 0
    for last; do case $last in -*|install) ;; nvidia-jetpack) mkdir -p "$ROOT/usr/local/cuda/bin"
      printf '#!/bin/sh\n' > "$ROOT/usr/local/cuda/bin/nvcc"; chmod +x "$ROOT/usr/local/cuda/bin/nvcc" ;;
      *) : > "$STATE/apt/$last" ;; esac; done ;;
  fallocate) : > "$3" ;;
  swapon) printf '%s file\t\t4194300\t0\t-2\n' "$1" >> "$ROOT/proc/swaps" ;;
  usermod) echo "ann video" > "$STATE/groups" ;;
  nvpmodel) printf 'pmode:%04d' "$2" > "$ROOT/var/lib/nvpmodel/status" ;;
  make) mkdir -p "$2/../../dance_deploy/runtime/lib"; : > "$2/../../dance_deploy/runtime/lib/libdance_trt.so" ;;
  python3 | python)
    case "$*" in
      *version_info*) echo "$FAKE_PYTHON" ;;
      *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"
        for tool in python dance-doctor dance-export dance-run; do cp "$0" "$last/bin/$tool"; done ;;
      *"import dance_deploy"*) [ -e "$STATE/package" ] ;;
      *"import numpy; print"*) echo 1.13.3 ;;
      *"import numpy"*) exit "$(cat "$STATE/numpy")" ;;
      *"import pycuda"*) [ -e "$STATE/pycuda" ] ;;
      *"pip install"*pycuda*) : > "$STATE/pycuda" ;;
      *"pip install"*"numpy"[\<\>]*) echo 0 > "$STATE/numpy" ;;
      *"pip install"*-e*) : > "$STATE/package" ;;
    esac ;;
esac
"""


class Board:
    """A folder that stands for "/", a checkout, a folder with the commands, and one in which these remember."""

    def __init__(self, folder):
        self.root, self.state, self.bin = (folder / name for name in ("root", "state", "bin"))
        self.venv, self.checkout = folder / "venv", folder / "checkout"
        self.script = self.checkout / "tools" / "jetson" / SCRIPT.name
        for path, text in ((self.script, SCRIPT.read_text()), (self.checkout / "kernels/trt/Makefile", "plugin: x\n")):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        for path, text in {
                "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n",
                "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0", "etc/fstab": "",
                "proc/meminfo": "MemTotal:        4059212 kB\n", "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
                "proc/swaps": "Filename\t\tType\n/dev/zram0 partition\t507396\t0\t5\n"}.items():
            self.write(path, text)
        (self.state / "apt").mkdir(parents=True)
        (self.state / "numpy").write_text("0")
        (self.state / "groups").write_text("ann users\n")
        self.bin.mkdir()
        for name in ("sudo", "id", "dpkg-query", "apt-get", "fallocate", "mkswap", "swapon", "usermod", "nvpmodel",
                     "jetson_clocks", "make", "python3"):
            (self.bin / name).write_text(FAKE)
            (self.bin / name).chmod(stat.S_IRWXU)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def run(self, *arguments, uid="1000", python="3.6.9"):
        """(exit code, lines of stdout, lines of stderr, commands called)"""
        log = self.state / "log"
        log.write_text("")
        done = subprocess.run(
            [shutil.which("bash"), self.script, "--root", self.root, "--venv", self.venv, *arguments], timeout=60,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, env={
                "PATH": "{}:/usr/bin:/bin".format(self.bin), "STATE": str(self.state), "ROOT": str(self.root),
                "FAKE_UID": uid, "FAKE_PYTHON": python, "LC_ALL": "C"})
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), log.read_text().splitlines()

    def tree(self):
        folders = (self.root, self.state, self.venv, self.checkout)
        return {str(p): p.read_bytes() for folder in folders if folder.exists()
                for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "log"}


@pytest.fixture
def board(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    return Board(tmp_path)


def changing(commands):
    """Those that are not mere questions."""
    return [c for c in commands if not c.startswith(("python3 -c", "python -c"))]


def test_a_bare_board_is_made_ready_and_a_second_run_changes_nothing(board):
    code, out, err, commands = board.run("--power-mode", "0")
    assert (code, err) == (0, []) and out[-1] == "ready"
    order = [changing(commands).index(wanted) for wanted in (
        "apt-get update", "apt-get install -y --no-install-recommends {} nvidia-jetpack".format(" ".join(PACKAGES)),
        "fallocate -l 4096M {}/swapfile".format(board.root), "mkswap {}/swapfile".format(board.root),
        "swapon {}/swapfile".format(board.root), "usermod -aG video ann",
        "python3 -m venv --system-site-packages {}".format(board.venv),
        "make -C {}/kernels/trt plugin".format(board.checkout), "nvpmodel -m 0", "dance-doctor ")]
    assert order == sorted(order)
    assert "/swapfile none swap sw 0 0" in (board.root / "etc/fstab").read_text()
    assert any(c.startswith("python -m pip") and "pip>=20.3,<22" in c for c in commands)  # Python 3.6
    assert any("pycuda<2021.1" in c for c in commands)
    before = board.tree()
    code, out, err, commands = board.run("--power-mode", "0")
    assert (code, err) == (0, []) and board.tree() == before
    assert not [line for line in out if line.startswith("lacks")]
    assert [c.split()[0] for c in changing(commands)] == ["make", "dance-doctor"]  # make sees what changed


def test_check_says_all_of_it_and_changes_nothing(board):
    before = board.tree()
    code, out, err, commands = board.run("--check", "--power-mode", "0")
    assert (code, err, changing(commands)) == (1, [], []) and board.tree() == before
    would = [line.split(None, 2) for line in out if line.startswith("would")]
    assert ["would", "swap", "sudo fallocate -l 4096M {}/swapfile".format(board.root)] in would
    assert any(text.startswith("sudo apt-get install") for _, name, text in would if name == "apt")
    assert out[-1].endswith("lacking; without --check they are put right")


def test_the_superuser_is_not_asked_again(board):
    _, out, _, commands = board.run(uid="0")
    assert not [c for c in commands if c.startswith("sudo")] and not [line for line in out if " sudo " in line]


def test_a_newer_python_takes_newer_packages(board):
    commands = board.run(python="3.10.12")[3]
    assert not any("<22" in c or "<2021" in c for c in commands)


@pytest.mark.parametrize("crash", ["132", "1"])
def test_a_numpy_that_crashes_or_lacks_is_replaced(board, crash):
    (board.state / "numpy").write_text(crash)
    code, out, _, commands = board.run()
    assert code == 0 and any("pip install" in c and "numpy" in c.split()[-1] for c in commands)
    assert ("numpy<1.19.5" in " ".join(commands)) == (crash == "132")
    assert any("Illegal instruction" in line for line in out) == (crash == "132")


def test_boards_with_enough_memory_or_swap_are_left_alone(board):
    board.write("proc/meminfo", "MemTotal:       15928000 kB\n")
    assert not any("swap" in c for c in board.run()[3])
    board.write("proc/meminfo", "MemTotal:        4059212 kB\n")
    assert not any("swapon" in c for c in board.run("--no-swap")[3])


def test_a_bundle_gets_its_engine_and_its_self_test(board, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    code, _, _, commands = board.run("--bundle", tmp_path / "bundle")
    assert code == 0
    assert commands.index("dance-export {} --engine".format(tmp_path / "bundle")) < commands.index(
        "dance-run {} --self-test --backend tensorrt".format(tmp_path / "bundle"))


@pytest.mark.parametrize("arguments, why", [
    (["--fast"], "'--fast' is not known"), (["--venv"], "--venv needs a value"),
    (["--power-mode", "max"], "expected a number"), (["--bundle", "/nowhere"], "no bundle is there")])
def test_wrong_usage_is_one_line_and_exit_code_2(board, arguments, why):
    code, out, err, commands = board.run(*arguments)
    assert (code, out, len(err), commands) == (2, [], 1, []) and why in err[0]


@pytest.mark.parametrize("release, code, why", [
    (None, 2, "this is no Jetson"), ("# R32 (release), REVISION: 6.1, GCID: 1\n", 1, "flash a newer JetPack"),
    ("garbage\n", 1, "does not name a release")])
def test_a_machine_that_cannot_serve_is_told_so(board, release, code, why):
    if release is None:
        (board.root / "etc/nv_tegra_release").unlink()
    else:
        board.write("etc/nv_tegra_release", release)
    found, _, err, commands = board.run()
    assert (found, len(err), commands) == (code, 1, []) and why in err[0]


@pytest.mark.parametrize("command", ["apt-get", "mkswap", "nvpmodel"])
def test_a_command_that_fails_ends_the_run_and_is_named(board, command):
    (board.state / ("fails-" + command)).write_text("")
    code, out, err, _ = board.run("--power-mode", "0")
    assert (code, len(err)) == (1, 1) and command in err[0] and "exit code 7" in err[0] and "ready" not in out


def test_the_script_is_clean_by_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    assert os.access(str(SCRIPT), os.X_OK)
