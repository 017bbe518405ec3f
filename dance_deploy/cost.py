"""What a convolution costs: multiply-accumulates and memory accesses, counted exactly from the masks.

The one place where cost is defined; training, export, runtime and benchmarks all ask here.
Rules (docs/method.md, 'What is counted'): a tap that falls into the zero padding, on a dropped frame, a dropped
feature or a dropped channel costs nothing, in the dense count as in the gated one.
"""
from typing import NamedTuple

import numpy as np

from dance_deploy.geometry import conv_out_extent

FLOAT32_BYTES = 4


class Cost(NamedTuple):
    """macs: multiply-accumulates; bytes: input read once + weights used + output written."""

    macs: int
    bytes: int

    def __add__(self, other):
        return Cost(self.macs + other.macs, self.bytes + other.bytes)


def _axis_reads(geometry, axis):
    """reads[k, i] = number of output positions whose tap k reads input position i (0 or 1); int64 [kernel, in]."""
    g = geometry
    reads = np.zeros((g.kernel[axis], g.in_size[axis]), dtype=np.int64)
    starts = np.arange(conv_out_extent(g, axis), dtype=np.int64) * g.strides[axis] - g.pads[axis]
    for k in range(g.kernel[axis]):
        at = starts + k * g.dilations[axis]
        np.add.at(reads[k], at[(at >= 0) & (at < g.in_size[axis])], 1)
    return reads


class ConvCost(object):
    """Counts one convolution for many masks; what depends on the geometry alone is worked out once."""

    def __init__(self, geometry):
        self.geometry = geometry
        reads = [_axis_reads(geometry, axis) for axis in range(3)]
        self._reads_t, self._reads_h, self._reads_w = reads
        # how many (output, tap) pairs read each input frame [T] and each input position [H, W]
        self.uses_t = reads[0].sum(axis=0)
        self.uses_hw = np.outer(reads[1].sum(axis=0), reads[2].sum(axis=0))
        self._out_positions = int(np.prod(geometry.out_size, dtype=np.int64))

    def dense(self):
        """Cost with everything kept."""
        g = self.geometry
        return self.gated(np.ones(g.in_size[0], bool), np.ones(g.in_channels, bool), np.ones(g.in_size[1:], bool))

    def gated(self, frame_keep, channel_keep, feature_keep, element_bytes=FLOAT32_BYTES):
        """Cost for one clip's masks.

        frame_keep: [T] bool, channel_keep: [C] bool, feature_keep: [H, W] bool; element_bytes: bytes of one number.
        """
        g = self.geometry
        frames, channels, features = (np.asarray(m) != 0 for m in (frame_keep, channel_keep, feature_keep))
        kept_channels = int(channels.sum())
        reads = int(self.uses_t[frames].sum()) * int(self.uses_hw[features].sum())
        macs = g.out_channels * kept_channels * reads // g.group
        numbers_in = kept_channels * int(frames.sum()) * int(features.sum())
        numbers_out = g.out_channels * self._out_positions
        weights = g.out_channels * kept_channels // g.group * self._live_taps(frames, features)
        return Cost(macs, element_bytes * (numbers_in + numbers_out + weights))

    def _live_taps(self, frames, features):
        """Number of kernel positions that meet at least one kept input position."""
        live_t = int((self._reads_t[:, frames].sum(axis=1) > 0).sum())
        hits = self._reads_h.dot(features.astype(np.int64)).dot(self._reads_w.T)
        return live_t * int((hits > 0).sum())
