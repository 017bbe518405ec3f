"""Sources that read sysfs, on captured trees: what they find, what they tell, and what they say where nothing is."""
import os

import pytest
from power_trees import Clock, battery, hwmon_orin, iio_nano, rapl, set_value, write_tree

from dance_deploy.errors import InputError, MissingPackageError, OperationError
from dance_deploy.power.battery import BatterySource
from dance_deploy.power.counters import FULL_LOAD_W, WrappingCounter
from dance_deploy.power.ina3221 import Ina3221Source
from dance_deploy.power.nvml import NvmlSource
from dance_deploy.power.rapl import RaplSource
from dance_deploy.power.source import COUNTER, POWER


def opened(source_class, root, clock=None, **options):
    clock = Clock() if clock is None else clock
    source = source_class(root=root, clock=clock, wait=clock.wait, **options)
    source.open()
    return source


def test_iio_layout_of_a_nano(tmp_path):
    source = opened(Ina3221Source, iio_nano(tmp_path))
    assert source.rails == ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")
    assert (source.total_rail, source.kind, source.warnings) == ("POM_5V_IN", POWER, [])
    assert source.read().rails_mw == {"POM_5V_IN": 3000.0, "POM_5V_GPU": 400.0, "POM_5V_CPU": 900.0}


def test_hwmon_layout_of_an_agx_orin(tmp_path):
    source = opened(Ina3221Source, hwmon_orin(tmp_path))
    assert source.rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    assert source.total_rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")   # VDDQ is fed from the 5 V branch
    assert source.total_rail is None
    assert source.read().rails_mw == pytest.approx(
        {"VDD_GPU_SOC": 3800.0, "VDD_CPU_CV": 1900.0, "VIN_SYS_5V0": 4000.0, "VDDQ_VDD2_1V8AO": 797.44}, rel=1e-12)


def test_a_disabled_channel_and_a_second_chip_with_the_same_label(tmp_path):
    root = hwmon_orin(tmp_path)
    set_value(tmp_path, "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4/in2_enable", 0)
    set_value(tmp_path, "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon3/in2_label", "VDD_GPU_SOC")
    source = opened(Ina3221Source, root)
    assert source.rails == ("VDD_GPU_SOC (1-0040)", "VIN_SYS_5V0", "VDD_GPU_SOC (1-0041)")
    assert source.total_rails == ()


def test_ina238_of_a_thor_is_in_microwatts(tmp_path):
    root = write_tree(tmp_path, {"sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon1/power1_input": 87426000,
                                 "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon1/label": "VIN"})
    assert opened(Ina3221Source, root).read().rails_mw == {"VIN": 87426.0}


def test_an_unknown_board_has_rails_and_no_total(tmp_path):
    root = iio_nano(tmp_path)
    for n in range(3):
        set_value(tmp_path, "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_%d" % n, "RAIL_%d" % n)
    source = opened(Ina3221Source, root)
    assert source.rails == ("RAIL_0", "RAIL_1", "RAIL_2")
    assert (source.total_rail, source.total_rails) == (None, ())


def test_a_rail_that_vanishes_is_absent_and_the_last_one_ends_it(tmp_path):
    source = opened(Ina3221Source, iio_nano(tmp_path))
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    (folder / "in_power1_input").unlink()
    assert source.read().rails_mw == {"POM_5V_IN": 3000.0, "POM_5V_CPU": 900.0}
    set_value(folder, "in_power2_input", "no number")
    assert source.read().rails_mw == {"POM_5V_IN": 3000.0}
    (folder / "in_power0_input").unlink()
    with pytest.raises(OperationError, match="it is gone"):
        source.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_said(tmp_path):
    root = rapl(tmp_path)
    for path in tmp_path.rglob("energy_uj"):
        path.chmod(0)
    with pytest.raises(OperationError, match="permission denied; run: sudo chmod"):
        RaplSource(root=root).open()


def test_rapl_zones_labels_and_total(tmp_path):
    source = opened(RaplSource, rapl(tmp_path))
    assert source.rails == ("package-0", "package-0/core", "package-0/dram")   # not the mmio copy
    assert source.total_rails == ("package-0", "package-0/dram")
    assert source.kind == COUNTER
    assert source.read().energy_j == {"package-0": 0.0, "package-0/core": 0.0, "package-0/dram": 0.0}


def test_rapl_counts_across_a_wrap(tmp_path):
    clock = Clock()
    source = opened(RaplSource, rapl(tmp_path, energy_uj=262143000000), clock)
    path = "sys/class/powercap/intel-rapl:0/energy_uj"
    source.read()
    steps_uj = []
    for value_uj in (262143328000, 700000, 5700000):
        set_value(tmp_path, path, value_uj)
        steps_uj.append(source.read().energy_j["package-0"] * 1e6)
    assert steps_uj == pytest.approx([328000, 328000 + 850 + 700000, 328850 + 5700000], abs=1e-3)


def test_a_counter_that_was_reset_is_absent_once(tmp_path):
    clock = Clock()
    source = opened(RaplSource, rapl(tmp_path, energy_uj=100e9), clock)
    source.read()
    set_value(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 0)   # a wrap would mean 1.6 MW
    assert "package-0" not in source.read().energy_j
    set_value(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 250000)
    assert source.read().energy_j["package-0"] == pytest.approx(0.25)


