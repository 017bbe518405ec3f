"""Readings as arrays: one row a sample, one column a rail, and the period they really came at."""
from typing import Any, NamedTuple, Tuple

import numpy as np

from dance_deploy.power.source import COUNTER, POWER

# an interval this many times the usual one is a gap: what happened inside is not known
_GAP_PERIODS = 3.0
# ... and short hiccups of a busy board's scheduler are none
_LEAST_GAP_S = 0.5


class Trace(NamedTuple):
    """kind: POWER or COUNTER; time_s: float64 [n], rising; rails: labels; values: float64 [n, rails], milliwatts
    (POWER) or joules since the start (COUNTER), NaN where a rail was not read; dropped: samples whose time did not
    advance."""

    kind: str
    time_s: Any
    rails: Tuple[str, ...]
    values: Any
    dropped: int


class Period(NamedTuple):
    """Seconds between samples as they came; NaN with fewer than two. samples: their number."""

    median_s: float
    p95_s: float
    most_s: float
    samples: int


def trace_from_readings(readings, kind=POWER, rails=()):
    """The Trace of Readings in their order; rails: labels that get a column even where no reading has them.

    A sample that is not later than the one before it is dropped and counted: no clock of ours goes back, so it is
    damage of the source, and must not turn into negative energy.
    """
    rails, kept, last_s, dropped = list(rails), [], -np.inf, 0
    for reading in readings:
        if not reading.time_s > last_s:
            dropped += 1
            continue
        last_s = reading.time_s
        kept.append(reading)
        for label in _values(reading, kind):
            if label not in rails:
                rails.append(label)
    values = np.full((len(kept), len(rails)), np.nan)
    for row, reading in enumerate(kept):
        for label, value in _values(reading, kind).items():
            values[row, rails.index(label)] = value
    return Trace(kind, np.array([reading.time_s for reading in kept], dtype=np.float64), tuple(rails), values, dropped)


def column(trace, labels):
    """Sum of the rails `labels`: float64 [n], NaN where one of them is missing; None where one is not in the trace."""
    if not labels or any(label not in trace.rails for label in labels):
        return None
    return sum(trace.values[:, trace.rails.index(label)] for label in labels)


def period_of(trace):
    """The Period of a trace."""
    steps = np.diff(trace.time_s)
    if not len(steps):
        return Period(float("nan"), float("nan"), float("nan"), len(trace.time_s))
    return Period(float(np.median(steps)), float(np.percentile(steps, 95)), float(steps.max()), len(trace.time_s))


def gap_limit_s(trace):
    """Longest interval between two samples that still counts as measured. Counters lose nothing in between."""
    if trace.kind == COUNTER or len(trace.time_s) < 2:
        return float("inf")
    return max(_GAP_PERIODS * period_of(trace).median_s, _LEAST_GAP_S)


def known_steps(time_s, values, gap_s):
    """bool [n-1]: whether it is known what happened between two samples: both have a value, and they are close.

    values: float64 [n], NaN where not read; gap_s: gap_limit_s() of the trace.
    """
    return np.isfinite(values[1:]) & np.isfinite(values[:-1]) & (np.diff(time_s) <= gap_s)


def _values(reading, kind):
    return (reading.energy_j or {}) if kind == COUNTER else reading.rails_mw
