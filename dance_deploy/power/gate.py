"""Limits on a Recording's figures, read from a JSON file (keys: docs/hardware-ci.md), and the verdict on each.

A limit is judged by the 95 % interval, not by the estimate: PASS where all of it keeps the limit, FAIL where all of it
breaks it, INCONCLUSIVE where it holds the limit, or where there is none.
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
# metric -> (unit, which limit it takes, may be given per clip)
_METRICS = {"energy_j": ("J", _AT_MOST, True), "above_idle_j": ("J", _AT_MOST, True),
            "average_power_w": ("W", _AT_MOST, False), "duration_s": ("s", _AT_MOST, True),
            "saving": ("", _AT_LEAST, False), "above_idle_saving": ("", _AT_LEAST, False)}
_SAVINGS = {"saving": "ratio", "above_idle_saving": "above_idle_ratio"}


class Limit(NamedTuple):
    """labels: the commands it needs, of RUN, A, B; bound: "at_most" or "at_least"; value: in `unit`; divide_by: clips
    that one run handles, the metric is per clip."""

    name: str
    metric: str
    labels: Tuple[str, ...]
    bound: str
    value: float
    unit: str
    divide_by: int


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
    unit, bound, per_clip = _METRICS.get(metric, ("", _AT_MOST, False))
    saving = metric in _SAVINGS
    _known(tree, where, ("metric", bound), ("name",) + (() if saving else ("command",)) +
           (("divide_by",) if per_clip else ()))
    labels = (A, B) if saving else (checked.choice(tree.get("command", RUN), where + ".command", (RUN, A, B)),)
    divide_by = checked.integer(tree.get("divide_by", 1), where + ".divide_by", 1, 10 ** 9)
    value = checked.number(tree[bound], where + "." + bound, -1e9 if saving else 0.0, 1.0 if saving else 1e12)
    usual = metric if saving else "{} of {}".format(metric, labels[0])
    name = checked.text(tree.get("name", usual), where + ".name", 120)
    return Limit(name, metric, labels, bound, value, unit, divide_by)


def _known(value, where, needed, optional):
    """An object with all keys of `needed` and at most those of `optional` besides."""
    everything = tuple(needed) + tuple(optional)
    given = everything if type(value) is not dict or set(value) - set(everything) else tuple(
        key for key in everything if key in value or key in needed)
    return checked.mapping(value, where, given)


def _failed(recording):
    return any(window.exit_code for window in recording.windows)


def _exit_codes(name, recording):
    codes = [window.exit_code for window in recording.windows if window.label != IDLE]
    bad = [code for code in codes if code]
    reason = "{} of {} runs failed, the first with exit code {}; their energy is no measurement of the work".format(
        len(bad), len(codes), bad[0]) if bad else "{} runs".format(len(codes))
    return Check(name, RUNS_ENDED_WELL, None, FAIL if bad else PASS, None, None, "", None, None, None, reason)


def _check(name, recording, limit, expect, figures, windows):
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
    if limit.metric == "average_power_w":
        totals = [window["total"] for window in windows if window["label"] == limit.labels[0] and window["total"]]
        interval = mean_interval([1e-3 * total["average_mw"] for total in totals if total["energy_j"] is not None])
    else:
        parts = [command[limit.metric][key] for key in Interval._fields]
        interval = Interval(*[float("nan") if part is None else part / limit.divide_by for part in parts])
    measured = command["runs"] if limit.metric == "duration_s" else command["runs_measured"]
    return interval, measured, command["runs"]


def _verdict(limit, interval):
    if not interval.finite:
        return INCONCLUSIVE, ""
    low, high = (interval.low, interval.high) if limit.bound == _AT_MOST else (-interval.high, -interval.low)
    most = limit.value if limit.bound == _AT_MOST else -limit.value
    if high <= most:
        return PASS, ""
    return (FAIL, "") if low > most else (INCONCLUSIVE, "the interval holds the limit; more or longer runs narrow it")


def _why_unknown(limit, recording, figures, measured, runs):
    if limit.metric != "duration_s" and not recording.source.total_rails:
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
