"""Facts about the machine, read from /proc and /sys: what dance-doctor reports besides packages.

Every function takes `root`, the folder that stands for "/", so that trees captured on a board can be replayed.
"""
import glob
import os
import platform
import re
import sys
from typing import NamedTuple, Optional

OK, INFO, OPTIONAL, MISSING = "ok", "info", "optional", "missing"

# the instruction sets that kernels are written for
_ISA_FLAGS = ("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd",
              "asimdhp", "asimddp", "bf16", "i8mm", "sve", "neon")
_GIB = 1 << 30


class Finding(NamedTuple):
    """One line of the report.

    state: "ok", "info" (a fact, neither good nor bad), "optional" (absent, and only some uses need it) or "missing"
    (the default way of running does not work without it); mend: the command that changes it, or None.
    """

    section: str
    name: str
    state: str
    detail: str
    mend: Optional[str] = None


def system_findings(root="/"):
    """Python, operating system, processor, memory."""
    found = [_python(), _system(root), _processor(root), _memory(root), _clocks(root)]
    return [finding for finding in found if finding is not None]


def machine_names(root="/"):
    """What the device tree below `root` calls this machine, in parts: ("p3768-0000", "p3767-0005", "tegra234"); ()
    where it has none."""
    # "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"
    text = read_text(root, "proc/device-tree/compatible", longest=4096)
    return tuple(word for word in re.split(r"[,+\0]", text) if word and word != "nvidia")


def processor_name(root="/"):
    """What tells this processor from others: name, family and model on x86, the kinds of its cores and the board on
    ARM; "unknown" where the system does not say. For people, and as a key for what was measured on it."""
    text = read_text(root, "proc/cpuinfo")
    fields = {}
    for key, value in re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", text, re.MULTILINE):
        fields.setdefault(key, []).append(_printable(value))
    board = read_line(root, "proc/device-tree/model")
    names = [(fields.get("model name") or fields.get("Hardware") or fields.get("Model") or [""])[0]]
    # a hypervisor's "AMD EPYC" stands for several generations
    names += ["{} {}".format(key.replace("cpu ", ""), fields[key][0]) for key in ("cpu family", "model", "stepping")
              if key in fields]
    # big and little cores
    cores = sorted(set(zip(fields.get("CPU implementer", []), fields.get("CPU part", []))))
    names += ["core {}/{}".format(*core) for core in cores]
    if board and board not in names:
        names.append(board)
    return ", ".join(name for name in names if name) or "unknown"


def power_findings(root="/"):
    """Sources from which energy can be measured, and what stands in the way."""
    found = [finding for source in (_ina3221, _rapl, _tegrastats, _nvml, _battery) for finding in source(root)]
    if not any(finding.state == OK for finding in found):
        found.append(Finding("power", "any source", OPTIONAL, "none readable here: energy stays unknown"))
    return found


def read_text(root, path, longest=1 << 20):
    """The text of a file below `root`; "" where it cannot be read."""
    try:
        with open(os.path.join(root, path), "rb") as stream:
            return stream.read(longest).decode("utf-8", "replace")
    except OSError:
        return ""


def read_line(root, path):
    """The first line of a file below `root`, printable; "" where it cannot be read."""
    return _printable(read_text(root, path, longest=4096).split("\n")[0])


def _printable(text):
    return "".join(c if c.isprintable() else "?" for c in text.strip("\0 \t\r\n"))[:200]


def _python():
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 6):
        return Finding("system", "Python", MISSING, version + ", needed is 3.6 or newer")
    detail = version if sys.version_info >= (3, 10) else version + " (running only; training and export need 3.10)"
    return Finding("system", "Python", OK, detail)


def _system(root):
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', read_text(root, "etc/os-release"), re.MULTILINE)
    name = _printable(match.group(1)) if match else platform.system()
    return Finding("system", "OS", INFO, "{}, kernel {}, {}".format(name, platform.release(), platform.machine()))


