"""What a profile says of its device's arithmetic, memory and power: peak rates, modes' limits, and where each is from.

The key `hardware` of profiles/*.json; format: docs/profiles.md. Nothing here is measured by us: every figure names the
public document that states it, and what no document states is null, with the reason.
"""
from typing import Dict, NamedTuple, Optional, Tuple

from dance_deploy import checked
from dance_deploy.checked import CheckError

PRECISIONS = ("fp32", "fp16", "int8")
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

_FIGURES = ("compute_capability", "precisions", "units", "macs_per_clock", "tensor_cores", "clock_mhz", "memory_gib",
            "memory_mhz", "bandwidth_gbs", "l2_kib", "tensorrt", "watts")
_KEYS = ("kind", "unit", "mode", "modes") + _FIGURES + ("documents", "sources", "unknown")
_MODE_KEYS = ("units", "clock_mhz", "memory_mhz")


class Document(NamedTuple):
    """A public document; url: where it can be read, None where it has no public address."""

    title: str
    url: Optional[str]


class Watts(NamedTuple):
    """Power of what the profile's total rail covers: idle, busy (under a load of the GPU), most (the maker's limit).

    None where no document says so.
    """

    idle: Optional[float]
    busy: Optional[float]
    most: Optional[float]


class ModeLimits(NamedTuple):
    """What a power mode limits; None: not limited, or not stated."""

    units: Optional[int]
    clock_mhz: Optional[float]
    memory_mhz: Optional[float]


class Hardware(NamedTuple):
    """Peak figures of one device.

    kind: "gpu", "cpu" or "npu"; unit: what `units` counts ("SM", "core"); macs_per_clock: multiply-accumulates that one
    unit completes per clock outside tensor cores, by precision; clock_mhz, memory_mhz: the highest of any power mode;
    bandwidth_gbs: 10^9 bytes per second at memory_mhz; tensorrt: oldest and newest release that its system brings and
    this toolchain serves; mode: the id of the power mode that is meant where none is named, None without modes; modes:
    ModeLimits by that id; sources: ids of the documents for each figure; unknown: reasons, for figures that are None.
    """

    kind: str
    unit: str
    compute_capability: Optional[str]
    precisions: Tuple[str, ...]
    units: Optional[int]
    macs_per_clock: Dict[str, float]
    tensor_cores: Optional[int]
    clock_mhz: Optional[float]
    memory_gib: Optional[float]
    memory_mhz: Optional[float]
    bandwidth_gbs: Optional[float]
    l2_kib: Optional[float]
    tensorrt: Optional[Tuple[str, str]]
    watts: Watts
    mode: Optional[int]
    modes: Dict[int, ModeLimits]
    documents: Dict[str, Document]
    sources: Dict[str, Tuple[str, ...]]
    unknown: Dict[str, str]

    def peak_macs(self, precision, mode=None):
        """Multiply-accumulates per second at most, in a power mode's limits; None where a figure is unknown."""
        limits = self.limits(mode)
        units = self.units if limits.units is None else limits.units
        clock_mhz = self.clock_mhz if limits.clock_mhz is None else limits.clock_mhz
        rate = self.macs_per_clock.get(precision)
        return None if None in (units, clock_mhz, rate) else units * rate * clock_mhz * 1e6

    def bandwidth(self, mode=None):
        """Bytes per second at most, in a power mode's limits; None where unknown."""
        limit_mhz = self.limits(mode).memory_mhz
        if self.bandwidth_gbs is None or limit_mhz is None:
            return None if self.bandwidth_gbs is None else self.bandwidth_gbs * 1e9
        return self.bandwidth_gbs * 1e9 * limit_mhz / self.memory_mhz

    def limits(self, mode=None):
        """The ModeLimits of a mode; one that limits nothing for a mode of which nothing is stated."""
        return self.modes.get(self.mode if mode is None else mode, ModeLimits(None, None, None))


