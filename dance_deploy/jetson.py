"""Facts about a Jetson board: which profile fits it, its release, CUDA, power mode, clocks and swap.

What dance-doctor reports of a board. Every function takes `root`, the folder that stands for "/".
"""
import glob
import os
import re
from typing import NamedTuple, Optional, Tuple

from dance_deploy import profiles
from dance_deploy.machine import INFO, OK, OPTIONAL, Finding, machine_names, read_line, read_text

# L4T release, JetPack, its TensorRT; NVIDIA's release notes, the newest matching line counts
_RELEASES = (
    ((32, 4), "4.4", "7.1"), ((32, 5), "4.5", "7.1"), ((32, 6), "4.6", "8.0"), ((32, 7), "4.6.1 or newer", "8.2"),
    ((34, 1), "5.0 (preview)", "8.4"), ((35, 1), "5.0.2", "8.4"), ((35, 2), "5.1", "8.5"),
    ((36, 2), "6.0", "8.6"), ((36, 4), "6.1 or 6.2", "10.3"))
_LEAST_SWAP_KIB = 3 << 20
_LITTLE_MEMORY_KIB = 5 << 20
_MAKE_SWAP = ("sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && "
              "sudo swapon /swapfile   # for good: tools/jetson/setup.sh")
_GUIDE = "see docs/jetson.md"


class Release(NamedTuple):
    """l4t: (32, 7, 1), parts that are not known left out; jetpack, tensorrt: None for a release that is not listed."""

    l4t: Tuple[int, ...]
    jetpack: Optional[str]
    tensorrt: Optional[str]


def board_findings(root="/"):
    """What is known of a Jetson; empty elsewhere."""
    model = read_line(root, "proc/device-tree/model")
    line = read_line(root, "etc/nv_tegra_release").lstrip("# ")
    found = [Finding("board", "model", INFO, model)] if model else []
    if not line:
        return found
    profile = profile_of_machine(root)
    release = release_from_line(line)
    found += [_profile(profile), Finding("board", "L4T release", INFO, line), _jetpack(release, profile), _cuda(root),
              _power_mode(root, profile), _gpu_clock(root), _swap(root)]
    return [finding for finding in found if finding is not None]


def profile_of_machine(root="/"):
    """The Profile whose board this is by its device tree, or None."""
    names = machine_names(root)
    for name in profiles.names():
        profile = profiles.load(name)
        if profile.power is not None and profiles.fits(names, profile.power.compatible):
            return profile
    return None


def release_from_line(line):
    """The Release in the first line of /etc/nv_tegra_release: "R32 (release), REVISION: 7.1, ..."."""
    match = re.match(r"R(\d{1,4})\b.*?REVISION: (\d{1,4})(?:\.(\d{1,4}))?", line)
    if match is None:
        return Release((), None, None)
    l4t = tuple(int(part) for part in match.groups() if part is not None)
    fitting = [known for known in _RELEASES if known[0][0] == l4t[0] and known[0] <= l4t[:2]]
    return Release(l4t, fitting[-1][1], fitting[-1][2]) if fitting else Release(l4t, None, None)


def _profile(profile):
    if profile is None:
        return Finding("board", "profile", OPTIONAL, "no profile names this board: its total power and its limits are "
                       "not known", "see docs/profiles.md")
    return Finding("board", "profile", OK, "{} ({})".format(profile.name, profile.description))


def _jetpack(release, profile):
    if release.jetpack is None:
        return Finding("board", "JetPack", INFO, "not known for this release")
    detail = "{}, TensorRT {}".format(release.jetpack, release.tensorrt)
    oldest = None if profile is None or profile.hardware is None else profile.hardware.tensorrt
    if oldest is not None and _numbers(release.tensorrt) < _numbers(oldest[0])[:2]:
        return Finding("board", "JetPack", OPTIONAL, "{}: engines need {} or newer".format(detail, oldest[0]),
                       "flash a newer JetPack, " + _GUIDE)
    return Finding("board", "JetPack", OK, detail)


def _cuda(root):
    text = read_text(root, "usr/local/cuda/version.txt") or read_text(root, "usr/local/cuda/version.json")
    match = re.search(r"CUDA Version (\d[\d.]*)|\"version\"\s*:\s*\"(\d[\d.]*)\"", text)
    version = (match.group(1) or match.group(2)).strip(".") if match else None
    if not os.path.exists(os.path.join(root, "usr/local/cuda/bin/nvcc")):
        detail = "no compiler, so the plugin cannot be built" + (" (CUDA {})".format(version) if version else "")
        return Finding("board", "CUDA", OPTIONAL, detail, "sudo apt-get install nvidia-jetpack")
    return Finding("board", "CUDA", OK, "{}, {}".format(version or "version unknown", "/usr/local/cuda/bin/nvcc"))


def _power_mode(root, profile):
    match = re.match(r"pmode:0*(\d{1,4})\b", read_line(root, "var/lib/nvpmodel/status"))
    if match is None:
        return Finding("board", "power mode", INFO, "unknown", "sudo nvpmodel -q")
    number = int(match.group(1))
    named = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", read_text(root, "etc/nvpmodel.conf")))
    if not named and profile is not None:
        named = {str(mode.id): mode.name for mode in profile.power.modes}
    name = "".join(c if c.isprintable() else "?" for c in named.get(str(number), ""))[:40]
    detail = "{}{}".format(number, " ({})".format(name) if name else "")
    meant = None if profile is None or profile.hardware is None else profile.hardware.mode
    if meant is None or meant == number:
        return Finding("board", "power mode", INFO if meant is None else OK, detail)
    return Finding("board", "power mode", INFO, detail + ", not the one that the profile's peak rates are of",
                   "sudo nvpmodel -m {}".format(meant))


def _gpu_clock(root):
    patterns = ("sys/class/devfreq/*gpu*", "sys/class/devfreq/*.g[pv]1[01]b", "sys/class/devfreq/*.ga10b")
    folders = sorted(folder for pattern in patterns for folder in glob.glob(os.path.join(root, pattern)))
    for folder in folders:
        now, least, most = (read_line(folder, name) for name in ("cur_freq", "min_freq", "max_freq"))
        if now.isdigit() and least.isdigit() and most.isdigit():
            fixed = least == most
            return Finding("board", "GPU clock", OK if fixed else INFO, "{:.0f} of {:.0f} MHz, {}".format(
                int(now) / 1e6, int(most) / 1e6, "fixed" if fixed else "changing with the load"),
                None if fixed else "sudo jetson_clocks   # for steady timings, until the next boot")
    return Finding("board", "GPU clock", INFO, "unknown; steady timings need fixed clocks", "sudo jetson_clocks")


def _swap(root):
    numbers = dict(re.findall(r"^(\w+):\s+(\d{1,12}) kB", read_text(root, "proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in numbers:
        return None
    memory, swap = int(numbers["MemTotal"]), int(numbers.get("SwapTotal", 0))
    disk = sum(int(size) for path, size in re.findall(r"^(/\S+)\s+\S+\s+(\d{1,12})\s", read_text(
        root, "proc/swaps"), re.MULTILINE) if "zram" not in path)
    detail = "{:.1f} GiB, {:.1f} of it on disk".format(swap / float(1 << 20), disk / float(1 << 20))
    if memory > _LITTLE_MEMORY_KIB or disk >= _LEAST_SWAP_KIB:
        return Finding("board", "swap", OK, detail)
    return Finding("board", "swap", OPTIONAL, detail + ": building an engine may run out of memory", _MAKE_SWAP)


def _numbers(version):
    return tuple(int(part) for part in version.split("."))