def test_wraps_that_nobody_saw_are_not_counted():
    counter = WrappingCounter(range_j=65536.0)
    assert counter.add(0.0, 65535.0) == 0.0
    assert counter.add(10.0, 1.0) == 2.0
    assert counter.add(10.0 + 65536.0 / FULL_LOAD_W, 3.0) is None
    assert counter.add(80.0, 4.0) == 3.0


def test_the_sensors_that_are_not_there(tmp_path):
    for source_class, word in ((Ina3221Source, "Jetson"), (RaplSource, "modprobe"), (BatterySource, "supply")):
        with pytest.raises(OperationError, match=word):
            source_class(root=str(tmp_path)).open()


@pytest.mark.parametrize("files, power_mw", [
    ({"power_now": 12500000}, 12500.0), ({"power_now": -12500000}, 12500.0),
    ({"voltage_now": 12000000, "current_now": 1500000}, 18000.0)])
def test_battery_power(tmp_path, files, power_mw):
    source = opened(BatterySource, battery(tmp_path, **files))
    assert (source.rails, source.total_rail, source.estimate) == (("BAT0",), "BAT0", True)
    assert source.read().rails_mw == {"BAT0": pytest.approx(power_mw)}
    assert any("estimate" in line for line in source.warnings)


@pytest.mark.parametrize("name, extra, joules", [
    ("energy_now", {}, 36.0), ("charge_now", {"voltage_min_design": 10000000}, 360.0)])
def test_battery_without_power_counts_what_is_taken(tmp_path, name, extra, joules):
    source = opened(BatterySource, battery(tmp_path, **{name: 50000000}, **extra), interval_s=60.0)
    assert source.kind == COUNTER
    assert source.read().energy_j == {"BAT0": 0.0}
    set_value(tmp_path, "sys/class/power_supply/BAT0/" + name, 49990000)
    assert source.read().energy_j == {"BAT0": pytest.approx(joules)}


def test_a_charging_battery_is_refused_and_plugging_in_ends_it(tmp_path):
    root = battery(tmp_path, power_now=1000000, status="Charging")
    with pytest.raises(OperationError, match="Charging"):
        BatterySource(root=root).open()
    set_value(tmp_path, "sys/class/power_supply/BAT0/status", "Discharging")
    source = opened(BatterySource, root)
    source.read()
    set_value(tmp_path, "sys/class/power_supply/BAT0/status", "Full")
    with pytest.raises(OperationError, match="plugged in"):
        source.read()


def test_samples_keep_the_grid_and_skip_what_was_missed(tmp_path):
    clock = Clock()
    source = opened(Ina3221Source, iio_nano(tmp_path), clock, interval_s=0.1)
    times = [source.read().time_s for _ in range(3)]
    clock.now_s += 0.25
    times += [source.read().time_s for _ in range(2)]
    # the tick at 100.3 comes late, at 100.45; those between are not made up for
    assert times == pytest.approx([100.0, 100.1, 100.2, 100.45, 100.5])


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan"), float("inf"), 1e-4])
def test_an_interval_that_makes_no_sense(interval_s):
    with pytest.raises(InputError, match="interval"):
        RaplSource(interval_s=interval_s)


def test_close_wakes_a_waiting_read(tmp_path):
    import threading
    source = RaplSource(root=rapl(tmp_path), interval_s=60.0)
    source.open()
    source.read()
    timer = threading.Timer(0.05, source.close)
    timer.start()
    with pytest.raises(OperationError, match="closed"):
        source.read()
    timer.join()


class Nvml:
    """The part of pynvml's interface that the source uses, with its names; energy and power by GPU, None: unsupported.
    No machine with such a GPU is needed."""

    class NVMLError(Exception):
        pass

    def __init__(self, energy_mj, power_mw):
        self.energy_mj, self.power_mw, self.running = energy_mj, power_mw, False

    def nvmlInit(self):
        self.running = True

    def nvmlShutdown(self):
        self.running = False

    def nvmlDeviceGetCount(self):
        return len(self.power_mw)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._told(self.energy_mj[handle])

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._told(self.power_mw[handle])

    def _told(self, value):
        if value is None or not self.running:
            raise self.NVMLError("Not Supported")
        return value


def test_nvml_counts_energy_where_the_gpus_do():
    clock, nvml = Clock(), Nvml([5000, 7000], [60000, 70000])
    source = NvmlSource(nvml, clock=clock, wait=clock.wait)
    source.open()
    assert (source.kind, source.rails, source.total_rails) == (COUNTER, ("GPU-0", "GPU-1"), ("GPU-0", "GPU-1"))
    source.read()
    nvml.energy_mj = [11000, 14000]
    assert source.read().energy_j == {"GPU-0": 6.0, "GPU-1": 7.0}
    source.close()
    assert not nvml.running


def test_nvml_falls_back_to_power_and_refuses_gpus_that_tell_nothing():
    clock = Clock()
    source = NvmlSource(Nvml([None], [60000]), clock=clock, wait=clock.wait)
    source.open()
    assert (source.kind, source.read().rails_mw) == (POWER, {"GPU-0": 60000.0})
    with pytest.raises(OperationError, match="tells its power"):
        NvmlSource(Nvml([None], [None])).open()


def test_nvml_without_its_package_names_it():
    try:
        import pynvml  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackageError, match="pynvml"):
            NvmlSource().open()
    else:
        pytest.skip("pynvml is installed")
