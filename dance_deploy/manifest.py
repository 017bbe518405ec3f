"""A bundle's manifest.json: what it says, and how it is read without trusting it.

Every key is known, every value has a checked type and range; the format is written down in docs/bundle.md.
"""
import re
from typing import Dict, NamedTuple, Tuple, Union

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError
from dance_deploy.geometry import MAX_EXTENT, ClipSpec, Conv3dGeometry

FORMAT = "dance-bundle"
VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
CONTROLLER_KERNELS = "controller_kernels.onnx"  # the controller with its convolutions as dance ops
OPTIONAL_FILES = (CONTROLLER_KERNELS,)
REQUIRED_FILES = ("controller.onnx", "body.onnx", "body_masks.onnxpart", "dense.onnx", "golden.npz")
ENGINES_FOLDER = "engines"

_KEYS = ("format", "version", "model", "clip", "budget", "gates", "ungated", "controller", "profile", "tools", "files")
_CONV_KEYS = ("name", "out_channels", "kernel", "strides", "pads", "dilations", "group")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# far above any video network, low enough that counting costs never asks for absurd amounts of memory
_MAX_CHANNELS, _MAX_KERNEL, _MAX_NUMBERS = 65536, 255, 1 << 28
_MAX_COUNT = 1 << 53


class Model(NamedTuple):
    """labels: class names in the order of the logits; trained: False where the weights are random."""

    name: str
    labels: Tuple[str, ...]
    trained: bool


class Budget(NamedTuple):
    """default: share of MACs aimed at where the user names none; reached: (asked, mean share measured) pairs."""

    default: float
    reached: Tuple[Tuple[float, float], ...]


class Gate(NamedTuple):
    """One gate: its tensor's (C, T, H, W) and the convolutions that read it under its masks."""

    name: str
    input_size: Tuple[int, int, int, int]
    convs: Tuple[Conv3dGeometry, ...]


class Ungated(NamedTuple):
    """What runs at full cost for every clip; linear_*: fully connected layers."""

    convs: Tuple[Conv3dGeometry, ...]
    linear_macs: int
    linear_bytes: int


class FixedCost(NamedTuple):
    """macs, bytes of the controller for one clip."""

    macs: int
    bytes: int


class FileEntry(NamedTuple):
    """sha256: hexadecimal digest; size: bytes."""

    sha256: str
    size: int


class Manifest(NamedTuple):
    """All that manifest.json says. gates stand in the order of the rows of `tau` and `kept`."""

    model: Model
    clip: ClipSpec
    budget: Budget
    gates: Tuple[Gate, ...]
    ungated: Ungated
    controller: FixedCost
    profile: str
    tools: Dict[str, Union[str, int]]
    files: Dict[str, FileEntry]


def manifest_from_bytes(data):
    """The checked Manifest in `data` (the bytes of manifest.json); raises CheckError."""
    return manifest_from_tree(checked.tree_from_json(data, MAX_MANIFEST_BYTES))


def manifest_from_tree(tree):
    """The checked Manifest in a tree of dicts, lists, strings and numbers; raises CheckError."""
    if type(tree) is not dict or tree.get("format") != FORMAT:
        raise CheckError('has no "format": "%s", so this is not a bundle' % FORMAT)
    version = checked.integer(tree.get("version"), "version", 0, _MAX_COUNT)
    if version != VERSION:
        raise CheckError("version is %d, this dance_deploy reads version %d" % (version, VERSION))
    checked.mapping(tree, "", _KEYS)
    gates = tuple(_gate(value, "gates[%d]" % i) for i, value in enumerate(checked.array(tree["gates"], "gates", 1)))
    checked.unique([gate.name for gate in gates], "gates", "gate")
    return Manifest(
        model=_model(tree["model"]),
        clip=_clip(tree["clip"]),
        budget=_budget(tree["budget"]),
        gates=gates,
        ungated=_ungated(tree["ungated"]),
        controller=_controller(tree["controller"]),
        profile=checked.text(tree["profile"], "profile", 64),
        tools=_tools(tree["tools"]),
        files=_files(tree["files"]),
    )


def is_bundle_file_name(name):
    """Whether `name` may stand in `files`: one of ours or engines/NAME. No such name leaves the folder."""
    if name in REQUIRED_FILES + OPTIONAL_FILES:
        return True
    folder, _, rest = name.partition("/")
    return folder == ENGINES_FOLDER and _FILE_NAME.match(rest) is not None


def _model(value):
    checked.mapping(value, "model", ("name", "labels", "trained"))
    labels = [checked.text(label, "model.labels[%d]" % i) for i, label in enumerate(
        checked.array(value["labels"], "model.labels", 1))]
    checked.unique(labels, "model.labels", "label")
    return Model(checked.text(value["name"], "model.name"), tuple(labels),
                 checked.boolean(value["trained"], "model.trained"))


def _clip(value):
    checked.mapping(value, "clip", ("frames", "stride", "resize", "size", "mean", "std", "layout"))
    checked.choice(value["layout"], "clip.layout", ("NCTHW",))
    clip = ClipSpec(
        frames=checked.integer(value["frames"], "clip.frames", 1, MAX_EXTENT),
        stride=checked.integer(value["stride"], "clip.stride", 1, MAX_EXTENT),
        resize=checked.integers(value["resize"], "clip.resize", 2, 1, MAX_EXTENT),
        size=checked.integers(value["size"], "clip.size", 2, 1, MAX_EXTENT),
        mean=checked.numbers(value["mean"], "clip.mean", 3, -1e6, 1e6),
        std=checked.numbers(value["std"], "clip.std", 3, 1e-6, 1e6))
    _limited(clip.shape, "clip")
    return _checked_at("clip", clip.check)


