"""Magnitudes (saliency) of the frames, channels and features of an activation, and how widely they spread.

The magnitude of a slice is the mean of |A| over the rest of the tensor. Divided by their sum, the magnitudes of one
kind lie on the probability simplex, where spread and sparsity grow together (Lemma 1 of the paper).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from dance_deploy.ops.names import KINDS as KINDS

_EPS = 1e-12  # an all-zero activation has magnitudes of 0, not NaN


class Magnitudes(NamedTuple):
    """Mean |A| per slice: frames [N, T], channels [N, C], features [N, H, W]."""

    frames: torch.Tensor
    channels: torch.Tensor
    features: torch.Tensor


def magnitudes(x: torch.Tensor) -> Magnitudes:
    """Magnitudes of all three kinds of x [N, C, T, H, W], each over the whole tensor."""
    a = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).abs()
    return Magnitudes(a.mean((1, 3, 4)), a.mean((2, 3, 4)), a.mean((1, 2)))


def relative(m: torch.Tensor) -> torch.Tensor:
    """m [N, ...] divided by its mean per clip: what a threshold tau is compared with. Returns [N, D]."""
    flat = m.flatten(1)
    return flat / flat.mean(1, keepdim=True).clamp_min(_EPS)


def squared_variation(m: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation per clip, [N]: the variance of the normalised magnitudes times D^2."""
    return relative(m).var(1, unbiased=False)


def hoyer(m: torch.Tensor) -> torch.Tensor:
    """Hoyer's sparsity measure of the normalised magnitudes per clip, [N], in [0, 1] (0: all equal, 1: one slice)."""
    flat = m.flatten(1)
    dim = flat.shape[1]
    if dim == 1:
        return torch.zeros_like(flat[:, 0])
    simplex = flat / flat.sum(1, keepdim=True).clamp_min(_EPS)
    # sqrt has no finite slope at 0; a floor keeps the gradient of an all-zero activation finite
    norm = simplex.square().sum(1).clamp_min(1.0 / dim).sqrt()
    return (dim**0.5 - 1.0 / norm) / (dim**0.5 - 1.0)
