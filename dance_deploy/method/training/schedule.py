"""What changes from step to step, as functions of the step alone, so that a resumed run needs no memory of it."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, steps: int, warmup: float = 0.1) -> float:
    """Factor of the learning rate in step 0 .. steps - 1: a linear rise over the part `warmup`, then a half cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def ramp_factor(step: int, steps: int, part: float = 0.2) -> float:
    """Factor of a penalty that sets in over the first `part` of the steps: 0 at step 0, then 1."""
    return min(1.0, step / max(1.0, part * steps))