def _budget(value):
    checked.mapping(value, "budget", ("default", "reached"))
    default = checked.number(value["default"], "budget.default", 0.0, 1.0)
    if default == 0.0:
        raise checked.wrong("budget.default", default, "more than 0")
    reached = tuple(checked.numbers(pair, "budget.reached[%d]" % i, 2, 0.0, 2.0) for i, pair in enumerate(
        checked.array(value["reached"], "budget.reached")))
    return Budget(default, reached)


def _gate(value, where):
    checked.mapping(value, where, ("name", "input", "convs"))
    size = checked.integers(value["input"], where + ".input", 4, 1, _MAX_CHANNELS)
    convs = [_conv(conv, "%s.convs[%d]" % (where, i), size) for i, conv in enumerate(
        checked.array(value["convs"], where + ".convs", 1))]
    return Gate(checked.text(value["name"], where + ".name"), size, tuple(convs))


def _ungated(value):
    checked.mapping(value, "ungated", ("convs", "linear_macs", "linear_bytes"))
    convs = []
    for i, conv in enumerate(checked.array(value["convs"], "ungated.convs")):
        where = "ungated.convs[%d]" % i
        checked.mapping(conv, where, _CONV_KEYS + ("in_channels", "in_size"))
        channels = checked.integer(conv["in_channels"], where + ".in_channels", 1, _MAX_CHANNELS)
        size = checked.integers(conv["in_size"], where + ".in_size", 3, 1, MAX_EXTENT)
        convs.append(_conv({key: conv[key] for key in _CONV_KEYS}, where, (channels,) + size))
    return Ungated(tuple(convs), checked.integer(value["linear_macs"], "ungated.linear_macs", 0, _MAX_COUNT),
                   checked.integer(value["linear_bytes"], "ungated.linear_bytes", 0, _MAX_COUNT))


def _conv(value, where, input_size):
    """input_size: (C, T, H, W) of what the convolution reads."""
    checked.mapping(value, where, _CONV_KEYS)
    _limited(input_size, where + " (its input)")
    if max(input_size[1:]) > MAX_EXTENT:
        raise checked.wrong(where + " (its input)", input_size, "at most %d positions along an axis" % MAX_EXTENT)
    conv = Conv3dGeometry(
        name=checked.text(value["name"], where + ".name"),
        in_channels=input_size[0],
        in_size=tuple(input_size[1:]),
        out_channels=checked.integer(value["out_channels"], where + ".out_channels", 1, _MAX_CHANNELS),
        kernel=checked.integers(value["kernel"], where + ".kernel", 3, 1, _MAX_KERNEL),
        strides=checked.integers(value["strides"], where + ".strides", 3, 1, MAX_EXTENT),
        pads=checked.integers(value["pads"], where + ".pads", 6, 0, MAX_EXTENT),
        dilations=checked.integers(value["dilations"], where + ".dilations", 3, 1, MAX_EXTENT),
        group=checked.integer(value["group"], where + ".group", 1, _MAX_CHANNELS))
    if conv.in_channels % conv.group or conv.out_channels % conv.group:
        raise checked.wrong(where + ".group", conv.group, "a divisor of the %d input and %d output channels" % (
            conv.in_channels, conv.out_channels))
    out_size = _checked_at(where, lambda: conv.out_size)
    _limited((conv.out_channels,) + out_size, where + " (its output)")
    return conv


def _controller(value):
    checked.mapping(value, "controller", ("macs", "bytes"))
    return FixedCost(checked.integer(value["macs"], "controller.macs", 0, _MAX_COUNT),
                     checked.integer(value["bytes"], "controller.bytes", 0, _MAX_COUNT))


def _tools(value):
    if type(value) is not dict or len(value) > 64:
        raise checked.wrong("tools", value, "an object of at most 64 tools and their versions")
    tools = {}
    for name in sorted(value):
        where = "tools.%s" % checked.text(name, "tools: a name", 64)
        number = name in ("opset", "ir_version")
        tools[name] = checked.integer(value[name], where, 1, 10000) if number else checked.text(value[name], where)
    for name in ("opset", "ir_version"):
        if name not in tools:
            raise CheckError("tools: key '%s' is missing" % name)
    return tools


def _files(value):
    if type(value) is not dict or len(value) > 256:
        raise checked.wrong("files", value, "an object of at most 256 files")
    for name in REQUIRED_FILES:
        if name not in value:
            raise CheckError("files: '%s' is missing" % name)
    files = {}
    for name in sorted(value):
        if not is_bundle_file_name(name):
            raise CheckError("files names %s, expected only %s, or %s/NAME" % (
                checked.shown(name), ", ".join(REQUIRED_FILES + OPTIONAL_FILES), ENGINES_FOLDER))
        where = "files['%s']" % name
        checked.mapping(value[name], where, ("sha256", "size"))
        digest = checked.text(value[name]["sha256"], where + ".sha256")
        if not _SHA256.match(digest):
            raise checked.wrong(where + ".sha256", digest, "64 lower-case hexadecimal digits")
        files[name] = FileEntry(digest, checked.integer(value[name]["size"], where + ".size", 1, _MAX_COUNT))
    return files


def _limited(shape, where):
    count = 1
    for extent in shape:
        count *= extent
    if count > _MAX_NUMBERS:
        raise checked.wrong(where, list(shape), "at most %d numbers in one tensor" % _MAX_NUMBERS)


def _checked_at(where, check):
    """check(), its InputError given the place in the manifest."""
    try:
        return check()
    except InputError as error:
        raise CheckError("%s: %s" % (where, error)) from error
