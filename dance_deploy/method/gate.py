"""The AAP gate for training: frames, then channels, then features, each judged on what is left.

Forward it decides exactly as `dance::ActivationGate` (docs/ops.md): hard masks, the maximum always kept. Backward each
decision has the slope of sigmoid((m / mean - tau) / temperature) (straight-through), with respect to tau and to the
magnitudes m, so that thresholds and backbone learn together. Hard masks forward matter: a network trained on
half-closed values comes to use them, and fails once the masks harden.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dance_deploy.method.saliency import Magnitudes, magnitudes, relative
from dance_deploy.ops import names

TEMPERATURE = 0.2


class Masks(NamedTuple):
    """Straight-through masks, 0 or 1 in value: frames [N, T], channels [N, C], features [N, H, W]."""

    frames: torch.Tensor
    channels: torch.Tensor
    features: torch.Tensor


def keep(m: torch.Tensor, tau: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Straight-through mask of magnitudes m [N, ...] at thresholds tau [N], same shape as m.

    1 unless m < tau * mean(m); every position that attains the maximum, as far as float32 sums can tell
    (names.GATE_TIE), is 1. NaN drops nothing.
    """
    flat = m.flatten(1)
    threshold = tau.unsqueeze(1) * flat.mean(1, keepdim=True)
    tied = flat.amax(1, keepdim=True) * (1.0 - names.GATE_TIE)
    hard = ~((flat < threshold) & (flat < tied))
    hard = hard.to(m.dtype)
    if torch.is_grad_enabled():
        soft = torch.sigmoid((relative(m) - tau.unsqueeze(1)) / temperature)
        # soft - soft.detach() is 0 in value; it only lends its slope
        hard = hard + (soft - soft.detach())
    return hard.view_as(m)


def gate_masks(x: torch.Tensor, tau: torch.Tensor, temperature: float = TEMPERATURE, positive: bool = False,
               random: bool = False) -> Masks:
    """Masks for x [N, C, T, H, W] at tau [N, 3] (frames, channels, features).

    positive: x has no negative values; random: each clip's magnitudes of a kind are dealt out anew among its slices.

    The magnitudes of a later step are means over what the earlier steps kept. Sums and counts are taken instead of
    means over a selection, because each clip of the batch keeps a different number; a common factor cancels.
    """
    # float32 whatever the autocast type: thresholds lie close to the mean and half precision flips them
    a = x.float() if positive else x.float().abs()
    n, c, t, h, w = a.shape
    # one pass over the tensor serves frames and channels, one matrix product the features: 3.5 times as fast as
    # three means, and training spends as long in the gates as in the convolutions
    per_frame = a.sum((3, 4))
    deal = _dealt_out if random else lambda m: m
    frames = keep(deal(per_frame.sum(1)), tau[:, 0], temperature)
    channels = keep(deal((per_frame * frames[:, None]).sum(2)), tau[:, 1], temperature)
    kept = channels[:, :, None] * frames[:, None]
    per_pixel = torch.bmm(kept.view(n, 1, c * t), a.reshape(n, c * t, h * w)).view(n, h, w)
    features = keep(deal(per_pixel), tau[:, 2], temperature)
    return Masks(frames, channels, features)


def _dealt_out(m: torch.Tensor) -> torch.Tensor:
    """m [N, ...] with each clip's values in random order."""
    flat = m.flatten(1)
    return flat.gather(1, torch.rand(flat.shape, device=m.device).argsort(1)).view_as(m)


class Gate(nn.Module):
    """Gate number `index`: masks its input by row `index` of tau.

    random: keep as many slices as it would, but random ones (for comparisons; not what is exported).
    positive: the input has no negative values (it comes from a ReLU), so that |A| need not be computed.
    open: let everything through (the dense network). measure: keep the input's Magnitudes of the last forward in
    `measured` (for AVA and for plots). `masks` holds the masks of the last forward, None while open.
    """

    def __init__(self, index: int, positive: bool = False) -> None:
        super().__init__()
        self.index = index
        self.positive = positive
        self.random = False
        self.open = False
        self.measure = False
        self.masks: Masks | None = None
        self.measured: Magnitudes | None = None

    def forward(self, x: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """x [N, C, T, H, W], tau [N, L, 3] of all gates -> x with the dropped slices set to 0."""
        self.measured = magnitudes(x) if self.measure else None
        if self.open:
            self.masks = None
            return x
        with torch.autocast(x.device.type, enabled=False):  # decisions are made in float32
            masks = gate_masks(x, tau[:, self.index].float(), positive=self.positive,
                               random=self.random)
        self.masks = masks
        # two products of the full tensor instead of three; the small one is [N, C, T]
        ct = masks.channels[:, :, None] * masks.frames[:, None, :]
        return x * ct[:, :, :, None, None].to(x.dtype) * masks.features[:, None, None].to(x.dtype)
