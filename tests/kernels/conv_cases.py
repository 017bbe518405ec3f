"""Inputs of one convolution, as the tests of every kernel draw them."""
import numpy as np


def values(rng, shape, dtype=np.float32):
    """Normal random numbers."""
    return rng.standard_normal(shape).astype(dtype)


def full_masks(x_shape):
    """The masks of frames, channels and features that keep everything."""
    n, c, t, h, w = x_shape
    return [np.ones(shape, bool) for shape in ((n, t), (n, c), (n, h, w))]


def kept(masks):
    """What the three masks keep together, to be broadcast over x [N, C, T, H, W]."""
    frame, channel, feature = masks
    return frame[:, None, :, None, None] & channel[:, :, None, None, None] & feature[:, None, None]


def poisoned(x, masks, poison=np.nan):
    """x with `poison` wherever a mask drops it: a dropped value is never used."""
    return np.where(kept(masks), x, x.dtype.type(poison))
