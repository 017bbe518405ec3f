"""Folders that stand for "/": the power files of boards and machines, as their kernels lay them out."""
from dance_deploy.power.source import POWER, Reading
from dance_deploy.power.trace import trace_from_readings


def write_tree(root, files):
    """Write {path: text}; returns the root as a str."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(str(text) + "\n")
    return str(root)


def iio_nano(root):
    """Jetson Nano, L4T R32: iio layout, power in mW."""
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
    files = {}
    for n, (label, power_mw) in enumerate([("POM_5V_IN", 3000), ("POM_5V_GPU", 400), ("POM_5V_CPU", 900)]):
        files[folder + "rail_name_%d" % n] = label
        files[folder + "in_power%d_input" % n] = power_mw
        files[folder + "in_voltage%d_input" % n] = 5000
        files[folder + "in_current%d_input" % n] = power_mw // 5
    files[folder + "crit_current_limit_0"] = "32760 ma"
    return write_tree(root, files)


def hwmon_orin(root):
    """Jetson AGX Orin, L4T R35 and newer: two chips, hwmon layout, an NC channel, no power files."""
    chips = {"1-0040/hwmon/hwmon4/": [("VDD_GPU_SOC", 19000, 200), ("VDD_CPU_CV", 19000, 100),
                                      ("VIN_SYS_5V0", 5000, 800)],
             "1-0041/hwmon/hwmon3/": [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4984, 160), ("NC", 0, 0)]}
    files = {}
    for chip, channels in chips.items():
        folder = "sys/bus/i2c/drivers/ina3221/" + chip
        for n, (label, voltage_mv, current_ma) in enumerate(channels, 1):
            files[folder + "in%d_label" % n] = label
            files[folder + "in%d_input" % n] = voltage_mv
            files[folder + "curr%d_input" % n] = current_ma
            files[folder + "in%d_enable" % n] = 1
        files[folder + "in7_label"] = "sum of shunt voltages"
        files[folder + "in7_input"] = 5440
    return write_tree(root, files)


def rapl(root, energy_uj=1000, range_uj=262143328850):
    """A machine with one package, its cores and its memory, and the second way to the package's counter."""
    base = "sys/class/powercap/"
    files = {}
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"),
                       ("intel-rapl-mmio:0", "package-0")):
        files.update({base + zone + "/name": name, base + zone + "/energy_uj": energy_uj,
                      base + zone + "/max_energy_range_uj": range_uj})
    files[base + "intel-rapl/enabled"] = 1
    return write_tree(root, files)


def battery(root, **files):
    """A laptop with one battery and a mouse's; files: those of the battery besides type and status."""
    base = "sys/class/power_supply/"
    tree = {base + "BAT0/type": "Battery", base + "BAT0/status": files.pop("status", "Discharging"),
            base + "AC/type": "Mains", base + "AC/online": 0,
            base + "mouse/type": "Battery", base + "mouse/scope": "Device", base + "mouse/status": "Discharging"}
    tree.update({base + "BAT0/" + name: value for name, value in files.items()})
    return write_tree(root, tree)


def set_value(root, path, value):
    """Overwrite one file of a tree."""
    (root / path).write_text(str(value) + "\n")


class Clock:
    """A clock that a test moves: call it for the time, add seconds to .now_s; wait() moves it as a real wait does."""

    def __init__(self, now_s=100.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += seconds
        return False


def trace_of(times_s, power_mw, rail="VDD_IN", kind=POWER):
    """The trace of one rail; NaN: not read."""
    readings = []
    for time_s, value in zip(times_s, power_mw):
        told = {rail: float(value)} if value == value else {}
        readings.append(Reading(float(time_s), told) if kind == POWER else Reading(float(time_s), {}, None, told))
    return trace_from_readings(readings, kind, (rail,))
