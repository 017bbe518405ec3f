"""The battery's own gauge (power_supply class): an estimate of what the whole machine draws while it runs on battery.

Source: kernel.org Documentation/ABI/testing/sysfs-class-power. Gauges average over seconds and step coarsely.
"""
import os

from dance_deploy.errors import OperationError
from dance_deploy.power import sysfs
from dance_deploy.power.counters import WrappingCounter
from dance_deploy.power.source import COUNTER, POWER, PolledSource

_SUPPLIES = "sys/class/power_supply/*"
_J_PER_UWH = 3600e-6


class BatterySource(PolledSource):
    """Every discharging battery: power_now, or voltage x current, or, where a gauge has neither, its falling charge."""

    name = "battery"
    scope = "whole machine, by the battery's gauge"
    estimate = True

    def __init__(self, root="/", **polling):
        super(BatterySource, self).__init__(**polling)
        self._root = root
        self._read = {}
        self._counters = {}

    def open(self):
        batteries = [folder for folder in sysfs.find(self._root, _SUPPLIES)
                     if (sysfs.text(os.path.join(folder, "type")) or "").lower() == "battery"
                     and (sysfs.text(os.path.join(folder, "scope")) or "").lower() != "device"]  # a mouse's
        if not batteries:
            raise OperationError("battery: none below {}; this machine runs from a supply that tells no power".format(
                os.path.join(self._root, "sys/class/power_supply")))
        idle = [folder for folder in batteries if not _discharging(folder)]
        if len(idle) == len(batteries):
            raise OperationError("battery: {} is not discharging ({}): what it tells is not what the machine draws; "
                                 "unplug the supply".format(os.path.basename(idle[0]), _status(idle[0])))
        chosen = {os.path.basename(folder): folder for folder in batteries if folder not in idle}
        power = {label: folder for label, folder in chosen.items() if _power_mw(folder) is not None}
        energy = {label: folder for label, folder in chosen.items() if _stored_j(folder) is not None}
        self.kind, self._read = (POWER, power) if power else (COUNTER, energy)
        if not self._read:
            raise OperationError("battery: {} tells neither power_now, nor voltage and current, nor energy_now".format(
                ", ".join(chosen)))
        self._counters = {label: WrappingCounter() for label in self._read}
        self.rails = tuple(sorted(self._read))
        self.total_rails = self.rails
        self.warnings = ["figures of a battery's gauge are an estimate: seconds of averaging, coarse steps"]

    def sample(self):
        for label, folder in self._read.items():
            if not _discharging(folder):
                raise OperationError("battery: {} stopped discharging ({}); was the supply plugged in?".format(
                    label, _status(folder)))
        ask = _power_mw if self.kind == POWER else _stored_j
        values = {label: ask(folder) for label, folder in self._read.items()}
        values = {label: value for label, value in values.items() if value is not None}
        if not values:
            raise OperationError("battery: no gauge can be read any more")
        if self.kind == POWER:
            return values, None, None
        now = self._clock()  # what is stored falls, what was taken rises
        taken_j = {label: self._counters[label].add(now, -value) for label, value in values.items()}
        return {}, {label: joules for label, joules in taken_j.items() if joules is not None}, None


def _status(folder):
    return sysfs.text(os.path.join(folder, "status")) or "status unknown"


def _discharging(folder):
    return _status(folder).lower() == "discharging"


def _power_mw(folder):
    power_uw = sysfs.number(os.path.join(folder, "power_now"))
    if power_uw is not None:
        return abs(power_uw) * 1e-3  # some gauges sign the direction
    voltage_uv, current_ua = (sysfs.number(os.path.join(folder, name)) for name in ("voltage_now", "current_now"))
    return None if voltage_uv is None or current_ua is None else abs(voltage_uv * current_ua) * 1e-9


def _stored_j(folder):
    energy_uwh = sysfs.number(os.path.join(folder, "energy_now"))
    if energy_uwh is not None:
        return energy_uwh * _J_PER_UWH
    charge_uah, voltage_uv = (sysfs.number(os.path.join(folder, name)) for name in ("charge_now", "voltage_min_design"))
    # at the design voltage: the present one also falls with the load, which would count as energy
    return None if charge_uah is None or voltage_uv is None else charge_uah * voltage_uv * 1e-6 * _J_PER_UWH