def hardware_from_tree(tree, where="hardware"):
    """The checked Hardware in a tree of plain values; raises CheckError."""
    checked.mapping(tree, where, _KEYS)
    documents = {name: _document(value, "%s.documents.%s" % (where, name))
                 for name, value in _object(tree["documents"], where + ".documents").items()}
    hardware = Hardware(
        kind=checked.choice(tree["kind"], where + ".kind", ("gpu", "cpu", "npu")),
        unit=checked.text(tree["unit"], where + ".unit", 16),
        compute_capability=_optional(_capability, tree, "compute_capability", where),
        precisions=_choices(tree["precisions"], where + ".precisions"),
        units=_optional(lambda v, at: checked.integer(v, at, 1, 100000), tree, "units", where),
        macs_per_clock=_rates(tree["macs_per_clock"], where + ".macs_per_clock"),
        tensor_cores=_optional(lambda v, at: checked.integer(v, at, 0, 100000), tree, "tensor_cores", where),
        clock_mhz=_figure(tree, "clock_mhz", where, 1, 1e5),
        memory_gib=_figure(tree, "memory_gib", where, 0.1, 1e5),
        memory_mhz=_figure(tree, "memory_mhz", where, 1, 1e5),
        bandwidth_gbs=_figure(tree, "bandwidth_gbs", where, 0.1, 1e5),
        l2_kib=_figure(tree, "l2_kib", where, 1, 1e7),
        tensorrt=_optional(_range, tree, "tensorrt", where),
        watts=_watts(tree["watts"], where + ".watts"),
        mode=_optional(lambda v, at: checked.integer(v, at, 0, 1000), tree, "mode", where),
        modes=_modes(tree["modes"], where + ".modes"),
        documents=documents,
        sources={key: _ids(ids, "%s.sources.%s" % (where, key), documents)
                 for key, ids in _object(tree["sources"], where + ".sources").items()},
        unknown={checked.choice(key, where + ".unknown", _FIGURES): checked.text(text, "%s.unknown.%s" % (where, key))
                 for key, text in _object(tree["unknown"], where + ".unknown").items()})
    _check_each_figure_is_explained(hardware, tree, where)
    return hardware


def _check_each_figure_is_explained(hardware, tree, where):
    for key in _FIGURES + ("modes",):
        value = tree[key]
        stated = any(part is not None for part in value.values()) if type(value) is dict else value is not None
        if stated and key not in hardware.sources:
            raise CheckError("%s.sources: nothing says where %s is from" % (where, key))
        if not stated and key not in hardware.unknown and key != "modes":
            raise CheckError("%s.unknown: %s is not known, and nothing says why" % (where, key))
    used = {name for ids in hardware.sources.values() for name in ids}
    for name in hardware.documents:
        if name not in used:
            raise CheckError("%s.documents.%s: no figure is from it" % (where, name))
    unknown = set(hardware.sources) - set(_FIGURES) - {"modes"}
    if unknown:
        raise CheckError("%s.sources: there is no figure %s" % (where, checked.shown(sorted(unknown)[0])))
    if hardware.modes and hardware.memory_mhz is None and any(
            mode.memory_mhz is not None for mode in hardware.modes.values()):
        raise CheckError("%s.modes limit a memory clock, and memory_mhz is not known" % where)


def _capability(value, where):
    text = checked.text(value, where, 8)
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise checked.wrong(where, value, "a compute capability such as 5.3")
    return text


def _range(value, where):
    ends = checked.array(value, where)
    if len(ends) != 2:
        raise checked.wrong(where, value, "the oldest and the newest release")
    return tuple(checked.text(end, "%s[%d]" % (where, i), 16) for i, end in enumerate(ends))


def _choices(value, where):
    names = tuple(checked.choice(name, "%s[%d]" % (where, i), PRECISIONS)
                  for i, name in enumerate(checked.array(value, where, at_least=1)))
    checked.unique(names, where, "precision")
    return names


def _rates(value, where):
    return {checked.choice(key, where, PRECISIONS): checked.number(rate, "%s.%s" % (where, key), 1, 1e5)
            for key, rate in _object(value, where).items()}


def _watts(value, where):
    checked.mapping(value, where, Watts._fields)
    watts = Watts(*[_figure(value, key, where, 0.01, 1e5) for key in Watts._fields])
    known = [value for value in watts if value is not None]
    if known != sorted(known):
        raise checked.wrong(where, value, "idle <= busy <= most")
    return watts


def _modes(value, where):
    modes = {}
    for key, limits in _object(value, where).items():
        at = "%s.%s" % (where, checked.text(key, where, 4))
        if not key.isdigit():
            raise checked.wrong(at, key, "a mode's id")
        checked.mapping(limits, at, _MODE_KEYS)
        units = limits["units"]
        modes[int(key)] = ModeLimits(None if units is None else checked.integer(units, at + ".units", 1, 100000),
                                     _figure(limits, "clock_mhz", at, 1, 1e5),
                                     _figure(limits, "memory_mhz", at, 1, 1e5))
    return modes


def _document(value, where):
    checked.mapping(value, where, ("title", "url"))
    url = value["url"]
    if url is not None and not checked.text(url, where + ".url").startswith(("https://", "http://")):
        raise checked.wrong(where + ".url", url, "an address, or null")
    return Document(checked.text(value["title"], where + ".title"), url)


def _ids(value, where, documents):
    ids = checked.array(value, where, at_least=1)
    return tuple(checked.choice(name, "%s[%d]" % (where, i), tuple(documents)) for i, name in enumerate(ids))


def _figure(tree, key, where, low, high):
    return _optional(lambda value, at: checked.number(value, at, low, high), tree, key, where)


def _optional(check, tree, key, where):
    return None if tree[key] is None else check(tree[key], "%s.%s" % (where, key))


def _object(value, where):
    if type(value) is not dict:
        raise checked.wrong(where, value, "an object")
    for key in value:
        checked.text(key, where + ": a key", 64)
    return value
