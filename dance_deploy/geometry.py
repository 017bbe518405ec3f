"""Shapes that every part shares: the clip that a model reads, and one 3D convolution.

Names and layouts are ONNX's: N, C, T, H, W; `pads` holds the three begins, then the three ends.
"""
from typing import NamedTuple, Tuple

from dance_deploy.errors import InputError

Size3 = Tuple[int, int, int]
Pads6 = Tuple[int, int, int, int, int, int]


# of frames, rows, columns and strides: far above any video network, low enough that counting costs stays cheap
MAX_EXTENT = 4096


class ClipSpec(NamedTuple):
    """How a clip is cut from a video and turned into numbers.

    frames: frames in a clip; stride: distance of two of them in frames of the video;
    resize: (H, W) that a whole video frame is scaled to (the aspect ratio may change);
    size: (H, W) of the centre crop that the model reads; mean, std: per RGB channel, of values in [0, 1].
    """

    frames: int
    stride: int
    resize: Tuple[int, int]
    size: Tuple[int, int]
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]

    @property
    def span(self):
        """Number of video frames from the first to the last frame of a clip, both included."""
        return (self.frames - 1) * self.stride + 1

    @property
    def shape(self):
        """Shape of the tensor that the model reads, [1, 3, T, H, W]."""
        return (1, 3, self.frames, self.size[0], self.size[1])

    def check(self):
        """Return self; raise InputError where a field makes no sense."""
        for name in ("frames", "stride"):
            if not 1 <= getattr(self, name) <= MAX_EXTENT:
                raise InputError("clip spec: {} must be 1 to {} (got {})".format(name, MAX_EXTENT, getattr(self, name)))
        for name in ("resize", "size"):
            if not 1 <= min(getattr(self, name)) <= max(getattr(self, name)) <= MAX_EXTENT:
                raise InputError("clip spec: {0} must be 1x1 to {1}x{1} (got {2}x{3})".format(
                    name, MAX_EXTENT, *getattr(self, name)))
        if self.size[0] > self.resize[0] or self.size[1] > self.resize[1]:
            raise InputError("clip spec: the crop {}x{} is larger than the resized frame {}x{}".format(
                *(tuple(self.size) + tuple(self.resize))))
        if min(self.std) <= 0:
            raise InputError("clip spec: std must be positive (got {})".format(list(self.std)))
        return self


class Conv3dGeometry(NamedTuple):
    """One 3D convolution with the size of what it reads.

    in_size: (T, H, W) of its input. The other fields are ONNX Conv's.
    """

    name: str
    in_channels: int
    out_channels: int
    in_size: Size3
    kernel: Size3
    strides: Size3 = (1, 1, 1)
    pads: Pads6 = (0, 0, 0, 0, 0, 0)
    dilations: Size3 = (1, 1, 1)
    group: int = 1

    @property
    def out_size(self):
        """(T', H', W') as ONNX Conv defines it; raises InputError where the kernel does not fit."""
        return tuple(conv_out_extent(self, axis) for axis in range(3))

    @property
    def taps(self):
        """Number of kernel positions, kT * kH * kW."""
        return self.kernel[0] * self.kernel[1] * self.kernel[2]


def conv_out_extent(geometry, axis):
    """Length of the output along `axis` (0: T, 1: H, 2: W)."""
    g = geometry
    padded = g.in_size[axis] + g.pads[axis] + g.pads[axis + 3]
    reach = g.dilations[axis] * (g.kernel[axis] - 1) + 1
    if padded < reach:
        raise InputError(
            "convolution '{}': a kernel of reach {} does not fit into {} positions along {} "
            "(padding included)".format(g.name, reach, padded, "THW"[axis]))
    return (padded - reach) // g.strides[axis] + 1
