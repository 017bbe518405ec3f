"""engines/ of a bundle: for each target one record, and the engines that it names. Format: docs/bundle.md.

A record names its engines by their SHA-256, and is written last: engines without a record are never read, and a record
whose engines are damaged or missing is refused, without the bundle's own files being in doubt.
"""
import hashlib
import json
import os
import re
from typing import Dict, NamedTuple, Tuple

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import whole_file
from dance_deploy.manifest import ENGINES_FOLDER, FileEntry
from dance_deploy.runtime.trt.api import PRECISIONS, RTX, TENSORRT
from dance_deploy.runtime.trt.target import Target

FORMAT, VERSION = "dance-engines", 2  # 2: dense_logits
GRAPHS = ("controller", "body", "dense")
GOLDEN = "golden"
SUFFIX = ".json"
_MAX_RECORD_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 40
_LARGEST = 3.5e38  # beyond float32's largest
_KEYS = ("format", "version", "target", "sources", "precision", "pinned", "dense_gates", "timings", "dense_logits",
         "files")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9][A-Za-z0-9._-]{0,200}\Z")


class Timing(NamedTuple):
    """Milliseconds of one gate with its convolutions, gated at the golden clip's masks, and of those dense."""

    gated_ms: float
    dense_ms: float


class Record(NamedTuple):
    """One target's engines.

    sources: {graph file of the bundle: its SHA-256} that they were built from; precision: one of PRECISIONS; pinned:
    {graph: names of layers kept in float32}; dense_gates: names of gates left out because they do not pay here;
    timings: {gate: Timing}, empty where nothing was measured; dense_logits: what the dense engine gave for the golden
    clip when it was built, because the bundle's golden file is of the gated network; files: {"controller", "body",
    "dense": entry}, and "golden" where own_golden: what the golden clip gives, in the format of golden.npz.
    """

    target: Target
    sources: Dict[str, str]
    precision: str
    pinned: Dict[str, Tuple[str, ...]]
    dense_gates: Tuple[str, ...]
    timings: Dict[str, Timing]
    dense_logits: Tuple[float, ...]
    files: Dict[str, FileEntry]

    @property
    def own_golden(self):
        """Whether the engines give other results for the golden clip than the bundle's golden.npz says."""
        return bool(self.dense_gates) or self.precision != "fp32"

    def file_name(self, what):
        """Name of a file of this record inside engines/."""
        return "{}.{}.{}.{}".format(self.target.key, what, self.files[what].sha256[:10],
                                    "npz" if what == GOLDEN else "engine")


def sources_of(manifest):
    """{graph file: SHA-256} of what engines are built from."""
    return {name: manifest.files[name].sha256 for name in (
        "controller.onnx", "body.onnx", "body_masks.onnxpart", "dense.onnx", "golden.npz")}


def write_record(bundle_path, record, contents):
    """Write engines and record, or nothing that anyone would read. contents: {what: bytes} of record.files.

    Raises OperationError where the folder cannot be written or the disk is full.
    """
    folder = os.path.join(bundle_path, ENGINES_FOLDER)
    if os.path.islink(folder):
        raise InputError("'{}' is a symbolic link, and a bundle holds plain files only; remove it".format(folder))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OperationError("{}: cannot be made ({})".format(folder, error.strerror)) from error
    for what, data in contents.items():
        with whole_file(os.path.join(folder, record.file_name(what)), "wb") as stream:
            stream.write(data)
    with whole_file(os.path.join(folder, record.target.key + SUFFIX)) as stream:
        stream.write(json.dumps(_tree(record), indent=1, sort_keys=True, allow_nan=False) + "\n")
    _remove_old(folder, record)


def entry_of(data):
    """The FileEntry of bytes."""
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def read_record(bundle_path, key):
    """The Record called `key`, None where there is none; raises InputError where it is damaged."""
    path = os.path.join(bundle_path, ENGINES_FOLDER, key + SUFFIX)
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as stream:
            return _record(checked.tree_from_json(stream.read(_MAX_RECORD_BYTES + 1), _MAX_RECORD_BYTES))
    except OSError as error:
        raise InputError("'{}' cannot be read: {}".format(path, error.strerror)) from error
    except CheckError as error:
        raise InputError("'{}': {}; build the engines anew: dance-export {} --engine".format(
            path, error, bundle_path)) from error


def all_records(bundle_path):
    """(Records that can be read, sorted by key; names in engines/ that belong to none)."""
    folder = os.path.join(bundle_path, ENGINES_FOLDER)
    if os.path.islink(folder) or not os.path.isdir(folder):
        return [], []
    names = set(os.listdir(folder))
    records = []
    for name in sorted(names):
        if name.endswith(SUFFIX):
            try:
                record = read_record(bundle_path, name[:-len(SUFFIX)])
            except InputError:
                continue
            if record is not None and record.target.key + SUFFIX == name:
                records.append(record)
    known = {record.target.key + SUFFIX for record in records}
    known |= {record.file_name(what) for record in records for what in record.files}
    known |= {record.target.key + ".timing" for record in records}
    return records, sorted(names - known)


