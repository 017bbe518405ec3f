"""What kept features cost in time: whole tiles of outputs.

Fast kernels compute outputs in square tiles (Winograd's F(4x4, 3x3) on CPUs and GPUs alike), and skip a tile only where
nothing that it reads is kept. One kept position in the middle of nothing costs as much time as a full tile, although it
counts as one position's MACs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dance_deploy.geometry import Conv3dGeometry, conv_out_extent

TILE = 4  # outputs along height and width


class FeatureTiles(nn.Module):
    """Which tiles of a convolution's outputs read a kept feature."""

    def __init__(self, geometry: Conv3dGeometry, tile: int = TILE) -> None:
        super().__init__()
        g = geometry
        self.step = [tile * g.strides[axis] for axis in (1, 2)]
        self.reach = [(tile - 1) * g.strides[axis] + (g.kernel[axis] - 1) * g.dilations[axis] + 1 for axis in (1, 2)]
        # (left, right, top, bottom): from the padding's start to what the last, perhaps partial, tile would read
        self.pad: list[int] = []
        for axis, step, reach in zip((2, 1), reversed(self.step), reversed(self.reach)):
            tiles = -(-conv_out_extent(g, axis) // tile)
            before = g.pads[axis]
            self.pad += [before, max(0, (tiles - 1) * step + reach - before - g.in_size[axis])]

    def live(self, features: torch.Tensor) -> torch.Tensor:
        """features [N, H, W], straight-through masks -> share of the tiles that read a kept one, [N].

        Exact in value; backward the features that keep a tile alive bear its cost in equal parts, so that a lone one
        bears all of it.
        """
        kept = F.avg_pool2d(F.pad(features.unsqueeze(1), self.pad), self.reach, self.step, divisor_override=1)
        return (kept / kept.detach().clamp(min=1.0)).mean((1, 2, 3))
