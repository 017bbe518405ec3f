"""The kernels by C calls (kernels/cpu/c_api.h), without ONNX Runtime: which variant a call takes, and tests."""

from __future__ import annotations

import ctypes

import numpy as np

from dance_deploy.errors import OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names
from dance_deploy.runtime import kernels
from dance_deploy.runtime.backends import LayerMasks

VARIANTS = {0: "automatic", 1: "direct", 2: "winograd 2x2", 4: "winograd 4x4", 12: "mixed 2x2", 14: "mixed 4x4"}


class Conv(ctypes.Structure):
    """struct DanceConv of kernels/cpu/c_api.h."""

    _fields_ = [("x_shape", ctypes.c_int64 * 5), ("w_shape", ctypes.c_int64 * 5), ("strides", ctypes.c_int64 * 3),
                ("pads", ctypes.c_int64 * 6), ("dilations", ctypes.c_int64 * 3), ("group", ctypes.c_int64),
                ("channels_last", ctypes.c_int32), ("type", ctypes.c_int32), ("mask_type", ctypes.c_int32),
                ("prepack", ctypes.c_int32), ("threads", ctypes.c_int32), ("repeats", ctypes.c_int32),
                ("minimum", ctypes.c_float), ("variant", ctypes.c_int32), ("used", ctypes.POINTER(ctypes.c_int32)),
                ("bf16", ctypes.c_int32), ("channel_magnitude", ctypes.c_void_p), ("pixel_magnitude", ctypes.c_void_p)]


def library() -> ctypes.CDLL:
    """The op library; raises OperationError where it is not built."""
    path = kernels.library_path()
    if path is None:
        raise OperationError("the kernels are not built; " + kernels.HOW_TO_BUILD)
    lib = ctypes.CDLL(path)
    lib.dance_isa_name.restype = ctypes.c_char_p
    return lib


def variant_used(lib: ctypes.CDLL, geometry: Conv3dGeometry, masks: LayerMasks) -> str:
    """Which variant the masks make the kernels choose for a channels-last layer: one of VARIANTS."""
    g, used = geometry, ctypes.c_int32()
    arrays: list[np.ndarray] = [np.zeros((1, *g.in_size, g.in_channels), np.float32),
              np.zeros((g.out_channels, g.in_channels // g.group, *g.kernel), np.float32),
              np.zeros(g.out_channels, np.float32), *(np.ascontiguousarray(m, np.uint8) for m in masks)]
    y = np.empty((*g.out_size, g.out_channels), np.float32)
    conv = Conv(x_shape=(1, g.in_channels, *g.in_size), w_shape=arrays[1].shape, strides=g.strides, pads=g.pads,
                dilations=g.dilations, group=g.group, channels_last=1, prepack=1, threads=1, repeats=1,
                minimum=names.MIN_DEFAULT, used=ctypes.pointer(used))
    status = lib.dance_gated_conv3d(ctypes.byref(conv), *(ctypes.c_void_p(a.ctypes.data) for a in arrays), None,
                                    ctypes.c_void_p(y.ctypes.data), None)
    if status != 0:
        raise OperationError(f"the kernels refuse layer '{g.name}' (status {status})")
    return VARIANTS[used.value]
