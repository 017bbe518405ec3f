"""Winograd over height and width: what it costs, as our kernels split it and as a 2D library uses it.

Ours (kernels/cuda/winograd.cuh): an input transform of kept frames, kept channels and live tiles, n x n products as one
(kT,1,1) convolution whose pixels are tiles, an output transform; what lies between them goes through memory. A tile is
live where a feature of its patch is kept. F(4x4, 3x3) in float32, F(2x2, 3x3) in float16, where the larger one is too
inexact; products are float32 in both.
Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308).
"""

from __future__ import annotations

import numpy as np

from dance_deploy.cost import FLOAT32_BYTES, ConvCost, Cost
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

OUTPUTS = {"fp32": 4, "fp16": 2}
LEAST_EXTENT = 14  # smaller maps fill too few tiles
LEAST_CHANNELS, LEAST_OUT_CHANNELS = 16, 32  # fewer do not pay for our transforms
KERNELS = 5  # live tiles, input, plan, products, output
# F(2x2, 3x3): 16 products where the direct way has 36
LIBRARY_GAIN = 2.25


def library_has_it(conv: Conv3dGeometry) -> bool:
    """Whether the spatial part is a 3x3 of stride 1 on a map that is large enough."""
    return (conv.kernel[1:] == (3, 3) and conv.strides[1:] == (1, 1) and conv.dilations[1:] == (1, 1)
            and conv.group == 1 and min(conv.out_size[1:]) >= LEAST_EXTENT)


def chosen(conv: Conv3dGeometry) -> bool:
    """Whether our kernels take it: by the geometry alone, as kernels/cuda/dance_cuda.cu decides."""
    return library_has_it(conv) and conv.in_channels >= LEAST_CHANNELS and conv.out_channels >= LEAST_OUT_CHANNELS


def cost(conv: ConvCost, masks: LayerMasks, precision: str, element_bytes: int) -> Cost:
    """MACs of the products, bytes of all kernels, for a convolution that has it."""
    g = conv.geometry
    frames = np.asarray(masks.frame_keep) != 0
    kept_frames, channels = int(frames.sum()), int(np.count_nonzero(masks.channel_keep))
    outputs = OUTPUTS[precision]
    products = (outputs + 2) ** 2
    tiles = live_tiles(g, np.asarray(masks.feature_keep) != 0, outputs)
    transformed = products * tiles * channels * kept_frames
    results = products * tiles * g.out_channels * g.out_size[0]
    read = channels * kept_frames * int(np.count_nonzero(masks.feature_keep))
    written = g.out_channels * int(np.prod(g.out_size))
    weights = products * g.kernel[0] * channels * g.out_channels
    macs = products * tiles * channels * g.out_channels * int(conv.uses_t[frames].sum())
    return Cost(macs, element_bytes * (read + 2 * transformed + written + weights) + FLOAT32_BYTES * 2 * results)


def live_tiles(conv: Conv3dGeometry, features: np.ndarray, outputs: int) -> int:
    """Tiles of outputs x outputs of whose patch, two larger, at least one feature is kept."""
    sums = np.pad(features.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (_patches(conv, axis, outputs) for axis in (1, 2))
    inside = (sums[np.ix_(rows[1], columns[1])] - sums[np.ix_(rows[0], columns[1])]
              - sums[np.ix_(rows[1], columns[0])] + sums[np.ix_(rows[0], columns[0])])
    return int((inside > 0).sum())


def _patches(conv: Conv3dGeometry, axis: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each tile's patch along an axis, cut to the input."""
    begins = np.arange(0, conv.out_size[axis], outputs) - conv.pads[axis]
    size = conv.in_size[axis]
    return np.clip(begins, 0, size), np.clip(begins + outputs + 2, 0, size)
