"""Device profiles: one JSON file a device, the one place for what is known about it.

A profile says how a bundle for the device is written (opset, IR version, type of the masks, functions or not); for
boards with power sensors, what these measure; and the device's peak rates, memory and power modes.
Format: docs/profiles.md.
"""
import os
import re
from typing import Dict, NamedTuple, Optional, Tuple

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError
from dance_deploy.hardware import Hardware, hardware_from_tree

DEFAULT = "cpu"
_KEYS = ("name", "description", "opset", "ir_version", "mask_dtype", "functions")
_POWER_KEYS = ("compatible", "rails", "totals", "feeds", "modes", "sources")
_MAX_BYTES = 1 << 20
_COMPATIBLE = re.compile(r"[a-z][a-z0-9-]{2,40}$", re.ASCII)


class Total(NamedTuple):
    """scope: "module", or "board" (module and carrier); rails: labels whose sum is the power of that."""

    scope: str
    rails: Tuple[str, ...]


class PowerMode(NamedTuple):
    """A mode of nvpmodel. watts: NVIDIA's budget, None where it gives none; where: release and module it is of."""

    id: int
    name: str
    watts: Optional[float]
    where: str


class PowerFacts(NamedTuple):
    """What a board's power sensors measure.

    compatible: names in the device tree's "compatible", a part number without "-" and SKU stands for all; rails: what
    each label stands for; totals: in order of preference, the first one whose rails are all there counts; feeds: rails
    that are part of a rail, by label; modes: power modes as shipped; sources: where the facts are from, by key.
    """

    compatible: Tuple[str, ...]
    rails: Dict[str, str]
    totals: Tuple[Total, ...]
    feeds: Dict[str, Tuple[str, ...]]
    modes: Tuple[PowerMode, ...]
    sources: Dict[str, str]


class Profile(NamedTuple):
    """What a device asks of a bundle.

    opset, ir_version: of the exported graphs; mask_dtype: "bool" or "float32", the type of the masks between the dance
    ops; functions: whether the graphs carry the dance ops as model-local functions; power: None where the device has no
    power sensors that are known; hardware: None where no figures are stated; channels_last: whether activations between
    the dance ops are [N, T, H, W, C], and the convolutions without a gate are dance ops too.
    """

    name: str
    description: str
    opset: int
    ir_version: int
    mask_dtype: str
    functions: bool
    power: Optional[PowerFacts] = None
    hardware: Optional[Hardware] = None
    channels_last: bool = False


def folder():
    """The folder that holds the profiles: in an installed package beside this file, in a checkout the repository's."""
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(here, "_profiles")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(here), "profiles")


def names(root=None):
    """Names of the profiles there are, sorted."""
    root = folder() if root is None else root
    try:
        found = os.listdir(root)
    except OSError:
        found = []
    return sorted(name[:-len(".json")] for name in found if name.endswith(".json"))


def fits(machine, compatible):
    """Whether one of a device tree's names (machine.machine_names()) is one of `compatible`, or a SKU of it."""
    return any(name == known or name.startswith(known + "-") for name in machine for known in compatible)


def load(name, root=None):
    """The Profile called `name`, "jetson-" may be left out; raises InputError that lists the names there are."""
    root = folder() if root is None else root
    known = names(root)
    if name not in known and "jetson-" + name in known:
        name = "jetson-" + name
    if name not in known:
        raise InputError("profile {}: there is none of this name; there are: {}".format(
            checked.shown(name), ", ".join(known) or "none (the installation is incomplete)"))
    path = os.path.join(root, name + ".json")
    try:
        with open(path, "rb") as stream:
            return _profile(checked.tree_from_json(stream.read(_MAX_BYTES + 1), _MAX_BYTES), name)
    except OSError as error:
        raise InputError("profile '{}' cannot be read: {}".format(path, error.strerror)) from error
    except CheckError as error:
        raise InputError("profile '{}': {}".format(path, error)) from error


def _profile(tree, name):
    power, hardware = (tree.pop(key, None) if type(tree) is dict else None for key in ("power", "hardware"))
    channels_last = tree.pop("channels_last", False) if type(tree) is dict else False
    checked.mapping(tree, "", _KEYS)
    profile = Profile(
        name=checked.choice(tree["name"], "name", (name,)),
        description=checked.text(tree["description"], "description"),
        opset=checked.integer(tree["opset"], "opset", 13, 100),
        ir_version=checked.integer(tree["ir_version"], "ir_version", 7, 100),
        mask_dtype=checked.choice(tree["mask_dtype"], "mask_dtype", ("bool", "float32")),
        functions=checked.boolean(tree["functions"], "functions"),
        power=None if power is None else _power(power),
        hardware=None if hardware is None else hardware_from_tree(hardware),
        channels_last=checked.boolean(channels_last, "channels_last"))
    _check_modes(profile)
    return profile


def _check_modes(profile):
    """Limits of a mode that the board does not have would never be applied, and nobody would notice."""
    if profile.hardware is None:
        return
    ids = {mode.id for mode in profile.power.modes} if profile.power is not None else set()
    for where, wanted in (("modes", set(profile.hardware.modes)), ("mode", {profile.hardware.mode} - {None})):
        if wanted - ids:
            raise CheckError("hardware.{}: there is no power mode {}".format(where, min(wanted - ids)))


def _power(tree):
    checked.mapping(tree, "power", _POWER_KEYS)
    rails = _texts(tree["rails"], "power.rails")
    compatible = checked.array(tree["compatible"], "power.compatible")
    for i, name in enumerate(compatible):
        if type(name) is not str or not _COMPATIBLE.match(name):
            raise checked.wrong("power.compatible[%d]" % i, name, "a name such as p3767-0005, p2180 or jetson-tk1")
    return PowerFacts(
        compatible=tuple(compatible), rails=rails,
        totals=tuple(_total(total, "power.totals[%d]" % i, rails)
                     for i, total in enumerate(checked.array(tree["totals"], "power.totals"))),
        feeds={checked.choice(label, "power.feeds", tuple(rails)): _labels(fed, "power.feeds." + label, rails)
               for label, fed in _object(tree["feeds"], "power.feeds").items()},
        modes=tuple(_mode(mode, "power.modes[%d]" % i)
                    for i, mode in enumerate(checked.array(tree["modes"], "power.modes"))),
        sources=_texts(tree["sources"], "power.sources"))


def _total(tree, where, rails):
    checked.mapping(tree, where, ("scope", "rails"))
    return Total(checked.choice(tree["scope"], where + ".scope", ("module", "board")),
                 _labels(tree["rails"], where + ".rails", rails))


def _mode(tree, where):
    checked.mapping(tree, where, ("id", "name", "watts", "where"))
    watts = tree["watts"]
    return PowerMode(checked.integer(tree["id"], where + ".id", 0, 1000), checked.text(tree["name"], where + ".name"),
                     None if watts is None else checked.number(watts, where + ".watts", 0.1, 10000.0),
                     checked.text(tree["where"], where + ".where"))


def _labels(tree, where, rails):
    labels = checked.array(tree, where, at_least=1)
    for i, label in enumerate(labels):
        checked.choice(label, "%s[%d]" % (where, i), tuple(rails))
    checked.unique(labels, where, "rail")
    return tuple(labels)


def _texts(tree, where):
    return {checked.text(key, where): checked.text(text, "%s.%s" % (where, key))
            for key, text in _object(tree, where).items()}


def _object(tree, where):
    if type(tree) is not dict:
        raise checked.wrong(where, tree, "an object")
    return tree
