"""Winograd over height and width: what it costs, as our kernels split it and as a 2D library uses it.

Ours: an input transform (kept frames and channels only), n x n products as one (kT,1,1) convolution, an output
transform; three kernels, so what lies between them goes through memory. F(4x4, 3x3) in float32, F(2x2, 3x3) in float16,
where the larger one is too inexact.
Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308).
"""

from __future__ import annotations

import numpy as np

from dance_deploy.cost import ConvCost, Cost
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

OUTPUTS = {"fp32": 4, "fp16": 2}
LEAST_EXTENT = 14  # smaller maps fill too few tiles
KERNELS = 3
# F(2x2, 3x3): 16 products where the direct way has 36
LIBRARY_GAIN = 2.25


def applies(conv: Conv3dGeometry) -> bool:
    """Whether the spatial part is a 3x3 of stride 1 on a map that is large enough."""
    return (conv.kernel[1:] == (3, 3) and conv.strides[1:] == (1, 1) and conv.dilations[1:] == (1, 1)
            and conv.group == 1 and min(conv.out_size[1:]) >= LEAST_EXTENT)


def cost(conv: ConvCost, masks: LayerMasks, precision: str, element_bytes: int) -> Cost | None:
    """MACs of the products, bytes of all three kernels; None where it does not apply or a feature is pruned."""
    g = conv.geometry
    if not applies(g) or not np.all(masks.feature_keep):
        return None
    frames = np.asarray(masks.frame_keep) != 0
    channels = int(np.count_nonzero(masks.channel_keep))
    outputs = OUTPUTS[precision]
    products = (outputs + 2) ** 2
    tiles = int(np.prod([-(-extent // outputs) for extent in g.out_size[1:]]))
    transformed = products * tiles * channels * int(frames.sum())
    results = products * tiles * g.out_channels * g.out_size[0]
    read = channels * int(frames.sum()) * g.in_size[1] * g.in_size[2]
    written = g.out_channels * int(np.prod(g.out_size))
    weights = products * g.kernel[0] * channels * g.out_channels
    macs = products * tiles * channels * g.out_channels * int(conv.uses_t[frames].sum())
    return Cost(macs, element_bytes * (read + 2 * transformed + 2 * results + written + weights))
