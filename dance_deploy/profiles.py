"""Device profiles: one JSON file a device, the one place for what is known about it.

A profile says how a bundle for the device is written (opset, IR version, type of the masks, functions or not) and which
backend runs it there. Format: docs/bundle.md.
"""
import os
from typing import NamedTuple

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError

DEFAULT = "cpu"
_KEYS = ("name", "description", "opset", "ir_version", "mask_dtype", "functions", "backend")
_MAX_BYTES = 1 << 20


class Profile(NamedTuple):
    """What a device asks of a bundle.

    opset, ir_version: of the exported graphs; mask_dtype: "bool" or "float32", the type of the masks between the dance
    ops; functions: whether the graphs carry the dance ops as model-local functions; backend: what runs them by default.
    """

    name: str
    description: str
    opset: int
    ir_version: int
    mask_dtype: str
    functions: bool
    backend: str


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


def load(name, root=None):
    """The Profile called `name`; raises InputError that lists the names there are."""
    root = folder() if root is None else root
    if name not in names(root):
        raise InputError("profile {}: there is none of this name; there are: {}".format(
            checked.shown(name), ", ".join(names(root)) or "none (the installation is incomplete)"))
    path = os.path.join(root, name + ".json")
    try:
        with open(path, "rb") as stream:
            return _profile(checked.tree_from_json(stream.read(_MAX_BYTES + 1), _MAX_BYTES), name)
    except OSError as error:
        raise InputError("profile '{}' cannot be read: {}".format(path, error.strerror)) from error
    except CheckError as error:
        raise InputError("profile '{}': {}".format(path, error)) from error


def _profile(tree, name):
    checked.mapping(tree, "", _KEYS)
    return Profile(
        name=checked.choice(tree["name"], "name", (name,)),
        description=checked.text(tree["description"], "description"),
        opset=checked.integer(tree["opset"], "opset", 13, 100),
        ir_version=checked.integer(tree["ir_version"], "ir_version", 7, 100),
        mask_dtype=checked.choice(tree["mask_dtype"], "mask_dtype", ("bool", "float32")),
        functions=checked.boolean(tree["functions"], "functions"),
        backend=checked.choice(tree["backend"], "backend", ("onnxruntime", "reference", "tensorrt", "qnn")))
