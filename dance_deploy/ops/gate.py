"""dance::ActivationGate in numpy: which frames, channels and features of an activation are kept.

Source: docs/ops.md. Slow and plain on purpose; every other implementation is tested against it.
"""
from typing import NamedTuple

import numpy as np

from dance_deploy.ops import names, shapes

SHOWN_DIFFERENCES = 3    # per mask, in the messages of check_masks


class GateMasks(NamedTuple):
    """frame_keep: bool [N, T]; channel_keep: bool [N, C]; feature_keep: bool [N, H, W]."""

    frame_keep: np.ndarray
    channel_keep: np.ndarray
    feature_keep: np.ndarray


def activation_gate(x, tau, name=None):
    """Decide what the next convolution reads, for each n on its own.

    x:   [N, C, T, H, W] float16, float32 or float64; never written
    tau: [N, 3] thresholds for frame, channel, feature, relative to the mean magnitude; >= 0
    Returns GateMasks. A slice is dropped only where its magnitude (mean |x|, in float64) is less than tau x the mean
    of all of them and less than the largest; so a NaN drops nothing and an infinity is always kept.
    Raises InputError, naming op, input and both shapes, where sizes do not fit; `name` is the node's or layer's.
    """
    return _gate(names.ACTIVATION_GATE, x, tau, name)


def activation_gate_cl(x, tau, name=None):
    """`activation_gate` of a channels-last x [N, T, H, W, C]; errors give its shape as N, C, T, H, W, and say so."""
    return _gate(names.ACTIVATION_GATE_CL + shapes.ORDER_OF_CL, shapes.channels_first(x), tau, name)


def magnitudes(y):
    """What an op hands on with its output (docs/ops.md, 'Magnitudes'): means of |y| in float64.

    y: [N, C, T, H, W]. Returns [N, T, C], of each channel over a frame's pixels, and [N, T, H, W], of each pixel over
    channels; infinite or NaN where y is.
    """
    magnitude = np.abs(np.asarray(y)).astype(np.float64)
    return magnitude.mean(axis=(3, 4)).transpose(0, 2, 1), magnitude.mean(axis=1)


def gate_borderline(x, tau, masks, name=None):
    """Where an implementation that took `masks` may have decided either way.

    x, tau: as in activation_gate; masks: the GateMasks that the implementation returned (bool, or nonzero = keep).
    Returns GateMasks whose True means |m - tau * mean m| <= 1e-5 * mean m; each step's m is taken on what the
    earlier steps of `masks` kept.
    """
    x, tau = _checked(x, tau, name)
    masks = _as_masks(masks, x.shape, name)
    borders = []
    for n in range(x.shape[0]):
        steps = _magnitudes_given(x[n], GateMasks(*(m[n] for m in masks)))
        borders.append([_is_borderline(m, tau[n, i]) for i, m in enumerate(steps)])
    return GateMasks(*(np.stack(border) for border in zip(*borders)))


def check_masks(x, tau, masks, name=None):
    """Say what is wrong with masks that an implementation returned; [] where the contract allows them.

    x, tau, masks: as in gate_borderline. Each step is judged on what the earlier steps of `masks` kept. Beside the
    contract's borderline, a slice within GATE_TOLERANCE of the largest magnitude may be kept or dropped (two slices
    that differ by less than long float32 sums resolve), as long as one of them is kept. Where all sums are exact in
    float32 (small integers), compare with activation_gate for equality instead.
    """
    x, tau = _checked(x, tau, name)
    masks = _as_masks(masks, x.shape, name)
    problems = []
    for n in range(x.shape[0]):
        taken = GateMasks(*(m[n] for m in masks))
        empty = [mask_name for mask_name, mask in zip(names.MASK_NAMES, taken) if not mask.any()]
        if empty:
            problems.append(f"n={n}: {empty[0]} keeps nothing, expected at least the largest")
            continue
        for step, magnitudes in enumerate(_magnitudes_given(x[n], taken)):
            problems += _judge(n, step, magnitudes, tau[n, step], taken[step])
    return problems


