"""Inputs of one convolution, as the tests of every kernel draw them."""
import numpy as np

from dance_deploy.ops import definition

RATES = (0.0, 0.2, 0.5, 0.9, 1.0)    # shares of a mask that are kept


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


def draw_masks(rng, x_shape):
    """The masks of frames, channels and features, each with a share of RATES kept."""
    n, c, t, h, w = x_shape
    return [rng.random(shape) < rng.choice(RATES) for shape in ((n, t), (n, c), (n, h, w))]


def uneven_masks(rng, x_shape):
    """Few channels and frames dropped; features are kept the more often the further right: from none to all."""
    n, c, t, h, w = x_shape
    masks = [rng.random(shape) < 0.9 for shape in ((n, t), (n, c))]
    return [*masks, rng.random((n, h, w)) < np.linspace(-0.5, 1.2, w)]


def grouped_case(rng, groups, inputs, outputs, kernel, widths, largest, padded=1.0):
    """(x, w, b, masks, z or None, attributes) of a random convolution of several groups.

    inputs, outputs: of a group; widths: to choose W from; largest: T and H at most, where the kernel needs no more;
    padded: how likely pads are.
    """
    strides = tuple(int(s) for s in rng.choice([1, 1, 2, 3], 3))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 1, 2], 3))
    pads = tuple(int(p) for p in rng.integers(0, 3, 6)) if rng.random() < padded else (0,) * 6
    sizes = (*(int(rng.integers(1, most + 1)) for most in largest), int(rng.choice(widths)))
    sizes = [max(s, d * (k - 1) + 1 - p - q) for s, k, d, p, q in zip(sizes, kernel, dilations, pads[:3], pads[3:])]
    dtype = np.float16 if rng.random() < 0.2 else np.float32
    x, w, b = (values(rng, shape, dtype) for shape in (
        (int(rng.integers(1, 3)), groups * inputs, *sizes), (groups * outputs, inputs, *kernel), (groups * outputs,)))
    attributes = dict(strides=strides, pads=pads, dilations=dilations, group=groups)
    masks = draw_masks(rng, x.shape)
    shape = definition.gated_conv3d(x, w, b, *masks, **attributes).shape
    return x, w, b, masks, values(rng, shape, dtype) if rng.random() < 0.4 else None, attributes
