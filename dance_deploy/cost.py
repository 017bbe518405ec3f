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
        # how many (output, tap) pairs read each input frame [T] and each input position [H, W]
        self.uses_t = reads[0].sum(axis=0)
        self.uses_hw = np.outer(reads[1].sum(axis=0), reads[2].sum(axis=0))
        self._out_positions = int(np.prod(geometry.out_size, dtype=np.int64))
        # counting runs beside every clip: float64 products, exact below 2^53, are numpy's fast way
        self._per_frame, self._per_feature = (uses.ravel().astype(np.float64) for uses in (self.uses_t, self.uses_hw))
        # 1 where tap k reads input position i at all, [kernel, in]
        self._taps_t, self._taps_h, self._taps_w = ((axis_reads > 0).astype(np.float64) for axis_reads in reads)
        every = [np.ones(n, np.float64) for n in (geometry.in_size[0], geometry.in_size[1] * geometry.in_size[2])]
        self._all_frames, self._all_features = self._of_frames(every[0]), self._of_features(every[1])

    def dense(self):
        """Cost with everything kept."""
        g = self.geometry
        return self.gated(np.ones(g.in_size[0], bool), np.ones(g.in_channels, bool), np.ones(g.in_size[1:], bool))

    def gated(self, frame_keep, channel_keep, feature_keep, element_bytes=FLOAT32_BYTES):
        """Cost for one clip's masks.

        frame_keep: [T] bool, channel_keep: [C] bool, feature_keep: [H, W] bool; element_bytes: bytes of one number.
        """
        g = self.geometry
        channels, frames, features = (int(np.count_nonzero(m)) for m in (channel_keep, frame_keep, feature_keep))
        reads_t, taps_t = self._all_frames if frames == g.in_size[0] else self._of_frames(_ones(frame_keep))
        reads_hw, taps_hw = (self._all_features if features == self._per_feature.size
                             else self._of_features(_ones(feature_keep)))
        macs = g.out_channels * channels * reads_t * reads_hw // g.group
        numbers_in = channels * frames * features
        numbers_out = g.out_channels * self._out_positions
        weights = g.out_channels * channels // g.group * taps_t * taps_hw
        return Cost(macs, element_bytes * (numbers_in + numbers_out + weights))

    def _of_frames(self, kept):
        """(pairs of output frame and tap that read a kept frame, taps that meet one); kept: float64 [T]."""
        return int(self._per_frame.dot(kept)), int(np.count_nonzero(self._taps_t.dot(kept)))

    def _of_features(self, kept):
        """The same for positions; kept: float64 [H * W]."""
        hits = self._taps_h.dot(kept.reshape(self.geometry.in_size[1:])).dot(self._taps_w.T)
        return int(self._per_feature.dot(kept)), int(np.count_nonzero(hits))


def _ones(keep):
    return (np.asarray(keep) != 0).ravel().astype(np.float64)
