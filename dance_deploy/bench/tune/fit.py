"""Costs that make the kernels' estimates agree with measured times, by least squares.

Fitted are logarithms of the costs to logarithms of the times' ratios (Winograd over direct), by Levenberg-Marquardt
steps (Marquardt, 1963). Ratios far from 1, where any costs choose right, count for less, and so do outliers (Huber's
weights). Each cost is drawn towards its built-in value, so that one of which no case tells much stays there.
"""

from __future__ import annotations

import ctypes
from typing import Dict, Sequence

import numpy as np

from dance_deploy.bench.native import MIXED, conv_of, estimate
from dance_deploy.bench.tune.measure import VARIANTS, Timed

Costs = Dict[str, float]

_DRAW = 0.1      # how strongly costs are drawn to the built-in ones: a factor e off counts as an error of this
_NEAR = 0.5      # a ratio's logarithm from which on it begins to count for less
_OUTLIER = 0.25  # the same of an error
_STEP = 0.01     # of a logarithm, for derivatives
_FARTHEST = 3.0  # logarithm that a cost may move from its built-in value: 20 times
_MOST_STEPS = 12


def text_of(costs: Costs) -> str:
    """Costs as the session config entry has them."""
    return " ".join(f"{name}={float(value)!r}" for name, value in sorted(costs.items()))


class Estimates:
    """What the library makes of some cases for any costs."""

    def __init__(self, lib: ctypes.CDLL, cases: Sequence[Timed], bf16: bool) -> None:
        self._lib = lib
        self._cases = [(conv_of(timed.case.layer.geometry, bf16=bf16), timed.masks) for timed in cases]
        self.log_ratios = np.array([timed.log_ratios() for timed in cases])
        self.relative = np.array([timed.relative() for timed in cases])

    def _all(self, costs: Costs) -> list[tuple[int, list[float]]]:
        text, found = text_of(costs).encode(), []
        for conv, masks in self._cases:
            conv.costs = text
            found.append(estimate(self._lib, conv, masks))
        return found

    def log_ratios_by(self, costs: Costs) -> np.ndarray:
        """[cases, 2], as Timed.log_ratios(), of the estimates."""
        logs = np.log(np.array([steps for _, steps in self._all(costs)]))
        return logs[:, 1:] - logs[:, :1]

    def judge(self, costs: Costs) -> list[tuple[int, float]]:
        """Of each case the variant that is chosen, of VARIANTS, and its time over the fastest one's. Where some tiles
        would be computed pixel by pixel, which of them depends on the costs: the time of all whole stands for it, which
        it was chosen to be faster than."""
        chosen = [variant % MIXED for variant, _ in self._all(costs)]
        return [(variant, float(of[VARIANTS.index(variant)])) for variant, of in zip(chosen, self.relative)]

    def regret(self, costs: Costs) -> np.ndarray:
        """[cases]: times over the fastest variant's."""
        return np.array([regret for _, regret in self.judge(costs)])


def mean_regret(regret: np.ndarray) -> float:
    """Geometric mean of times over the best."""
    return float(np.exp(np.log(regret).mean()))


def fit_costs(lib: ctypes.CDLL, cases: Sequence[Timed], built_in: Costs, bf16: bool) -> Costs:
    """Costs for all `cases`; nothing else is looked at. built_in: all of them above 0. Deterministic."""
    estimates = Estimates(lib, cases, bf16)
    names, start = list(built_in), np.log(list(built_in.values()))
    near = 1 / np.sqrt(1 + (estimates.log_ratios / _NEAR) ** 2)

    def costs_at(x: np.ndarray) -> Costs:
        return dict(zip(names, np.exp(x)))

    def errors(x: np.ndarray) -> np.ndarray:
        error = estimates.log_ratios_by(costs_at(x)) - estimates.log_ratios
        return np.concatenate([(near * error / (1 + (error / _OUTLIER) ** 2) ** 0.25).ravel(), _DRAW * (x - start)])

    x, error, damping = start, errors(start), 0.01
    for _ in range(_MOST_STEPS):
        slopes = np.stack([(errors(x + _STEP * unit) - error) / _STEP for unit in np.eye(len(x))], axis=1)
        moved = False
        while not moved and damping < 1e6:
            step = -np.linalg.solve(slopes.T @ slopes + damping * np.eye(len(x)), slopes.T @ error)
            there = np.clip(x + np.clip(step, -1, 1), start - _FARTHEST, start + _FARTHEST)
            after = errors(there)
            moved = bool(after @ after < error @ error)
            damping = damping / 5 if moved else damping * 5
        if not moved:
            break
        done = np.abs(there - x).max() < _STEP
        x, error = there, after
        if done:
            break
    # what nobody measured to more than two digits is not written to more than three
    return {name: float(f"{value:.3g}") for name, value in costs_at(x).items()}
