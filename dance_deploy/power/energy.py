"""From a trace to joules: by trapezoids between instantaneous samples, by differences of counters.

Nothing is invented: where samples are missing, the energy there is unknown, and so is the energy of a window around it.
"""
from typing import Dict, NamedTuple, Optional

import numpy as np

from dance_deploy.power.source import COUNTER
from dance_deploy.power.trace import column, gap_limit_s, known_steps

# samples that a window must hold before its energy counts as measured: one whole sampling interval lies inside
LEAST_SAMPLES = 2


class RailEnergy(NamedTuple):
    """One rail (or the total) in one window.

    energy_j: None unless the whole window was measured; measured_j: of the part that was; missing_s: seconds that were
    not; average_mw, peak_mw: of the measured part, None where there is none. peak_mw: the highest sample; for a counter
    the highest mean between two samples.
    """

    energy_j: Optional[float]
    measured_j: float
    missing_s: float
    average_mw: Optional[float]
    peak_mw: Optional[float]


class WindowEnergy(NamedTuple):
    """samples: those inside the window; rails: by label; total: None where no total is known."""

    start_s: float
    end_s: float
    samples: int
    rails: Dict[str, RailEnergy]
    total: Optional[RailEnergy]


class Energies(object):
    """Windows' energies out of one trace."""

    def __init__(self, trace, total_rails=()):
        """total_rails: labels whose sum is the total; () for none."""
        gap_s = gap_limit_s(trace)
        self._time_s = trace.time_s
        self._curves = {label: _Curve(trace.kind, trace.time_s, trace.values[:, i], gap_s)
                        for i, label in enumerate(trace.rails)}
        total = column(trace, total_rails)
        self._total = None if total is None else _Curve(trace.kind, trace.time_s, total, gap_s)

    def window(self, start_s, end_s):
        """The WindowEnergy from start_s to end_s, on the clock of the samples."""
        inside = slice(*np.searchsorted(self._time_s, (start_s, end_s)).tolist())
        samples = inside.stop - inside.start
        told = samples >= LEAST_SAMPLES
        rails = {label: curve.rail_energy(start_s, end_s, inside, told) for label, curve in self._curves.items()}
        total = None if self._total is None else self._total.rail_energy(start_s, end_s, inside, told)
        return WindowEnergy(start_s, end_s, samples, rails, total)


class _Curve(object):
    """Energy and missing time of one rail, summed up from the first sample."""

    def __init__(self, kind, time_s, values, gap_s):
        """values: float64 [n], mW or J by `kind`; an interval longer than gap_s, or beside a NaN, is missing."""
        self._kind, self._time_s, self._values = kind, time_s, values
        steps_s = np.diff(time_s)
        if kind == COUNTER:
            joules = np.diff(values)
        else:
            joules = 0.5e-3 * (values[1:] + values[:-1]) * steps_s
        self._known = known_steps(time_s, values, gap_s)
        self._step_j = np.where(self._known, joules, 0.0)
        self._sum_j = np.concatenate([[0.0], np.cumsum(self._step_j)])
        self._sum_missing_s = np.concatenate([[0.0], np.cumsum(np.where(self._known, 0.0, steps_s))])

    def rail_energy(self, start_s, end_s, inside, told):
        """inside: slice of the samples in the window; told: whether they are enough to call it measured."""
        (start_j, start_missing_s), (end_j, end_missing_s) = self._at(start_s), self._at(end_s)
        measured_j, missing_s = end_j - start_j, end_missing_s - start_missing_s
        covered_s = end_s - start_s - missing_s
        # the sums are long: what is left of a window without gaps, or of one without samples, is rounding
        rounding_s = 1e-9 * max(1.0, abs(start_s), abs(end_s))
        whole = missing_s <= rounding_s
        return RailEnergy(measured_j if whole and told else None, measured_j, 0.0 if whole else missing_s,
                          1e3 * measured_j / covered_s if covered_s > rounding_s else None, self._peak_mw(inside))

    def _at(self, time_s):
        """(joules, missing seconds) from the first sample to time_s; before it and after the last all is missing."""
        times = self._time_s
        if not len(times):
            return 0.0, time_s
        if time_s <= times[0]:
            return 0.0, time_s - times[0]
        if time_s >= times[-1]:
            return float(self._sum_j[-1]), float(self._sum_missing_s[-1] + time_s - times[-1])
        i = int(np.searchsorted(times, time_s, side="right")) - 1
        into_s = float(time_s - times[i])
        if not self._known[i]:
            return float(self._sum_j[i]), float(self._sum_missing_s[i] + into_s)
        return float(self._sum_j[i] + self._part_j(i, into_s)), float(self._sum_missing_s[i])

    def _part_j(self, i, into_s):
        """Joules of the first `into_s` seconds of interval i: power is linear there, a counter rises evenly."""
        share = into_s / float(self._time_s[i + 1] - self._time_s[i])
        if self._kind == COUNTER:
            return share * self._step_j[i]
        first, last = self._values[i], self._values[i + 1]
        return 1e-3 * into_s * (first + 0.5 * share * (last - first))

    def _peak_mw(self, inside):
        if self._kind == COUNTER:
            steps = slice(inside.start, max(inside.start, inside.stop - 1))
            known = self._known[steps]
            found = 1e3 * (self._step_j[steps] / np.diff(self._time_s)[steps])[known]
        else:
            found = self._values[inside]
            found = found[np.isfinite(found)]
        return float(found.max()) if len(found) else None
