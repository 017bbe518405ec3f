"""How far an implementation of GatedConv3d may be from the definition: a bound per element.

Source: docs/ops.md, 'Tolerance'.
"""
from typing import NamedTuple

import numpy as np

from dance_deploy.ops import names
from dance_deploy.ops.conv import gated_conv3d

NEIGHBOURS = 3    # positions along H and W that a Winograd tile may mix
NORM_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 5e-3}
SHOWN_DIFFERENCES = 3


class Reference(NamedTuple):
    """y: the definition in float64; bound: how far an implementation may be from it; both [N, M, T', H', W']."""

    y: np.ndarray
    bound: np.ndarray


def reference(x, w, b, frame_keep, channel_keep, feature_keep, z=None, eps=None, out_dtype=None,
              minimum=names.MIN_DEFAULT, **attributes):
    """The float64 result and the bound 2 * eps * sqrt(K + 2) * S plus the rounding of the output type.

    x, w, b, masks, z, minimum, attributes: as in gated_conv3d. eps: of the arithmetic used, None for float32's
    (float64's where x is float64). out_dtype: type of the implementation's Y, None for x's. K = taps x C/group;
    S = the definition on absolute values, its largest within 3 positions along H and W. Where the output type
    or the sums may overflow, the bound is infinite.
    """
    x, w, b = np.asarray(x), np.asarray(w), np.asarray(b)
    sums = np.finfo(np.promote_types(x.dtype, np.float32))
    eps = sums.eps if eps is None else eps
    out = np.finfo(x.dtype if out_dtype is None else out_dtype)
    signed = [None if a is None else np.asarray(a).astype(np.float64) for a in (x, w, b, z)]
    absolute = [None if a is None else np.abs(a) for a in signed]
    masks = (frame_keep, channel_keep, feature_keep)
    y = gated_conv3d(*signed[:3], *masks, z=signed[3], minimum=minimum, **attributes)
    size = gated_conv3d(*absolute[:3], *masks, z=absolute[3], **attributes)
    with np.errstate(invalid="ignore", over="ignore"):
        terms = np.prod(w.shape[1:], dtype=np.float64)
        arithmetic = 2 * float(eps) * np.sqrt(terms + 2) * _largest_nearby(size)
        largest = np.abs(y) + arithmetic
        smallest_step = float(np.nextafter(out.dtype.type(0), out.dtype.type(1)))
        bound = arithmetic + float(out.eps) / 2 * largest + smallest_step / 2
        bound[~((largest < float(out.max) * (1 + float(out.eps) / 4)) & (size < float(sums.max)))] = np.inf
    return Reference(y, bound)


def error_bound(*args, **kwargs):
    """The bound of `reference` alone: float64, shaped like Y. Arguments as there."""
    return reference(*args, **kwargs).bound


def check_output(y, expected, with_norm=True):
    """Say what is wrong with an implementation's output; [] where it is within the contract.

    y: [N, M, T', H', W'], the implementation's; expected: its Reference. Where the definition gives NaN or infinity,
    y must not be finite either. with_norm: also the norm of the error over the tensor, which says nothing
    about a handful of values that cancel.
    """
    if y.shape != expected.y.shape:
        return [f"Y is {list(y.shape)}, expected {list(expected.y.shape)}"]
    wide = y.astype(np.float64)
    finite = np.isfinite(expected.y)
    with np.errstate(invalid="ignore"):
        distance = np.abs(wide - expected.y)
        wrong = np.where(finite, ~(distance <= expected.bound) & ~np.isinf(expected.bound), np.isfinite(wide))
    problems = []
    for index in np.argwhere(wrong)[:SHOWN_DIFFERENCES]:
        at = tuple(int(i) for i in index)
        problems.append(f"Y{list(at)} is {wide[at]:.9g}, expected {expected.y[at]:.9g} within {expected.bound[at]:.3g}")
    if wrong.sum() > SHOWN_DIFFERENCES:
        problems.append(f"Y differs at {int(wrong.sum()) - SHOWN_DIFFERENCES} more positions")
    compared = finite & np.isfinite(expected.bound)
    error, norm = np.linalg.norm(distance[compared]), np.linalg.norm(expected.y[compared])
    limit = NORM_TOLERANCE.get(y.dtype)
    if with_norm and limit is not None and not error <= limit * norm:
        problems.append(f"Y: norm of the error is {error:.3g}, expected at most {limit:g} x {norm:.3g}")
    return problems


def _largest_nearby(size):
    """Largest value within NEIGHBOURS positions along H and W; NaN counts as infinite."""
    size = np.where(np.isnan(size), np.inf, size)
    for axis in (3, 4):
        padding = [(0, 0)] * 5
        padding[axis] = (NEIGHBOURS, NEIGHBOURS)
        padded = np.pad(size, padding, mode="constant")
        extent = size.shape[axis]
        for shift in range(2 * NEIGHBOURS + 1):
            window = [slice(None)] * 5
            window[axis] = slice(shift, shift + extent)
            size = np.maximum(size, padded[tuple(window)])
    return size
