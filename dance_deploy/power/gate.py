"""Limits on a Recording's figures, read from a JSON file (keys: docs/hardware-ci.md), and the verdict on each.

A limit is judged by the 95 % interval, not by the estimate: PASS where all of it keeps the limit, FAIL where all of it
breaks it, INCONCLUSIVE where it holds the limit, or where there is none. Only the peak has no interval: it is the
highest sample, and one above the limit breaks it.
"""
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

from dance_deploy import checked
from dance_deploy.checked import CheckError
from dance_deploy.errors import InputError
from dance_deploy.power.intervals import LEAST_VALUES, Interval, mean_interval
from dance_deploy.power.recording import A, B, IDLE, RUN
from dance_deploy.power.summary import summarize, window_records

FORMAT, VERSION = "dance-energy-limits", 1
PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
RUNS_ENDED_WELL = "every run ended with exit code 0"
_MAX_BYTES = 1 << 20
_AT_MOST, _AT_LEAST = "at_most", "at_least"
PEAK = "peak_power_w"
# metric -> (unit, which limit it takes, may be given per clip, may be of one rail)
_METRICS = {"energy_j": ("J", _AT_MOST, True, True), "above_idle_j": ("J", _AT_MOST, True, False),
            "average_power_w": ("W", _AT_MOST, False, True), PEAK: ("W", _AT_MOST, False, True),
            "duration_s": ("s", _AT_MOST, True, False), "saving": ("", _AT_LEAST, False, False),
            "above_idle_saving": ("", _AT_LEAST, False, False)}
_SAVINGS = {"saving": "ratio", "above_idle_saving": "above_idle_ratio"}


class Limit(NamedTuple):
    """labels: the commands it needs, of RUN, A, B; bound: "at_most" or "at_least"; value: in `unit`; divide_by: clips
    that one run handles, the metric is per clip; rail: its label, None for the total."""

    name: str
    metric: str
    labels: Tuple[str, ...]
    bound: str
    value: float
    unit: str
    divide_by: int
    rail: Optional[str] = None


class Limits(NamedTuple):
    """expect: {"power_mode": text, "source": text}, both optional; a recording that differs is INCONCLUSIVE."""

    limits: Tuple[Limit, ...]
    expect: Dict[str, str]


class Check(NamedTuple):
    """The verdict on one limit in one recording. estimate, low, high: in `unit`, None where it is not known."""

    recording: str
    name: str
    metric: Optional[str]
    verdict: str
    bound: Optional[str]
    limit: Optional[float]
    unit: str
    estimate: Optional[float]
    low: Optional[float]
    high: Optional[float]
    reason: str