def read_file(bundle_path, record, what):
    """The verified bytes of one file of a record; raises InputError with the mending command."""
    path = os.path.join(bundle_path, ENGINES_FOLDER, record.file_name(what))
    again = "build it anew: dance-export {} --engine".format(bundle_path)
    if os.path.islink(path) or not os.path.isfile(path):
        raise InputError("'{}' is missing; {}".format(path, again))
    try:
        with open(path, "rb") as stream:
            data = stream.read(record.files[what].size + 1)
    except OSError as error:
        raise InputError("'{}' cannot be read: {}".format(path, error.strerror)) from error
    if entry_of(data) != record.files[what]:
        raise InputError("'{}' is damaged; {}".format(path, again))
    return data


def read_timing_cache(bundle_path, target):
    """Bytes of the timing cache kept for a target, b"" where there is none. TensorRT itself checks what is in it."""
    path = os.path.join(bundle_path, ENGINES_FOLDER, target.key + ".timing")
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def write_timing_cache(bundle_path, target, data):
    """Keep a timing cache beside the engines."""
    folder = os.path.join(bundle_path, ENGINES_FOLDER)
    os.makedirs(folder, exist_ok=True)
    with whole_file(os.path.join(folder, target.key + ".timing"), "wb") as stream:
        stream.write(data)


def _remove_old(folder, record):
    """Engines of the same key that the new record does not name."""
    kept = {record.file_name(what) for what in record.files}
    for name in os.listdir(folder):
        if name.startswith(record.target.key + ".") and name.endswith((".engine", ".npz")) and name not in kept:
            os.unlink(os.path.join(folder, name))


def _tree(record):
    tree = dict(record._asdict(), format=FORMAT, version=VERSION)
    tree["target"] = dict(record.target._asdict())
    tree["timings"] = {name: dict(timing._asdict()) for name, timing in record.timings.items()}
    tree["files"] = {name: dict(entry._asdict()) for name, entry in record.files.items()}
    return tree


def _record(tree):
    if type(tree) is not dict or tree.get("format") != FORMAT:
        raise CheckError('has no "format": "{}"'.format(FORMAT))
    version = checked.integer(tree.get("version"), "version", 0, 1 << 30)
    if version != VERSION:
        raise CheckError("version is {}, this dance_deploy reads version {}".format(version, VERSION))
    checked.mapping(tree, "", _KEYS)
    record = Record(
        target=_target(tree["target"]),
        sources={name: _digest(value, "sources") for name, value in _object(tree["sources"], "sources").items()},
        precision=checked.choice(tree["precision"], "precision", PRECISIONS),
        pinned={checked.choice(graph, "pinned", GRAPHS): _texts(names, "pinned." + graph)
                for graph, names in _object(tree["pinned"], "pinned").items()},
        dense_gates=_texts(tree["dense_gates"], "dense_gates"),
        timings={checked.text(name, "timings"): _timing(value, "timings['{}']".format(name))
                 for name, value in _object(tree["timings"], "timings").items()},
        dense_logits=tuple(checked.number(value, "dense_logits[%d]" % i, -_LARGEST, _LARGEST)
                           for i, value in enumerate(checked.array(tree["dense_logits"], "dense_logits"))),
        files={checked.choice(what, "files", GRAPHS + (GOLDEN,)): _entry(value, "files." + what)
               for what, value in _object(tree["files"], "files").items()})
    missing = [what for what in GRAPHS + ((GOLDEN,) if record.own_golden else ()) if what not in record.files]
    if missing:
        raise CheckError("files: '{}' is missing".format(missing[0]))
    return record


def _target(tree):
    checked.mapping(tree, "target", Target._fields)
    plugin = tree["plugin"]
    target = Target(
        device=checked.text(tree["device"], "target.device"),
        compute_capability=checked.integers(tree["compute_capability"], "target.compute_capability", 2, 0, 99),
        product=checked.choice(tree["product"], "target.product", (TENSORRT, RTX)),
        version=checked.text(tree["version"], "target.version", 64),
        plugin=None if plugin is None else _digest(plugin, "target.plugin"))
    if not _NAME.match(target.key):
        raise CheckError("target: makes no file name")
    return target


def _timing(tree, where):
    checked.mapping(tree, where, Timing._fields)
    return Timing(*(checked.number(tree[key], where + "." + key, 0.0, 1e9) for key in Timing._fields))


def _entry(tree, where):
    checked.mapping(tree, where, FileEntry._fields)
    return FileEntry(_digest(tree["sha256"], where), checked.integer(tree["size"], where + ".size", 1, _MAX_FILE_BYTES))


def _digest(value, where):
    digest = checked.text(value, where)
    if not _HEX.match(digest):
        raise checked.wrong(where, digest, "64 lower-case hexadecimal digits")
    return digest


def _texts(value, where):
    return tuple(checked.text(item, where) for item in checked.array(value, where))


def _object(value, where):
    if type(value) is not dict or len(value) > 4096:
        raise checked.wrong(where, value, "an object")
    return value
