"""RAPL, the energy counters of Intel's and AMD's CPUs, by Linux's powercap.

Source: kernel.org Documentation/power/powercap/powercap.rst. Counters are in microjoules and wrap at
max_energy_range_uj; since Linux 5.10 only root may read them.
"""
import os
import re

from dance_deploy.errors import OperationError
from dance_deploy.power import sysfs
from dance_deploy.power.counters import WrappingCounter
from dance_deploy.power.source import COUNTER, PolledSource

# intel-rapl-mmio shows the package's counter a second time, by another way
_ZONES = "sys/class/powercap/intel-rapl:*"


class RaplSource(PolledSource):
    """Energy of CPU packages, their parts (core, uncore) and memory.

    Labels are the zones' own names; a part's is "package-0/core". The total is packages plus memory; parts are inside
    their package, and psys (the whole platform, on some laptops) is shown beside.
    """

    name = "rapl"
    kind = COUNTER
    scope = "CPU packages and memory; not GPU, disks, fans, supply"

    def __init__(self, root="/", **polling):
        super(RaplSource, self).__init__(**polling)
        self._root = root
        self._zones = ()
        self._counters = {}

    def open(self):
        folders = [folder for folder in sysfs.find(self._root, _ZONES)
                   if re.search(r"intel-rapl:\d+(:\d+)?$", folder)]
        if not folders:
            raise OperationError(
                "rapl: there is no {}; expected on Intel and AMD machines with the kernel module intel_rapl_msr "
                "(sudo modprobe intel_rapl_msr); virtual machines and ARM boards have none".format(
                    os.path.join(self._root, _ZONES)))
        files = [(label, os.path.join(folder, "energy_uj"), _range_j(folder)) for label, folder in _labelled(folders)]
        self._zones = [zone for zone in files if sysfs.number(zone[1]) is not None]
        if not self._zones:
            raise OperationError("rapl: '{}' cannot be read: {}; run: sudo chmod a+r {}".format(
                files[0][1], sysfs.why_unreadable(files[0][1]),
                os.path.join(self._root, "sys/class/powercap/intel-rapl:*/energy_uj")))
        self._counters = {label: WrappingCounter(range_j) for label, _, range_j in self._zones}
        self.rails = tuple(label for label, _, _ in self._zones)
        self.total_rails = [label for label in self.rails if re.match(r"(package-\d+(-die-\d+)?|.*/?dram)$", label)]
        missing = [label for label, _, _ in files if label not in self.rails]
        self.warnings = ["rail {} cannot be read and is left out".format(label) for label in missing]

    def sample(self):
        now, energy_j, readable = self._clock(), {}, False
        for label, path, _ in self._zones:
            value = sysfs.number(path)
            if value is None:
                continue
            readable = True
            total_j = self._counters[label].add(now, value * 1e-6)
            if total_j is not None:
                energy_j[label] = total_j
        if not readable:
            path = self._zones[0][1]
            raise OperationError("rapl: no counter can be read any more: '{}': {}".format(
                path, sysfs.why_unreadable(path)))
        return {}, energy_j, None


def _range_j(folder):
    value = sysfs.number(os.path.join(folder, "max_energy_range_uj"))
    return value * 1e-6 if value else None


def _labelled(folders):
    """(label, folder): a zone's name, a part's after its package's."""
    names = {os.path.basename(folder): sysfs.text(os.path.join(folder, "name")) or os.path.basename(folder)
             for folder in folders}
    for folder in folders:
        own = os.path.basename(folder)
        parent = own.rsplit(":", 1)[0]
        yield (names[parent] + "/" + names[own] if parent in names else names[own]), folder
