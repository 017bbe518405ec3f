"""A power trace as something that can be drawn: as many points as a screen has, breaks where nothing was measured."""
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from dance_deploy.power.source import COUNTER
from dance_deploy.power.trace import gap_limit_s, known_steps

# more samples than that are drawn as so many columns, each with its least, mean and highest power
MOST_POINTS = 600


class Piece(NamedTuple):
    """A stretch without gaps. time_s, low_w, mean_w, high_w: float64 [n]; low and high equal the mean where every
    sample is drawn."""

    time_s: Any
    low_w: Any
    mean_w: Any
    high_w: Any


class PowerCurve(NamedTuple):
    """gaps: [(start_s, end_s)] between samples where the power is not known; whole: whether every sample is drawn."""

    pieces: List[Piece]
    gaps: List[Tuple[float, float]]
    whole: bool


def power_curve(trace, values):
    """The PowerCurve of one rail or of a total. values: float64 [n], mW or J by the trace's kind, NaN where unknown."""
    if len(values) < 2:
        return PowerCurve([], [], True)
    known = known_steps(trace.time_s, values, gap_limit_s(trace))
    time_s, power_w, first = _points(trace, values, known)
    if not len(time_s):
        return PowerCurve([], _gaps(trace.time_s, known), True)
    whole = len(time_s) <= MOST_POINTS
    pieces = _all_points(time_s, power_w, first) if whole else _columns(time_s, power_w, first)
    return PowerCurve(pieces, _gaps(trace.time_s, known), whole)


def highest_w(curves):
    """The highest power of some PowerCurves, 0 where there is none."""
    return max([float(piece.high_w.max()) for curve in curves for piece in curve.pieces] + [0.0])


def lowest_w(curves):
    """The lowest power, at most 0: a sensor may read below it."""
    return min([float(piece.low_w.min()) for curve in curves for piece in curve.pieces] + [0.0])


def _points(trace, values, known):
    """(time_s, power_w, first) of what is known, [n] each; first: whether a piece begins there."""
    if trace.kind == COUNTER:
        # a counter tells the mean between two readings: a step
        power_w = np.diff(values)[known] / np.diff(trace.time_s)[known]
        edges_s = np.stack([trace.time_s[:-1][known], trace.time_s[1:][known]], axis=1).ravel()
        begins = np.concatenate([[True], ~known[:-1]])[known]
        first = np.zeros(len(edges_s), dtype=bool)
        first[::2] = begins
        return edges_s, np.repeat(power_w, 2), first
    touched = np.concatenate([[False], known]) | np.concatenate([known, [False]])
    first = ~np.concatenate([[False], known])
    return trace.time_s[touched], 1e-3 * values[touched], first[touched]


def _all_points(time_s, power_w, first):
    edges = np.flatnonzero(first)[1:]
    return [Piece(t, w, w, w) for t, w in zip(np.split(time_s, edges), np.split(power_w, edges))]


def _columns(time_s, power_w, first):
    """Samples gathered in MOST_POINTS columns of equal time; a column that begins after a gap begins a piece."""
    span_s = time_s[-1] - time_s[0]
    column = np.minimum((MOST_POINTS * (time_s - time_s[0]) / span_s).astype(int), MOST_POINTS - 1)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(column) > 0]))
    counts = np.diff(np.concatenate([starts, [len(column)]]))
    low, high = np.minimum.reduceat(power_w, starts), np.maximum.reduceat(power_w, starts)
    mean = np.add.reduceat(power_w, starts) / counts
    at_s = np.add.reduceat(time_s, starts) / counts
    # a gap narrower than a column cannot be seen; it is in the list of gaps all the same
    skips = np.concatenate([[False], np.diff(column[starts]) > 1])
    breaks = np.flatnonzero(skips & np.logical_or.reduceat(first, starts))
    parts = [np.split(part, breaks) for part in (at_s, low, mean, high)]
    return [Piece(*each) for each in zip(*parts) if len(each[0])]


def _gaps(time_s, known):
    """Neighbouring unknown intervals joined."""
    changes = np.diff(np.concatenate([[False], ~known, [False]]).astype(int))
    return [(float(time_s[start]), float(time_s[end]))
            for start, end in zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1))]
