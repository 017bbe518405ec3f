"""Activation variability amplification (AVA): the term that makes magnitudes spread.

    loss = task loss - lambda * sigma2_AVA,    sigma2_AVA = mean over gates and clips of sum_k w_k S_k

S_k is the spread of the normalised magnitudes of kind k. Both forms lie in [0, 1], so that the term cannot run away:
`variance` is v / (1 + v) with v the squared coefficient of variation; `hoyer` is Hoyer's measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from dance_deploy.errors import InputError
from dance_deploy.method.saliency import Magnitudes, hoyer, squared_variation


class AvaWeights(NamedTuple):
    """Weight of each kind in sigma2_AVA. Most of it lies on features, where pruning pays (docs/method.md)."""

    frames: float = 0.15
    channels: float = 0.15
    features: float = 0.7


def _bounded_variance(m: torch.Tensor) -> torch.Tensor:
    v = squared_variation(m)
    return v / (1.0 + v)


FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"variance": _bounded_variance, "hoyer": hoyer}


DEFAULT_WEIGHTS = AvaWeights()


def ava_spread(measured: Sequence[Magnitudes], weights: AvaWeights = DEFAULT_WEIGHTS,
               form: str = "variance") -> torch.Tensor:
    """sigma2_AVA of one batch, a scalar in [0, sum of weights]; measured: one Magnitudes per gate.

    Raises InputError for a form that is not in FORMS.
    """
    if form not in FORMS:
        raise InputError(f"AVA form '{form}' is unknown; choose one of {', '.join(FORMS)}")
    spread = FORMS[form]
    per_gate = [torch.stack([w * spread(m).mean() for w, m in zip(weights, gate)]).sum() for gate in measured]
    return torch.stack(per_gate).mean()
