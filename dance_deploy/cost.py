"""What a convolution costs: multiply-accumulates and memory accesses, counted exactly from the masks.

The one place where cost is defined; training, export, runtime and benchmarks all ask here.
Rules: a tap that falls into the zero padding, on a dropped frame, a dropped feature or a dropped channel costs nothing,
in the dense count as in the gated one.
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


class KeptMasks(object):
    """One clip's masks at one gate, made ready once for all convolutions that read them.

    frames, channels, features: how many are kept; frame_ones [T], feature_ones [H * W]: float64, 1 where kept, or None
    where all are.
    """

    __slots__ = ("frames", "channels", "features", "frame_ones", "feature_ones")

    def __init__(self, frame_keep, channel_keep, feature_keep):
        """frame_keep: [T], channel_keep: [C], feature_keep: [H, W]; bool, or nonzero = keep."""
        self.channels = int(np.count_nonzero(channel_keep))
        self.frames, self.frame_ones = _counted(frame_keep)
        self.features, self.feature_ones = _counted(feature_keep)


def _counted(keep):
    keep = np.asarray(keep).ravel()
    count = int(np.count_nonzero(keep))
    if count == keep.size:
        return count, None
    return count, (keep if keep.dtype == np.bool_ else keep != 0).astype(np.float64)


class ConvCost(object):
    """Counts one convolution for many masks; what depends on the geometry alone is worked out once."""

    def __init__(self, geometry):
        self.geometry = geometry
        reads = [_axis_reads(geometry, axis) for axis in range(3)]
        # how many (output, tap) pairs read each input frame [T] and each input position [H, W]
        self.uses_t = reads[0].sum(axis=0)
        self.uses_hw = np.outer(reads[1].sum(axis=0), reads[2].sum(axis=0))
        self._out_positions = int(np.prod(geometry.out_size, dtype=np.int64))
        # Counting runs beside every clip: float64 products, exact below 2^53, are numpy's fast way, and the fewer of
        # them the better. taps_*: 1 where tap k reads input position i at all, [kernel, in].
        taps_t, self._taps_h, self._taps_w = ((axis_reads > 0).astype(np.float64) for axis_reads in reads)
        self._of_frame = np.vstack([self.uses_t, taps_t])
        # where one kept position is read by all taps there is no need to look for each of them
        by_all = np.outer(self._taps_h.all(axis=0), self._taps_w.all(axis=0))
        self._of_feature = np.vstack([self.uses_hw.ravel(), by_all.ravel()]).astype(np.float64)
        self._taps_hw = int(np.count_nonzero(self._taps_h.any(axis=1))) * int(
            np.count_nonzero(self._taps_w.any(axis=1)))
        self._all_frames = self._frames(np.ones(geometry.in_size[0]))
        self._all_features = int(self.uses_hw.sum()), self._taps_hw

    def dense(self):
        """Cost with everything kept."""
        g = self.geometry
        return self.gated(np.ones(g.in_size[0], bool), np.ones(g.in_channels, bool), np.ones(g.in_size[1:], bool))

    def gated(self, frame_keep, channel_keep, feature_keep, element_bytes=FLOAT32_BYTES):
        """Cost for one clip's masks, as in KeptMasks; element_bytes: bytes of one number."""
        return self.of(KeptMasks(frame_keep, channel_keep, feature_keep), element_bytes)

    def of(self, kept, element_bytes=FLOAT32_BYTES):
        """Cost for one clip's KeptMasks."""
        g = self.geometry
        reads_t, taps_t = self._all_frames if kept.frame_ones is None else self._frames(kept.frame_ones)
        reads_hw, taps_hw = self._all_features if kept.feature_ones is None else self._features(kept.feature_ones)
        macs = g.out_channels * kept.channels * reads_t * reads_hw // g.group
        numbers_in = kept.channels * kept.frames * kept.features
        numbers_out = g.out_channels * self._out_positions
        weights = g.out_channels * kept.channels // g.group * taps_t * taps_hw
        return Cost(macs, element_bytes * (numbers_in + numbers_out + weights))

    def _frames(self, ones):
        """(pairs of output frame and tap that read a kept frame, taps that meet one); ones: float64 [T]."""
        found = self._of_frame.dot(ones).tolist()
        return int(found[0]), sum(reads > 0 for reads in found[1:])

    def _features(self, ones):
        """The same for positions; ones: float64 [H * W]."""
        reads, by_all = self._of_feature.dot(ones).tolist()
        if by_all:
            return int(reads), self._taps_hw
        hits = self._taps_h.dot(ones.reshape(self.geometry.in_size[1:])).dot(self._taps_w.T)
        return int(reads), int(np.count_nonzero(hits))
