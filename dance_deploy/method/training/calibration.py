"""Calibration: which budget to feed the controller so that the budget asked for is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dance_deploy.method.controller import Controller
from dance_deploy.method.surgery import GatedModel
from dance_deploy.method.training.evaluation import Evaluator

# close together where the controller's thresholds fade out: what the network does not reach with thresholds of its own
# lies there
FED = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0)
ASKED = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ALL_OPEN = 1.001  # fed for a budget of 1: beyond 1, so that no rounding of the map leaves a gate half open


class Calibration(NamedTuple):
    """asked -> fed, the points of the controller's map; fed_grid -> shares, what was measured for it."""

    asked: list[float]
    fed: list[float]
    fed_grid: list[float]
    shares: list[float]


def fed_for(asked: Sequence[float], fed: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The budget to feed for each budget asked, by interpolation of the measured shares.

    fed ascends; shares: the share measured for each. A share that falls where fed rises is noise of the measurement
    and is raised to the largest so far, so that the map is monotone and errs towards spending less. Outside of what
    was measured: the nearest end.
    """
    rising = np.maximum.accumulate(np.asarray(shares, dtype=np.float64))
    # a hair of slope, so that a plateau is left at its low end
    rising = rising + 1e-9 * np.arange(len(rising))
    return [float(v) for v in np.interp(np.asarray(asked, dtype=np.float64), rising, np.asarray(fed))]


def calibrate(model: GatedModel, evaluator: Evaluator, lowest: float) -> Calibration:
    """Measure the share for a grid of fed budgets on the evaluator's clips, and set the controller's map.

    lowest: the least budget that training drew, in (0, 1). Nothing below it is ever fed: there the thresholds are an
    extrapolation, which saves little more and ruins the answers. What is asked for below gets what `lowest` reaches.
    """
    controller = model.controller
    grid = [lowest, *(fed for fed in FED if fed > lowest)]
    shares = [_share_when_fed(model, controller, evaluator, fed) for fed in grid]
    fed = fed_for(ASKED, grid, shares)
    points = Calibration([0.0, *ASKED, 1.0], [fed[0], *fed, ALL_OPEN], grid, shares)
    controller.calibrate(points.asked, points.fed)
    return points


def _share_when_fed(model: GatedModel, controller: Controller, evaluator: Evaluator, fed: float) -> float:
    # a constant map feeds `fed` whatever is asked
    controller.calibrate([0.0, 1.0], [fed, fed])
    return evaluator.scores(model, [0.5])[0].share