def _gate(op, x, tau, name):
    x, tau = _checked(x, tau, name, op)
    kept = [_gate_clip(x[n], tau[n]) for n in range(x.shape[0])]
    return GateMasks(*(np.stack(masks) for masks in zip(*kept)))


def _checked(x, tau, name, op=names.ACTIVATION_GATE):
    place = shapes.where(op, name)
    x, tau = np.asarray(x), np.asarray(tau)
    shapes.check_activation(place, x)
    shapes.check_shape(place, "tau", tau, (x.shape[0], 3), f"N of X {shapes.text(x.shape)}")
    shapes.check_type(place, "tau", tau, shapes.FLOAT_TYPES)
    return x, tau.astype(np.float64)


def _as_masks(masks, x_shape, name):
    masks = GateMasks(*(np.asarray(m) != 0 for m in masks))
    shapes.check_masks_shape(shapes.where(names.ACTIVATION_GATE, name), masks, x_shape)
    return masks


def _gate_clip(x, tau):
    """x: [C, T, H, W], tau: [3] -> frame_keep [T], channel_keep [C], feature_keep [H, W]."""
    magnitude = np.abs(x).astype(np.float64)
    frames = _keep(_frame_magnitudes(magnitude), tau[0])
    channels = _keep(_channel_magnitudes(magnitude, frames), tau[1])
    features = _keep(_feature_magnitudes(magnitude, frames, channels), tau[2])
    return frames, channels, features


def _magnitudes_given(x, taken):
    """x: [C, T, H, W]; taken: GateMasks of one clip. The three steps' magnitudes on what the earlier steps kept."""
    magnitude = np.abs(x).astype(np.float64)
    return (_frame_magnitudes(magnitude), _channel_magnitudes(magnitude, taken.frame_keep),
            _feature_magnitudes(magnitude, taken.frame_keep, taken.channel_keep))


def _frame_magnitudes(magnitude):
    return magnitude.mean(axis=(0, 2, 3))


def _channel_magnitudes(magnitude, frames):
    return magnitude[:, frames].mean(axis=(1, 2, 3))


def _feature_magnitudes(magnitude, frames, channels):
    # select, do not multiply: 0 * inf would be NaN
    return magnitude[channels][:, frames].mean(axis=(0, 1))


def _threshold(magnitudes, tau):
    """tau x the mean; NaN where an infinite mean meets tau = 0, and then nothing is less than it."""
    with np.errstate(invalid="ignore", over="ignore"):
        return tau * magnitudes.mean()


def _keep(magnitudes, tau):
    with np.errstate(invalid="ignore"):
        return ~((magnitudes < _threshold(magnitudes, tau)) & (magnitudes < magnitudes.max()))


def _is_borderline(magnitudes, tau):
    with np.errstate(invalid="ignore"):
        distance = np.abs(magnitudes - _threshold(magnitudes, tau))
        return distance <= names.GATE_TOLERANCE * magnitudes.mean()


def _judge(n, step, magnitudes, tau, taken):
    """Messages for one clip's mask `taken` of one step."""
    with np.errstate(invalid="ignore"):
        near_largest = magnitudes >= magnitudes.max() * (1.0 - names.GATE_TOLERANCE)
    allowed = _is_borderline(magnitudes, tau) | near_largest
    mask_name = names.MASK_NAMES[step]
    problems = []
    if near_largest.any() and not (taken & near_largest).any():
        problems.append(f"n={n}: {mask_name} drops the largest magnitude {magnitudes.max():.9g}")
    wrong = np.argwhere((taken != _keep(magnitudes, tau)) & ~allowed)
    for index in wrong[:SHOWN_DIFFERENCES]:
        at = tuple(int(i) for i in index)
        problems.append("n={}: {}{} is {}, expected {}: magnitude {:.9g}, tau x mean {:.9g}".format(
            n, mask_name, shapes.text(at), "kept" if taken[at] else "dropped", "dropped" if taken[at] else "kept",
            magnitudes[at], _threshold(magnitudes, tau)))
    if len(wrong) > SHOWN_DIFFERENCES:
        problems.append(f"n={n}: {mask_name} differs at {len(wrong) - SHOWN_DIFFERENCES} more positions")
    return problems
