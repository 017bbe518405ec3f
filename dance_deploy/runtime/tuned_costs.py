"""Costs by which the CPU kernels choose between direct and Winograd, as `dance-bench tune` found them on this machine.

One file a processor, variant of the kernels and precision, in the user's cache folder. The number of threads is no part
of the key, since results must not depend on it. Without a file the library's built-in costs hold.
"""
import ctypes
import errno
import json
import logging
import os
import re
from typing import Dict, NamedTuple, Optional

from dance_deploy import __version__, checked
from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import is_special, try_to_write, whole_file
from dance_deploy.machine import processor_name
from dance_deploy.runtime.kernels import variant_used

_LOG = logging.getLogger(__name__)

ENTRY = "dance.costs"          # of a session
ENVIRONMENT = "DANCE_COSTS"    # BUILT_IN, or a file in place of the one in the cache folder
BUILT_IN = "built-in"
AGAIN = "dance-bench tune"

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_FORMAT = 1
_MAX_BYTES = 1 << 16
_LONGEST_ERROR = 300
_NAME = re.compile(r"[a-z_]{1,40}\Z")
_KEYS = ("format", "processor", "kernels", "precision", "library_version", "cost_model", "date", "threads", "regret",
         "costs")


class Target(NamedTuple):
    """What costs are of. kernels: an instruction set or a variant of bfloat16; precision: "fp32" or "bf16"."""

    processor: str
    kernels: str
    precision: str


class TunedCosts(NamedTuple):
    """What a file holds. costs: by the library's names; date: UTC, as text; threads: of the measurement; regret: mean
    of the chosen variant's time over the fastest one's, where nothing was fitted, {"built_in": ..., "tuned": ...}."""

    target: Target
    library_version: str
    cost_model: int
    date: str
    threads: int
    regret: Dict[str, float]
    costs: Dict[str, float]

    def entry(self):
        """The session config entry's text; the same file gives the same text."""
        return " ".join("{}={!r}".format(name, self.costs[name]) for name in sorted(self.costs))


class Found(NamedTuple):
    """What is there for this machine: path, None where no file is looked for; tuned, None where it does not serve;
    problem: why a file that is there does not serve, in words, else None."""

    path: Optional[str]
    tuned: Optional[TunedCosts]
    problem: Optional[str]


class Cost(ctypes.Structure):
    """struct DanceCost of kernels/cpu/c_api.h."""

    _fields_ = [("name", ctypes.c_char_p), ("built_in", ctypes.c_double), ("low", ctypes.c_double),
                ("high", ctypes.c_double)]


def target_of(library, precision, root="/"):
    """Target of sessions of this precision here, by the op library at the path `library`; None where it has none."""
    kernels = variant_used(library, precision)
    return None if kernels is None else Target(processor_name(root), kernels, precision)


def cost_model(library):
    """Which costs the op library at the path `library` understands; None where it is older than that."""
    return getattr(_loaded(library), "dance_cost_model", lambda: None)()


def built_in_costs(library):
    """{name: value} of the costs that are built into the op library at the path `library`; {} where it is too old."""
    loaded, found = _loaded(library), {}
    for i in range(getattr(loaded, "dance_cost_count", lambda: 0)()):
        cost = Cost()
        loaded.dance_cost(i, ctypes.byref(cost))
        found[cost.name.decode()] = cost.built_in
    return found


