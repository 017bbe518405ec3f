"""What the direct GPU kernel executes for given masks: the multiply-accumulates that it cannot skip included.

A warp computes `rows` output rows and skips a tap only where none of its rows needs it. Output frames with the same
live taps in time share a launch; where a feature is pruned or the map is small, pixels are sorted by which taps are
live, so that the rows of a warp resemble each other; the frames of one pixel are neighbours.
"""

from __future__ import annotations

import numpy as np

from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

SORTED_UP_TO = 28 * 28


def executed_macs(conv: Conv3dGeometry, masks: LayerMasks, *, rows: int, channel_group: int) -> int:
    """Multiply-accumulates of one clip; masks as ConvCost.gated's. A grouped convolution has a kernel of its own that
    wastes nothing in this count; it is not for it."""
    frames, channels, features = (np.asarray(mask) != 0 for mask in masks)
    taps_t, counts = np.unique(_live(conv, 0, frames), axis=0, return_counts=True)
    patterns = _patterns(conv, features)
    if not features.all() or patterns.size <= SORTED_UP_TO:
        patterns = patterns[np.argsort(_gray_rank(patterns), kind="stable")]
    row_taps = sum(int(live.sum()) * _warp_taps(np.repeat(patterns, frames_of_class), rows)
                   for live, frames_of_class in zip(taps_t, counts, strict=True))
    kept = -(-int(channels.sum()) // channel_group) * channel_group
    return conv.out_channels * min(kept, conv.in_channels) * row_taps


def _live(conv: Conv3dGeometry, axis: int, kept: np.ndarray) -> np.ndarray:
    """[outputs, taps] bool: whether a tap reads a kept position of the input along one axis."""
    at = _positions(conv, axis)
    inside = (at >= 0) & (at < conv.in_size[axis])
    return inside & kept[np.clip(at, 0, conv.in_size[axis] - 1)]


def _positions(conv: Conv3dGeometry, axis: int) -> np.ndarray:
    starts = np.arange(conv.out_size[axis]) * conv.strides[axis] - conv.pads[axis]
    return starts[:, None] + np.arange(conv.kernel[axis]) * conv.dilations[axis]


def _patterns(conv: Conv3dGeometry, features: np.ndarray) -> np.ndarray:
    """[H' * W'] uint64: bit (kh * kW + kw) is set where that tap reads a kept feature."""
    if conv.kernel[1] * conv.kernel[2] > 64:
        raise ValueError(f"{conv.name}: a kernel of {conv.kernel[1]}x{conv.kernel[2]} has more taps than bits")
    h, w = _positions(conv, 1), _positions(conv, 2)
    live_h, live_w = (_live(conv, axis, np.ones(conv.in_size[axis], bool)) for axis in (1, 2))
    clip_h, clip_w = np.clip(h, 0, conv.in_size[1] - 1), np.clip(w, 0, conv.in_size[2] - 1)
    live = features[clip_h[:, None, :, None], clip_w[None, :, None, :]]
    live = live & live_h[:, None, :, None] & live_w[None, :, None, :]  # [H', W', kH, kW]
    bits = np.uint64(1) << np.arange(live.shape[2] * live.shape[3], dtype=np.uint64)
    return (live.reshape(-1, bits.size) * bits).sum(axis=1, dtype=np.uint64)


def _gray_rank(patterns: np.ndarray) -> np.ndarray:
    """Place of each pattern in the Gray code: neighbours in that order differ in few taps."""
    rank = patterns.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        rank ^= rank >> np.uint64(shift)
    return rank


def _warp_taps(patterns: np.ndarray, rows: int) -> int:
    """Sum over warps of rows x the taps that any of its rows needs."""
    union = np.bitwise_or.reduceat(patterns, np.arange(0, patterns.size, rows))
    return rows * int(np.unpackbits(union.view(np.uint8)).sum())
