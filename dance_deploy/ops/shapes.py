"""Checks of what the dance ops are given; every refusal names the op, the input and both shapes."""
import numpy as np

from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry, conv_out_extent
from dance_deploy.ops import names

FLOAT_TYPES = (np.float16, np.float32, np.float64)
ORDER_OF_CL = " (shapes as N,C,T,H,W)"    # the channels-last forms check a transposed view


def where(op, name):
    """How an error line begins: the op, and its node or layer where that is known."""
    return f"{op} '{name}'" if name else op


def text(shape):
    """Shape as the errors write it: [1,48,16,56,56]."""
    return "[{}]".format(",".join(str(extent) for extent in shape))


def refuse(place, tensor, came, expected):
    """Raise InputError: `place`: `tensor` is `came`, expected `expected`."""
    raise InputError(f"{place}: {tensor} is {came}, expected {expected}")


def channels_first(x):
    """A view [N, C, T, H, W] of a channels-last x; what is not five-dimensional stays as it is, to be refused."""
    x = np.asarray(x)
    return np.transpose(x, (0, 4, 1, 2, 3)) if x.ndim == 5 else x


def check_activation(place, x):
    """x: a float array with five extents >= 1; else InputError."""
    if x.ndim != 5 or min(x.shape) < 1:
        refuse(place, "X", text(x.shape), "[N,C,T,H,W] with every extent at least 1")
    check_type(place, "X", x, FLOAT_TYPES)


def check_type(place, tensor, array, allowed):
    """array.dtype must be among `allowed` types; else InputError."""
    if array.dtype.type not in allowed:
        refuse(place, tensor, f"of type {array.dtype}",
               " or ".join(np.dtype(one).name for one in allowed))


def check_shape(place, tensor, array, expected, because):
    """array.shape must be `expected`, which follows from `because` (said in the error); else InputError."""
    if tuple(array.shape) != tuple(expected):
        refuse(place, tensor, text(array.shape), f"{text(expected)} ({because})")


def check_masks_shape(place, masks, x_shape):
    """masks: frame [N,T], channel [N,C], feature [N,H,W] for x_shape [N,C,T,H,W]; else InputError."""
    n, c, t, h, w = x_shape
    for tensor, mask, expected in zip(names.MASK_NAMES, masks, ((n, t), (n, c), (n, h, w))):
        check_shape(place, tensor, mask, expected, f"X is {text(x_shape)}")


def check_conv_attributes(place, strides, pads, dilations, group):
    """Lengths and ranges as in ONNX Conv over three axes; else InputError."""
    for attribute, values, length, least in ((names.STRIDES, strides, 3, 1), (names.PADS, pads, 6, 0),
                                             (names.DILATIONS, dilations, 3, 1), (names.GROUP, (group,), 1, 1)):
        if len(values) != length or min(values) < least:
            refuse(place, attribute, text(values), f"{length} integer(s), each at least {least}")


def conv_geometry(place, x, w, b, conv):
    """Geometry of one convolution, its tensors checked.

    x: [N, C, T, H, W]; w: [M, C/group, kT, kH, kW]; b: [M] or None; conv: dict of strides, pads, dilations, group.
    Returns Conv3dGeometry; raises InputError where something does not fit.
    """
    check_activation(place, x)
    check_conv_attributes(place, **conv)
    group, channels = conv["group"], x.shape[1]
    because = f"C={channels} of X {text(x.shape)}, group={group}"
    if channels % group:
        refuse(place, "X", text(x.shape), f"C divisible by group={group}")
    if w.ndim != 5 or min(w.shape) < 1:
        refuse(place, "W", text(w.shape), f"[M,{channels // group},kT,kH,kW] ({because})")
    check_shape(place, "W", w, (w.shape[0], channels // group) + w.shape[2:], because)
    if w.shape[0] % group:
        refuse(place, "W", text(w.shape), f"M divisible by group={group}")
    check_type(place, "W", w, (x.dtype.type,))
    if b is not None:
        check_shape(place, "B", b, w.shape[:1], f"M of W {text(w.shape)}")
        check_type(place, "B", b, (x.dtype.type,))
    geometry = Conv3dGeometry(name=place, in_channels=channels, out_channels=w.shape[0], in_size=x.shape[2:],
                              kernel=w.shape[2:], **conv)
    try:
        for axis in range(3):
            conv_out_extent(geometry, axis)
    except InputError:
        refuse(place, "W", text(w.shape), "a kernel that fits into X {} (pads {}, dilations {})".format(
            text(x.shape), text(conv["pads"]), text(conv["dilations"])))
    return geometry
