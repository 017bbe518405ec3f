"""Recordings as files: one JSON object (keys: docs/dance-power.md), written whole or not at all, read with checks."""
import json

import numpy as np

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError
from dance_deploy.files import whole_file
from dance_deploy.power.recording import Recording, SourceFacts, Window
from dance_deploy.power.source import COUNTER, POWER
from dance_deploy.power.summary import summarize, window_records
from dance_deploy.power.trace import Trace

FORMAT, VERSION = "dance-power-recording", 1
_MAX_BYTES = 1 << 28
_KEYS = ("format", "version", "source", "commands", "started_at", "samples", "windows", "summary", "warnings")
_SOURCE_KEYS = ("name", "kind", "rails", "total_rails", "scope", "estimate", "interval_s")
_SAMPLE_KEYS = ("time_s", "dropped", "values")
_WINDOW_KEYS = ("label", "start_s", "end_s", "exit_code", "samples", "total", "rails", "before", "after")
_ENVIRONMENT_KEYS = ("power_mode", "governor", "cpu_mhz", "cpu_limit_mhz", "cpus_online", "gpu_mhz", "temps_c",
                     "throttled")
_MOST_S = 1e9
_MOST_VALUE = 1e12


def tree_from_recording(recording, margin=0.02):
    """The JSON object of a recording: plain Python values."""
    source, trace = recording.source, recording.trace
    return {
        "format": FORMAT, "version": VERSION,
        "source": dict(source._asdict(), rails=list(source.rails), total_rails=list(source.total_rails)),
        "commands": recording.commands,
        "started_at": recording.started_at,
        "samples": {"time_s": [round(t, 9) for t in trace.time_s.tolist()], "dropped": trace.dropped,
                    "values": {label: [None if v != v else round(v, 6) for v in trace.values[:, i].tolist()]
                               for i, label in enumerate(trace.rails)}},
        "windows": window_records(recording),
        "summary": summarize(recording, margin),
        "warnings": list(recording.warnings),
    }


def save(recording, path, margin=0.02):
    """Write the recording to `path`, whole or not at all. Raises OperationError where it cannot be written."""
    text = json.dumps(tree_from_recording(recording, margin), allow_nan=False) + "\n"
    with whole_file(path) as stream:
        stream.write(text)


def load(path):
    """The Recording in a file. Raises InputError that says what is wrong with it."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError("recording '{}' cannot be read: {}".format(path, error.strerror)) from error
    if not data.strip():
        raise InputError("recording '{}' is empty; expected a file that dance-power record wrote".format(path))
    try:
        return _recording(checked.tree_from_json(data, _MAX_BYTES))
    except CheckError as error:
        raise InputError("recording '{}': {}".format(path, error)) from error


def _recording(tree):
    if type(tree) is not dict or tree.get("format") != FORMAT:
        raise CheckError("is no recording; expected a file that dance-power record or compare wrote")
    checked.integer(tree.get("version"), "version", VERSION, VERSION)
    checked.mapping(tree, "", _KEYS)
    source = _source(tree["source"])
    commands = {checked.choice(label, "commands", ("run", "a", "b")): _texts(argv, "commands." + label, 1 << 16)
                for label, argv in _items(tree["commands"], "commands")}
    windows = tuple(_window(entry, "windows[%d]" % i)
                    for i, entry in enumerate(checked.array(tree["windows"], "windows")))
    warnings = tuple(checked.text(line, "warnings[%d]" % i, 4096)
                     for i, line in enumerate(checked.array(tree["warnings"], "warnings")))
    return Recording(source, commands, checked.text(tree["started_at"], "started_at"),
                     _trace(tree["samples"], source.kind), windows, warnings)


def _source(tree):
    checked.mapping(tree, "source", _SOURCE_KEYS)
    return SourceFacts(
        checked.text(tree["name"], "source.name"), checked.choice(tree["kind"], "source.kind", (POWER, COUNTER)),
        tuple(_texts(tree["rails"], "source.rails")), tuple(_texts(tree["total_rails"], "source.total_rails")),
        tree["scope"] and checked.text(tree["scope"], "source.scope"),
        checked.boolean(tree["estimate"], "source.estimate"),
        None if tree["interval_s"] is None else checked.number(tree["interval_s"], "source.interval_s", 0.0, _MOST_S))


def _trace(tree, kind):
    checked.mapping(tree, "samples", _SAMPLE_KEYS)
    time_s = _numbers(tree["time_s"], "samples.time_s", None, -_MOST_S, _MOST_S)
    if (np.diff(time_s) <= 0.0).any():
        raise CheckError("samples.time_s does not rise from each sample to the next")
    rails = _items(tree["values"], "samples.values")
    values = np.full((len(time_s), len(rails)), np.nan)
    for i, (label, column) in enumerate(rails):
        values[:, i] = _numbers(column, "samples.values." + label, len(time_s), -_MOST_VALUE, _MOST_VALUE)
    return Trace(kind, time_s, tuple(label for label, _ in rails), values,
                 checked.integer(tree["dropped"], "samples.dropped", 0, 1 << 40))


def _window(tree, where):
    checked.mapping(tree, where, _WINDOW_KEYS)
    start_s = checked.number(tree["start_s"], where + ".start_s", -_MOST_S, _MOST_S)
    code = tree["exit_code"]
    return Window(checked.choice(tree["label"], where + ".label", ("idle", "run", "a", "b")), start_s,
                  checked.number(tree["end_s"], where + ".end_s", start_s, _MOST_S),
                  None if code is None else checked.integer(code, where + ".exit_code", -1024, 1024),
                  _environment(tree["before"], where + ".before"), _environment(tree["after"], where + ".after"))


def _environment(tree, where):
    checked.mapping(tree, where, _ENVIRONMENT_KEYS)
    found = {}
    for key in _ENVIRONMENT_KEYS:
        value = tree[key]
        if key == "temps_c":
            value = {label: checked.number(degrees, where + ".temps_c", -300.0, 1e4)
                     for label, degrees in _items(value, where + ".temps_c")}
        elif value is not None and key in ("power_mode", "governor", "cpus_online"):
            value = checked.text(value, where + "." + key)
        elif value is not None:
            value = checked.number(value, where + "." + key, 0.0, _MOST_VALUE)
        found[key] = value
    return found


def _items(value, where):
    """(label, value) of an object with printable keys."""
    if type(value) is not dict:
        raise checked.wrong(where, value, "an object")
    return [(checked.text(label, where), entry) for label, entry in value.items()]


def _texts(value, where, longest=512):
    if type(value) is not list:
        raise checked.wrong(where, value, "a list of texts")
    return [entry if longest > 512 and type(entry) is str else checked.text(entry, where, longest) for entry in value]


def _numbers(value, where, length, low, high):
    """float64 [length]; null (where a length is given) is NaN. Checked as a whole: there may be millions."""
    if type(value) is not list or length not in (None, len(value)):
        raise checked.wrong(where, value, "a list of numbers, one a sample")
    if not set(map(type, value)) <= {int, float} | ({type(None)} if length is not None else set()):
        raise CheckError("%s holds something that is no number" % where)
    found = np.array([float("nan") if v is None else v for v in value], dtype=np.float64)
    outside = (found < low) | (found > high) if len(found) else found
    if len(found) and outside.any():
        raise CheckError("{} holds {:g}, expected {:g} to {:g}".format(where, found[outside][0], low, high))
    return found
