"""Confidence intervals by bootstrap, and what an interval lets us say.

The studentised bootstrap (bootstrap-t; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 12.5): with the
few windows that a measurement has, the plain percentile interval is too narrow. With too few values to tell, an
interval is infinite: honest, and read as INCONCLUSIVE.
"""
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
# with fewer values resamples that repeat one of them are too common to tell a 95 % interval
LEAST_VALUES = 4
# a spread below this share is rounding of equal values, no noise
_ROUNDING = 1e-9
_RESAMPLES = 2000
_MOST_DRAWN = 1 << 20   # numbers drawn at once: bounds the memory for long recordings

LESS, MORE, SAME, INCONCLUSIVE = "LESS", "MORE", "NO DIFFERENCE", "INCONCLUSIVE"


class Interval(NamedTuple):
    """estimate, and the ends of the interval of `CONFIDENCE` around it; infinite ends: too few values to tell."""

    estimate: float
    low: float
    high: float

    @property
    def finite(self):
        return bool(np.isfinite([self.estimate, self.low, self.high]).all())

    @property
    def half_width(self):
        """Half the interval, relative to the estimate; infinite where it cannot be told."""
        if not self.finite or self.estimate == 0.0:
            return float("inf")
        return (self.high - self.low) / 2.0 / abs(self.estimate)


def mean_interval(values, seed=0):
    """Interval of the mean. values: [n] finite numbers, one a window."""
    return difference_interval(values, (), seed)


def difference_interval(values, baseline, seed=0):
    """Interval of mean(values) - mean(baseline), resampled independently; an empty baseline counts as exactly 0."""
    groups = [np.asarray(group, dtype=np.float64) for group in (values, baseline) if len(group)]
    if not groups or not len(values):
        return _unknown(float("nan"))
    estimate = float(groups[0].mean() - sum(group.mean() for group in groups[1:]))
    if any(len(group) < LEAST_VALUES for group in groups):
        return _unknown(estimate)
    error = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups))
    if error <= _ROUNDING * max(float(np.abs(group).max()) for group in groups):
        return Interval(estimate, estimate, estimate)
    t = []
    for picks in _draws([len(group) for group in groups], seed):
        drawn = [group[pick] for group, pick in zip(groups, picks)]
        means = drawn[0].mean(axis=1) - sum(d.mean(axis=1) for d in drawn[1:])
        errors = np.sqrt(sum(d.var(axis=1, ddof=1) / d.shape[1] for d in drawn))
        t.append(_studentised(means - estimate, errors))
    return _interval(estimate, error, np.concatenate(t))


def ratio_interval(a, b, seed=0):
    """Interval of mean(b) / mean(a) over pairs (a[i], b[i]) measured one after the other, so that drift cancels.

    a, b: [n] positive numbers, n pairs. On the logarithm, where the ratio and its inverse are treated alike.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if len(a) != len(b) or not len(a) or not a.mean() > 0.0 or not b.mean() > 0.0:
        return _unknown(float("nan"))
    estimate = float(np.log(b.mean() / a.mean()))
    if len(a) < LEAST_VALUES:
        return Interval(float(np.exp(estimate)), 0.0, float("inf"))
    error = _log_ratio_error(a[None], b[None])[0]
    if error <= _ROUNDING:
        return Interval(*[float(np.exp(estimate))] * 3)
    t = []
    for pick, in _draws([len(a)], seed):
        da, db = a[pick], b[pick]
        with np.errstate(invalid="ignore", divide="ignore"):
            t.append(_studentised(np.log(db.mean(axis=1) / da.mean(axis=1)) - estimate, _log_ratio_error(da, db)))
    return Interval(*[float(np.exp(end)) for end in _interval(estimate, error, np.concatenate(t))])


def verdict(ratio, margin):
    """What an Interval of a ratio b / a says of b: SAME where all of it is within 1 +- margin, LESS or MORE where all
    of it is on one side of 1, else INCONCLUSIVE."""
    if not ratio.finite or ratio.low <= 0.0:
        return INCONCLUSIVE
    if 1.0 - margin <= ratio.low and ratio.high <= 1.0 + margin:
        return SAME
    if ratio.high < 1.0:
        return LESS
    return MORE if ratio.low > 1.0 else INCONCLUSIVE


def _draws(sizes, seed):
    """Indices [r, n] for each n of `sizes`, in pieces of r rows, _RESAMPLES rows in all."""
    generator = np.random.RandomState(seed)
    left = _RESAMPLES
    while left:
        rows = min(left, max(1, _MOST_DRAWN // max(sizes)), 250)
        left -= rows
        yield [generator.randint(0, n, size=(rows, n)) for n in sizes]


def _log_ratio_error(a, b):
    """Standard error of log(mean b / mean a) in each row of [r, n] (delta method on the pairs)."""
    rest = b / b.mean(axis=1, keepdims=True) - a / a.mean(axis=1, keepdims=True)
    return np.sqrt(rest.var(axis=1, ddof=1) / a.shape[1])


def _studentised(differences, errors):
    """differences / errors; a resample that is one value repeated tells nothing: it counts as infinitely far."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = differences / errors
    return np.where(errors > 0.0, t, np.where(differences < 0.0, -np.inf, np.inf))


def _interval(estimate, error, t):
    tail = (1.0 - CONFIDENCE) / 2.0
    t = np.sort(t[~np.isnan(t)])
    # order statistics, not interpolation: infinities stay what they are
    low, high = t[int(tail * len(t))], t[int(np.ceil((1.0 - tail) * len(t))) - 1]
    return Interval(estimate, float(estimate - high * error), float(estimate - low * error))


def _unknown(estimate):
    return Interval(estimate, float("-inf"), float("inf"))