def _processor(root):
    text = read_text(root, "proc/cpuinfo")
    model = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags.group(1).split()) if flags else set()
    isa = [flag for flag in _ISA_FLAGS if flag in known]
    name = _printable(model.group(1)) if model else "unknown"
    return Finding("system", "processor", INFO, "{}, {} cores usable, {}".format(
        name, usable_cores(), " ".join(isa) or "no known vector extension"))


def usable_cores():
    """How many cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def memory_bytes(root="/"):
    """(total, available) bytes of the machine's memory; None where the system does not say."""
    numbers = dict(re.findall(r"^(\w+):\s+(\d+) kB", read_text(root, "proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in numbers:
        return None
    return int(numbers["MemTotal"]) << 10, int(numbers.get("MemAvailable", 0)) << 10


def _memory(root):
    numbers = memory_bytes(root)
    if numbers is None:
        return None
    total, available = (number / float(_GIB) for number in numbers)
    return Finding("system", "memory", INFO, "{:.1f} GiB, {:.1f} GiB available".format(total, available))


def _clocks(root):
    folder = "sys/devices/system/cpu/cpu0/cpufreq/"
    governor = read_line(root, folder + "scaling_governor")
    if not governor:
        return None
    now, most = (read_line(root, folder + name) for name in ("scaling_cur_freq", "scaling_max_freq"))
    detail = "governor {}".format(governor)
    if now.isdigit() and most.isdigit():
        detail += ", {:.0f} of {:.0f} MHz".format(int(now) / 1e3, int(most) / 1e3)
    mend = None if governor == "performance" else "sudo cpupower frequency-set -g performance   # for steady timings"
    return Finding("system", "clocks", INFO, detail, mend)


def _ina3221(root):
    patterns = ("sys/bus/i2c/drivers/ina3221x/*-*/iio*device*/rail_name_*",
                "sys/bus/i2c/drivers/ina3221/*-*/hwmon/hwmon*/in[123]_label")
    labels = sorted(path for pattern in patterns for path in glob.glob(os.path.join(root, pattern)))
    if not labels:
        return
    rails = [read_line("", path) for path in labels]
    readable = all(os.access(path, os.R_OK) for path in labels)
    yield Finding("power", "INA3221", OK if readable else OPTIONAL,
                  ", ".join(rail for rail in rails if rail and rail != "NC") or "{} rails".format(len(labels)),
                  None if readable else "sudo chmod -R a+r " + os.path.dirname(labels[0]))


def _rapl(root):
    counters = sorted(glob.glob(os.path.join(root, "sys/class/powercap/intel-rapl:*/energy_uj")))
    if not counters:
        return
    if all(os.access(path, os.R_OK) for path in counters):
        yield Finding("power", "RAPL", OK, "{} counters".format(len(counters)))
    else:
        yield Finding("power", "RAPL", OPTIONAL, "{} counters, readable by root only".format(len(counters)),
                      "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj   # until the next boot")


def _tegrastats(root):
    path = os.path.join(root, "usr/bin/tegrastats")
    if os.path.exists(path):
        runs = os.access(path, os.X_OK)
        yield Finding("power", "tegrastats", OK if runs else OPTIONAL, path, None if runs else "sudo chmod a+x " + path)


def _nvml(root):
    if os.path.exists(os.path.join(root, "proc/driver/nvidia/version")):
        yield Finding("power", "NVML", OK, read_line(root, "proc/driver/nvidia/version"))


def _battery(root):
    for folder in sorted(glob.glob(os.path.join(root, "sys/class/power_supply/*"))):
        if read_line(folder, "type") != "Battery":
            continue
        readable = any(os.access(os.path.join(folder, name), os.R_OK) for name in ("power_now", "current_now"))
        yield Finding("power", "battery", OK if readable else OPTIONAL, os.path.basename(folder) + (
            "" if readable else ", tells neither power nor current"))
