"""What decides a board's power besides the program: power mode, clocks, temperature, throttling. Read before and after.

Everything is read below `root`, so that captured trees replay; what a machine does not tell is None.
"""
import os
from typing import Any, NamedTuple

from dance_deploy import machine
from dance_deploy.power import sysfs

# clocks that a governor moves are noise below this; temperature changes leakage by about 1 % a degree
_CLOCK_SHARE = 0.10
_TEMPERATURE_C = 10.0

_NAMES = (("power_mode", "power mode", ""), ("governor", "CPU governor", ""), ("cpus_online", "CPUs online", ""),
          ("cpu_mhz", "CPU clock", "MHz"), ("cpu_limit_mhz", "CPU clock limit", "MHz"),
          ("gpu_mhz", "GPU clock", "MHz"), ("throttled", "throttling events since boot", ""))
TEMPERATURES = "temperatures"


class Course(NamedTuple):
    """One fact over some snapshots. first, last: text, number, or None where unknown; least, most: None unless they
    are numbers."""

    name: str
    unit: str
    first: Any
    last: Any
    least: Any
    most: Any
    changed: bool


def snapshot(root="/"):
    """A dict of plain values, for JSON."""
    cpu = "sys/devices/system/cpu/"
    clocks = [v for v in map(sysfs.number, sysfs.find(root, cpu + "cpu[0-9]*/cpufreq/scaling_cur_freq")) if v]
    limits = [v for v in map(sysfs.number, sysfs.find(root, cpu + "cpu[0-9]*/cpufreq/scaling_max_freq")) if v]
    return {
        "power_mode": machine.read_line(root, "var/lib/nvpmodel/status") or None,
        "governor": machine.read_line(root, cpu + "cpu0/cpufreq/scaling_governor") or None,
        "cpu_mhz": round(sum(clocks) / len(clocks) / 1e3, 1) if clocks else None,
        "cpu_limit_mhz": round(sum(limits) / len(limits) / 1e3, 1) if limits else None,
        "cpus_online": machine.read_line(root, cpu + "online") or None,
        "gpu_mhz": _gpu_mhz(root),
        "temps_c": _temperatures(root),
        "throttled": _throttle_count(root),
    }


def courses(snapshots):
    """([Course] of what some of the snapshots tell, [names of what none of them does])."""
    found, silent = [], []
    for key, name, unit in _NAMES:
        _course([snapshot_[key] for snapshot_ in snapshots], name, unit, found, silent)
    zones = sorted({zone for snapshot_ in snapshots for zone in snapshot_["temps_c"]})
    for zone in zones:
        _course([snapshot_["temps_c"].get(zone) for snapshot_ in snapshots], "temperature " + zone, "\u00b0C", found,
                silent)
    return found, silent if zones else silent + [TEMPERATURES]


def of_windows(windows):
    """The snapshots of recorded windows in the order in which they were taken."""
    return [state for window in windows for state in (window.before, window.after)]


def _course(values, name, unit, found, silent):
    known = [value for value in values if value is not None]
    if not known:
        silent.append(name)
        return
    numbers = [value for value in known if isinstance(value, (int, float))]
    ends = (min(numbers), max(numbers)) if len(numbers) == len(known) else (None, None)
    found.append(Course(name, unit, values[0], values[-1], ends[0], ends[1], len(set(values)) > 1))


def warnings(before, after, where):
    """Lines about what moved between two snapshots that should be alike at work or at rest; where: which stretch."""
    found = []
    for key, name in (("power_mode", "power mode"), ("governor", "CPU governor"), ("cpus_online", "CPUs online")):
        if before[key] != after[key]:
            found.append("{} changed {} from {} to {}".format(name, where, before[key], after[key]))
    if _moved(before["cpu_limit_mhz"], after["cpu_limit_mhz"], 0.01):
        found.append("CPU clock limit moved {} from {:.0f} to {:.0f} MHz".format(
            where, before["cpu_limit_mhz"], after["cpu_limit_mhz"]))
    both = set(before["temps_c"]) & set(after["temps_c"])
    warmest = max(both, key=lambda zone: abs(after["temps_c"][zone] - before["temps_c"][zone])) if both else None
    if warmest and abs(after["temps_c"][warmest] - before["temps_c"][warmest]) >= _TEMPERATURE_C:
        found.append("temperature {} moved {} from {:.0f} to {:.0f} C".format(
            warmest, where, before["temps_c"][warmest], after["temps_c"][warmest]))
    if before["throttled"] is not None and after["throttled"] is not None and after["throttled"] > before["throttled"]:
        found.append("the hardware throttled {} ({} events)".format(where, after["throttled"] - before["throttled"]))
    return found


def clock_warnings(before, after, where):
    """Lines about clocks that moved between two snapshots taken at like moments, such as before two runs."""
    return ["{} moved {} from {:.0f} to {:.0f} MHz; fix clocks for steady figures".format(
        name, where, before[key], after[key]) for key, name in (("cpu_mhz", "CPU clock"), ("gpu_mhz", "GPU clock"))
        if _moved(before[key], after[key], _CLOCK_SHARE)]


def _moved(before, after, share):
    return bool(before) and bool(after) and abs(after - before) > share * before


def _gpu_mhz(root):
    for pattern in ("sys/class/devfreq/*gpu*/cur_freq", "sys/class/devfreq/*gv11b*/cur_freq",
                    "sys/class/devfreq/*gp10b*/cur_freq", "sys/class/devfreq/*ga10b*/cur_freq"):
        clocks = [clock for clock in map(sysfs.number, sysfs.find(root, pattern)) if clock]
        if clocks:
            return round(clocks[0] / 1e6, 1)
    return None


def _temperatures(root):
    found = {}
    for folder in sysfs.find(root, "sys/class/thermal/thermal_zone*"):
        milli_c = sysfs.number(os.path.join(folder, "temp"))
        zone = sysfs.text(os.path.join(folder, "type")) or os.path.basename(folder)
        if milli_c is not None and milli_c > -100000 and not zone.lower().startswith("pmic"):  # off; a constant
            found[zone] = milli_c / 1e3
    return found


def _throttle_count(root):
    counts = [sysfs.number(path) for pattern in (
        "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
        "sys/class/hwmon/hwmon*/oc*_event_cnt") for path in sysfs.find(root, pattern)]
    counts = [count for count in counts if count is not None]
    return sum(counts) if counts else None
