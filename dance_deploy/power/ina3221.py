"""Jetson's power monitors in sysfs: INA3221 in the iio layout (L4T R32) and the hwmon layout (R35 and newer), INA238.

Faster than tegrastats, no child process, own clock. Everything is found by pattern and label: bus, address and hwmon
number differ by board and boot. Source: kernel.org Documentation/hwmon/ina3221.rst, ina238.rst.
"""
import os
from typing import NamedTuple

from dance_deploy.errors import OperationError
from dance_deploy.power import sysfs, totals
from dance_deploy.power.source import PolledSource

_IIO = ("sys/bus/i2c/drivers/ina3221x/*-*/iio:device*", "sys/bus/i2c/drivers/ina3221x/*-*/iio_device*")
_HWMON = "sys/bus/i2c/drivers/ina3221/*-*/hwmon/hwmon*"
_INA238 = "sys/bus/i2c/drivers/ina238/*-*/hwmon/hwmon*"
# not connected, and the chip's own sum of shunt voltages, which is no rail
_NO_RAIL = ("", "nc", "sum of shunt voltages")


class _Channel(NamedTuple):
    """label: the sensor's; paths: one file in mW or uW, or a voltage file in mV and a current file in mA; scale: from
    the product of the files to mW; chip: folder of the chip, to tell equal labels apart."""

    label: str
    paths: tuple
    scale: float
    chip: str


class Ina3221Source(PolledSource):
    """Every connected channel of the board's power monitors, in mW. root: the folder that stands for "/"."""

    name = "ina3221"

    def __init__(self, root="/", **polling):
        super(Ina3221Source, self).__init__(**polling)
        self._root = root
        self._channels = ()

    def open(self):
        found = _unique(_iio_channels(self._root) + _hwmon_channels(self._root) + _ina238_channels(self._root))
        if not found:
            raise OperationError(
                "ina3221: no power monitor below {}; expected one on a Jetson (drivers ina3221x or ina3221): "
                "modules such as TX2 NX and some carriers have none; try --source tegrastats".format(
                    os.path.join(self._root, "sys/bus/i2c/drivers")))
        self._channels = tuple(channel for channel in found if _power_mw(channel) is not None)
        if not self._channels:
            path = next((path for path in found[0].paths if sysfs.why_unreadable(path)), found[0].paths[0])
            raise OperationError("ina3221: '{}' cannot be read: {}; run: sudo chmod -R a+r {}".format(
                path, sysfs.why_unreadable(path), os.path.dirname(path)))
        self.rails = tuple(channel.label for channel in self._channels)
        self.warnings = ["rail {} cannot be read and is left out".format(channel.label)
                         for channel in found if channel.label not in self.rails]
        totals.assign(self, self._root, lambda: self.sample()[0])

    def sample(self):
        rails_mw = {}
        for channel in self._channels:
            power_mw = _power_mw(channel)
            if power_mw is not None:
                rails_mw[channel.label] = power_mw
        if not rails_mw:
            raise OperationError("ina3221: no rail can be read any more: {}".format(
                sysfs.why_unreadable(self._channels[0].paths[0]) or "they hold no number"))
        return rails_mw, None, None


def _power_mw(channel):
    value = channel.scale
    for path in channel.paths:
        number = sysfs.number(path)
        if number is None:
            return None
        value *= number
    return value


def _iio_channels(root):
    found = []
    for folder in sorted({folder for pattern in _IIO for folder in sysfs.find(root, pattern)}):
        for n in (0, 1, 2):
            label = sysfs.text(os.path.join(folder, "rail_name_%d" % n))
            if label is not None and label.lower() not in _NO_RAIL:
                found.append(_Channel(label, (os.path.join(folder, "in_power%d_input" % n),), 1.0, folder))
    return found


def _hwmon_channels(root):
    found = []
    for folder in sysfs.find(root, _HWMON):
        for n in (1, 2, 3):  # in4..in7 are shunt voltages
            label = sysfs.text(os.path.join(folder, "in%d_label" % n))
            disabled = sysfs.number(os.path.join(folder, "in%d_enable" % n)) == 0
            if label is not None and label.lower() not in _NO_RAIL and not disabled:
                files = tuple(os.path.join(folder, name % n) for name in ("in%d_input", "curr%d_input"))
                found.append(_Channel(label, files, 1e-3, folder))  # mV x mA = uW
    return found


def _ina238_channels(root):
    found = []
    for folder in sysfs.find(root, _INA238):
        label = next((text for text in (sysfs.text(os.path.join(folder, name)) for name in ("label", "in1_label"))
                      if text), "INA238 " + _address(folder))
        found.append(_Channel(label, (os.path.join(folder, "power1_input"),), 1e-3, folder))  # uW
    return found


def _unique(channels):
    """The same channels; where a label stands twice the chip's bus and address are added to it."""
    labels = [channel.label for channel in channels]
    return [channel if labels.count(channel.label) == 1
            else channel._replace(label="{} ({})".format(channel.label, _address(channel.chip)))
            for channel in channels]


def _address(chip):
    """Bus and address, "1-0040", of a folder below the driver's."""
    return next((part for part in reversed(chip.split(os.sep))
                 if "-" in part and part.replace("-", "").isalnum() and part.split("-")[0].isdigit()), chip)
