"""dance::ExpandDepthwiseCl and ExpandDepthwiseSwishCl in numpy: two convolutions of an inverted bottleneck in one op.

Source: docs/ops.md, 'Expansions'.
"""
import numpy as np

from dance_deploy.ops import names, shapes
from dance_deploy.ops.conv import conv3d, gated_conv3d
from dance_deploy.ops.tolerance import Reference, reference

SWISH_SLOPE = 1.1      # no steeper than this anywhere
SWISH_ROUNDING = 8     # eps of the result x (1 + |a|): the exponential magnifies what its operand a is rounded by


def expand_depthwise_cl(x, w, b, frame_keep, channel_keep, feature_keep, depthwise_w, depthwise_b,
                        minimum=names.MIN_DEFAULT, depthwise_minimum=names.MIN_DEFAULT, swish=False, **attributes):
    """A 1x1x1 gated convolution and the depthwise one that reads what it makes, all of it.

    x: [N, T, H, W, C]; w: [M, C, 1, 1, 1] and b: [M]; masks, minimum: as in gated_conv3d; depthwise_w:
    [M, 1, kT, kH, kW], depthwise_b: [M], depthwise_minimum, attributes (strides, pads, dilations, group = M): of the
    depthwise one.
    swish: y = a * sigmoid(a) at the end. Returns [N, T', H', W', M] of x's type.
    Raises InputError, naming op, input and both shapes, where sizes do not fit.
    """
    expanded = gated_conv3d(shapes.channels_first(x), w, b, frame_keep, channel_keep, feature_keep, minimum=minimum)
    y = conv3d(expanded, depthwise_w, depthwise_b, **attributes)
    y = np.maximum(y, y.dtype.type(depthwise_minimum))
    return np.ascontiguousarray(np.transpose(_swish(y) if swish else y, (0, 2, 3, 4, 1)))


def expand_depthwise_reference(x, w, b, masks, depthwise_w, depthwise_b, minimum=names.MIN_DEFAULT,
                               depthwise_minimum=names.MIN_DEFAULT, swish=False, **attributes):
    """The float64 result, channels first, and the bound: that of one convolution after the other.

    x: [N, C, T, H, W] float32; the rest as in expand_depthwise_cl. What the first may be off by, the second adds up by
    its weights' absolute values; a swish makes it larger by SWISH_SLOPE and rounds by itself.
    """
    first = reference(x, w, b, *masks, minimum=minimum)
    n, m = first.y.shape[:2]
    everything = [np.ones(shape, bool) for shape in ((n, first.y.shape[2]), (n, m), (n,) + first.y.shape[3:])]
    wide = [np.asarray(a).astype(np.float64) for a in (depthwise_w, depthwise_b)]
    eps = np.finfo(np.float32).eps
    y, bound = reference(first.y, *wide, *everything, minimum=depthwise_minimum, eps=eps, out_dtype=np.float32,
                         **attributes)
    with np.errstate(invalid="ignore", over="ignore"):
        bound = bound + (1 + 2 * eps * wide[0][0].size) * conv3d(first.bound, np.abs(wide[0]), **attributes)
        bound[np.isnan(bound)] = np.inf
        if not swish:
            return Reference(y, bound)
        result = _swish(y)
        rounding = SWISH_ROUNDING * eps * np.abs(result) * (1 + np.abs(y))
        smallest = 2 * np.finfo(np.float32).tiny * (1 + np.abs(y))    # what is left of large negative numbers
        return Reference(result, SWISH_SLOPE * bound + rounding + smallest)


def _swish(a):
    """a * sigmoid(a), without overflow."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        power = np.exp(-np.abs(a))
        return a * np.where(a < 0, power, a.dtype.type(1)) / (1 + power)