def path_of(target, environment=None):
    """Where the costs of a Target lie; None where the built-in ones are asked for or the user has no folder.

    environment: as os.environ. DANCE_COSTS names a file, or says "built-in"; else the file is in the cache folder.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(ENVIRONMENT, "")
    if named:
        return None if named == BUILT_IN else named
    cache = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # the specification: relative ones are to be ignored
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(cache):
        return None
    words = re.sub(r"[^a-z0-9]+", "-", target.processor.lower()).strip("-")[:100]
    return os.path.join(cache, "dance_deploy", "costs-{}-{}-{}.json".format(words, target.kernels, target.precision))


def find(library, precision, environment=None, root="/"):
    """What there is for sessions of this precision, by the op library at the path `library`: a Found."""
    target = target_of(library, precision, root)
    path = None if target is None else path_of(target, environment)
    if path is None:
        return Found(None, None, None)
    try:
        tuned = _read(path)
    except OSError as error:
        named = bool((os.environ if environment is None else environment).get(ENVIRONMENT))
        absent = error.errno in _ABSENT and not named
        return Found(path, None, None if absent else "cannot be read ({})".format(error.strerror))
    except InputError as error:
        return Found(path, None, str(error))
    problem = _misfit(tuned, target, library)
    return Found(path, None if problem else tuned, problem)


def for_session(library, precision):
    """TunedCosts for a session, or None for the built-in ones; a file that does not serve is worth one warning."""
    found = find(library, precision)
    if found.problem is not None:
        _LOG.warning("'%s' %s; the built-in costs of the kernels are used instead; make it anew with: %s", found.path,
                     found.problem, AGAIN)
    return found.tuned


def target_at(path):
    """The Target that the costs in the file at `path` are of; None where there is no file of costs."""
    try:
        return _read(path).target
    except (OSError, InputError):
        return None


def from_bytes(data):
    """TunedCosts out of a file's bytes; raises InputError, whose text goes on after the file's name."""
    try:
        tree = checked.mapping(checked.tree_from_json(data, _MAX_BYTES), "", _KEYS)
        checked.integer(tree["format"], "format", _FORMAT, _FORMAT)
        costs = tree["costs"]
        if type(costs) is not dict or not costs or not all(_NAME.match(name) for name in costs):
            raise checked.wrong("costs", costs, "numbers by name")
        regret = checked.mapping(tree["regret"], "regret", ("built_in", "tuned"))
        return TunedCosts(
            Target(*(checked.text(tree[key], key) for key in ("processor", "kernels", "precision"))),
            checked.text(tree["library_version"], "library_version"),
            checked.integer(tree["cost_model"], "cost_model", 1, 1 << 31), checked.text(tree["date"], "date"),
            checked.integer(tree["threads"], "threads", 1, 1 << 20),
            {key: checked.number(regret[key], "regret." + key, 0, 1e9) for key in regret},
            {name: checked.number(costs[name], "costs." + checked.shown(name), -1e300, 1e300) for name in costs})
    except checked.CheckError as error:
        raise InputError("is damaged or not ours: {}".format(error)) from error


def write(tuned, path):
    """The file, whole or not at all; its folder is made. Raises OperationError."""
    tree = dict(tuned._asdict(), format=_FORMAT, **tuned.target._asdict())
    check_place(path)
    with whole_file(path) as stream:
        stream.write(json.dumps({key: tree[key] for key in _KEYS}, indent=1) + "\n")


def check_place(path, environment=None):
    """Make the folder of `path` and try to write there: before anything is measured for it.

    Raises OperationError where that cannot be, InputError where DANCE_COSTS names a file that is none of costs.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        try_to_write(path)
    except OSError as error:
        raise OperationError("{}: cannot be written ({}); name another file by {}=FILE".format(
            path, error.strerror, ENVIRONMENT)) from error
    named = (os.environ if environment is None else environment).get(ENVIRONMENT) == path
    # in the cache folder the name is ours, and what is damaged there is to be replaced
    if is_special(path) or (named and os.path.exists(path) and target_at(path) is None):
        raise InputError("{}: is there already and holds no costs of ours, so it is not replaced; remove it, or name "
                         "another file by {}=FILE".format(path, ENVIRONMENT))


def _read(path):
    """TunedCosts out of a file; raises OSError, or InputError, whose text goes on after the file's name."""
    if is_special(path):
        raise InputError("is not a regular file (a pipe, socket or device)")
    with open(path, "rb") as stream:
        return from_bytes(stream.read(_MAX_BYTES + 1))


def _misfit(tuned, target, library):
    """Why costs do not serve for sessions of a Target, in words; None where they do."""
    for what, theirs, ours in zip(("processor", "instruction set", "precision"), tuned.target, target):
        if theirs != ours:
            return "is of another {}: {}, here it is {}".format(what, checked.shown(theirs), checked.shown(ours))
    if (tuned.library_version, tuned.cost_model) != (__version__, cost_model(library)):
        return "is of another version of the library: {} (costs {}), here it is {} (costs {})".format(
            tuned.library_version, tuned.cost_model, __version__, cost_model(library))
    wrong = ctypes.create_string_buffer(_LONGEST_ERROR)
    # what may be in the text is decided in one place, the library
    if _loaded(library).dance_check_costs(tuned.entry().encode(), wrong, ctypes.c_int64(_LONGEST_ERROR)):
        return "is damaged or not ours: costs: {}".format(wrong.value.decode("utf-8", "replace"))
    return None


def _loaded(library):
    try:
        return ctypes.CDLL(library)
    except OSError:  # of another machine
        return None