def load_limits(path):
    """The Limits in a file. Raises InputError, one line, that says what is wrong with it."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError("limits '{}' cannot be read: {}".format(path, error.strerror)) from error
    try:
        return _limits(checked.tree_from_json(data, _MAX_BYTES))
    except CheckError as error:
        raise InputError("limits '{}': {}; see docs/hardware-ci.md".format(path, error)) from error


def check_labels(limits, labels):
    """Raise InputError for a limit that asks for a command which none of `labels` is: it would never be judged."""
    for limit in limits.limits:
        missing = [label for label in limit.labels if label not in labels]
        if missing:
            raise InputError("limit '{}' is about command '{}', and only {} measured; 'run' comes from record, 'a' and "
                             "'b' from compare".format(limit.name, missing[0], " and ".join(
                                 "'%s'" % label for label in sorted(labels)) + " was" if labels else "none was"))


def check_rails(limits, rails):
    """Raise InputError for a limit on a rail that is not among `rails`: it would never be judged."""
    for limit in limits.limits:
        if limit.rail is not None and limit.rail not in rails:
            raise InputError("limit '{}' is about rail '{}', and the rails are {}".format(
                limit.name, limit.rail, ", ".join(rails) or "none"))


def judge(named, limits):
    """The Checks of all limits in all recordings. named: [(name, Recording)].

    Raises InputError for a limit that fits no recording and for a recording that no limit fits: a gate that judged
    nothing must not pass. A recording whose command failed has a failed check and may lack commands.
    """
    if not any(_failed(recording) for _, recording in named):
        check_labels(limits, {label for _, recording in named for label in recording.commands})
    found = []
    for name, recording in named:
        fitting = [limit for limit in limits.limits if all(label in recording.commands for label in limit.labels)]
        if not fitting and not _failed(recording):
            raise InputError("recording '{}': no limit is about its commands ({})".format(
                name, ", ".join(sorted(recording.commands)) or "it has none"))
        if not _failed(recording):
            check_rails(limits, recording.trace.rails)
        found.append(_exit_codes(name, recording))
        figures, windows = summarize(recording), window_records(recording)
        found += [_check(name, recording, limit, limits.expect, figures, windows) for limit in fitting]
    return found


def overall(checks):
    """FAIL where one failed, else INCONCLUSIVE where one is, else PASS."""
    verdicts = {check.verdict for check in checks}
    return FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS


def _limits(tree):
    if type(tree) is not dict or tree.get("format") != FORMAT:
        raise CheckError('is no file of limits; expected an object with "format": "%s"' % FORMAT)
    _known(tree, "", ("format", "version", "limits"), ("expect",))
    checked.integer(tree["version"], "version", VERSION, VERSION)
    limits = tuple(_limit(entry, "limits[%d]" % i)
                   for i, entry in enumerate(checked.array(tree["limits"], "limits", at_least=1)))
    checked.unique([limit.name for limit in limits], "limits", "name")
    expect = _known(tree.get("expect", {}), "expect", (), ("power_mode", "source"))
    return Limits(limits, {key: checked.text(value, "expect." + key) for key, value in expect.items()})


def _limit(tree, where):
    metric = tree.get("metric") if type(tree) is dict else None
    if type(tree) is dict:
        checked.choice(metric, where + ".metric", tuple(sorted(_METRICS)))
    unit, bound, per_clip, per_rail = _METRICS.get(metric, ("", _AT_MOST, False, False))
    saving = metric in _SAVINGS
    _known(tree, where, ("metric", bound), ("name",) + (() if saving else ("command",)) +
           (("divide_by",) if per_clip else ()) + (("rail",) if per_rail else ()))
    labels = (A, B) if saving else (checked.choice(tree.get("command", RUN), where + ".command", (RUN, A, B)),)
    divide_by = checked.integer(tree.get("divide_by", 1), where + ".divide_by", 1, 10 ** 9)
    value = checked.number(tree[bound], where + "." + bound, -1e9 if saving else 0.0, 1.0 if saving else 1e12)
    rail = checked.text(tree["rail"], where + ".rail", 120) if "rail" in tree else None
    usual = metric if saving else "{} of {}".format(metric, labels[0] if rail is None else labels[0] + ", " + rail)
    name = checked.text(tree.get("name", usual[:120]), where + ".name", 120)
    return Limit(name, metric, labels, bound, value, unit, divide_by, rail)


def _known(value, where, needed, optional):
    """An object with all keys of `needed` and at most those of `optional` besides."""
    if type(value) is not dict:
        return checked.mapping(value, where, tuple(needed))
    present = tuple(key for key in optional if key in value)
    unknown = sorted(set(value) - set(needed) - set(optional))
    if unknown and all(key in value for key in needed):
        raise CheckError("{}unknown key {}, expected only {}".format(
            where + ": " if where else "", checked.shown(unknown[0]), ", ".join(tuple(needed) + tuple(optional))))
    return checked.mapping(value, where, tuple(needed) + present)


def _failed(recording):
    return any(window.exit_code for window in recording.windows)


def _exit_codes(name, recording):
    codes = [window.exit_code for window in recording.windows if window.label != IDLE]
    bad = [code for code in codes if code]
    reason = "{} of {} runs failed, the first with exit code {}; their energy is no measurement of the work".format(
        len(bad), len(codes), bad[0]) if bad else "{} runs".format(len(codes))
    return Check(name, RUNS_ENDED_WELL, None, FAIL if bad else PASS, None, None, "", None, None, None, reason)


def _check(name, recording, limit, expect, figures, windows):
    if limit.metric == PEAK:
        interval, verdict, reason = _peak(limit, recording, windows)
    else:
        interval, measured, runs = _interval(limit, figures, windows)
        verdict, reason = _verdict(limit, interval)
        if verdict != INCONCLUSIVE and measured < runs:
            reason = "{} of {} runs measured whole".format(measured, runs)
        if not interval.finite:
            reason = _why_unknown(limit, recording, figures, measured, runs)
    doubt = _doubt(recording, limit, expect)
    if doubt:
        verdict, reason = INCONCLUSIVE, doubt
    return Check(name, limit.name, limit.metric, verdict, limit.bound, limit.value, limit.unit,
                 *([_plain(end) for end in interval] + [reason]))


def _interval(limit, figures, windows):
    """(Interval of the limit's metric, runs it comes from, all runs)."""
    if limit.metric in _SAVINGS:
        comparison = figures["comparison"]
        ratio = comparison[_SAVINGS[limit.metric]]
        estimate, low, high = [float("nan") if ratio[key] is None else 1.0 - ratio[key]
                               for key in ("estimate", "high", "low")]
        return Interval(estimate, low, high), comparison["pairs"], min(figures["commands"][label]["runs"]
                                                                      for label in limit.labels)
    command = figures["commands"][limit.labels[0]]
    if limit.metric == "average_power_w" or limit.rail is not None:
        whole = [energy for energy in _energies(limit, windows) if energy["energy_j"] is not None]
        interval = mean_interval([1e-3 * energy["average_mw"] if limit.metric == "average_power_w" else
                                  energy["energy_j"] / limit.divide_by for energy in whole])
        return interval, len(whole), command["runs"]
    parts = [command[limit.metric][key] for key in Interval._fields]
    interval = Interval(*[float("nan") if part is None else part / limit.divide_by for part in parts])
    measured = command["runs"] if limit.metric == "duration_s" else command["runs_measured"]
    return interval, measured, command["runs"]


def _energies(limit, windows):
    """The energies of the limit's rail, or of the total, in the windows of its command; those without one left out."""
    mine = [window for window in windows if window["label"] == limit.labels[0]]
    found = [window["total"] if limit.rail is None else window["rails"].get(limit.rail) for window in mine]
    return [energy for energy in found if energy is not None]


def _peak(limit, recording, windows):
    """(Interval without width, verdict, reason): a sample above the limit was seen, however little else was."""
    energies = _energies(limit, windows)
    runs = sum(window["label"] == limit.labels[0] for window in windows)
    peaks = [1e-3 * energy["peak_mw"] for energy in energies if energy["peak_mw"] is not None]
    whole = sum(energy["energy_j"] is not None for energy in energies)
    if not peaks:
        return Interval(float("nan"), float("nan"), float("nan")), INCONCLUSIVE, _why_unknown(
            limit, recording, {}, 0, runs)
    highest = Interval(max(peaks), max(peaks), max(peaks))
    if highest.high > limit.value:
        return highest, FAIL, "above it in {} of {} runs".format(sum(peak > limit.value for peak in peaks), runs)
    if whole < max(runs, LEAST_VALUES):
        return highest, INCONCLUSIVE, "{} of {} runs measured whole; a pass takes all, and at least {}".format(
            whole, runs, LEAST_VALUES)
    return highest, PASS, "the highest sample of {} runs".format(runs)


def _verdict(limit, interval):
    if not interval.finite:
        return INCONCLUSIVE, ""
    low, high = (interval.low, interval.high) if limit.bound == _AT_MOST else (-interval.high, -interval.low)
    most = limit.value if limit.bound == _AT_MOST else -limit.value
    if high <= most:
        return PASS, ""
    return (FAIL, "") if low > most else (INCONCLUSIVE, "the interval holds the limit; more or longer runs narrow it")


def _why_unknown(limit, recording, figures, measured, runs):
    if limit.metric != "duration_s" and limit.rail is None and not recording.source.total_rails:
        return "no rail is known to be the total; name it with --total when measuring"
    if measured < LEAST_VALUES:
        return "{} of {} {} measured whole; an interval takes at least {}".format(
            measured, runs, "pairs" if limit.metric in _SAVINGS else "runs", LEAST_VALUES)
    if limit.metric.startswith("above_idle") and figures["idle"] is None:
        return "idle was not measured; do not switch it off with --idle 0"
    if limit.metric.startswith("above_idle"):
        return "the interval is unknown: idle was measured too shortly, or the runs are not clearly above it"
    return "the runs differ too much for an interval"


def _doubt(recording, limit, expect):
    """Why the recording's figures must not be held against the limit, None where they may."""
    if recording.source.estimate and limit.metric != "duration_s":
        return "source '{}' is an estimate, no measurement".format(recording.source.name)
    if expect.get("source", recording.source.name) != recording.source.name:
        return "measured by source '{}', the limits are for '{}'".format(recording.source.name, expect["source"])
    modes = {state["power_mode"] for window in recording.windows for state in (window.before, window.after)}
    if "power_mode" in expect and modes != {expect["power_mode"]}:
        return "measured in power mode {}, the limits are for '{}'".format(
            " and ".join(sorted("'%s'" % mode if mode else "unknown" for mode in modes)), expect["power_mode"])
    return None


def _plain(value):
    return float(value) if np.isfinite(value) else None
