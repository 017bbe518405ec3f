"""The kernels by C calls (kernels/cpu/c_api.h), without ONNX Runtime: which variant a call takes, and tests."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from dance_deploy.errors import OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names
from dance_deploy.runtime import kernels
from dance_deploy.runtime.backends import LayerMasks

MIXED = 10  # added to a Winograd variant: tiles of few live pairs are computed pixel by pixel
VARIANTS = {0: "automatic", 1: "direct", 2: "winograd 2x2", 4: "winograd 4x4", MIXED + 2: "mixed 2x2",
            MIXED + 4: "mixed 4x4"}


class Conv(ctypes.Structure):
    """struct DanceConv of kernels/cpu/c_api.h."""

    _fields_ = [("x_shape", ctypes.c_int64 * 5), ("w_shape", ctypes.c_int64 * 5), ("strides", ctypes.c_int64 * 3),
                ("pads", ctypes.c_int64 * 6), ("dilations", ctypes.c_int64 * 3), ("group", ctypes.c_int64),
                ("channels_last", ctypes.c_int32), ("type", ctypes.c_int32), ("mask_type", ctypes.c_int32),
                ("prepack", ctypes.c_int32), ("threads", ctypes.c_int32), ("repeats", ctypes.c_int32),
                ("minimum", ctypes.c_float), ("variant", ctypes.c_int32), ("used", ctypes.POINTER(ctypes.c_int32)),
                ("bf16", ctypes.c_int32), ("channel_magnitude", ctypes.c_void_p), ("pixel_magnitude", ctypes.c_void_p),
                ("costs", ctypes.c_char_p), ("packed", ctypes.c_void_p)]


def conv_of(geometry: Conv3dGeometry, **how: Any) -> Conv:
    """A channels-last float32 layer with constant weights; how: other fields of Conv."""
    g = geometry
    fields: dict[str, Any] = dict(
        x_shape=(1, g.in_channels, *g.in_size), w_shape=(g.out_channels, g.in_channels // g.group, *g.kernel),
        strides=g.strides, pads=g.pads, dilations=g.dilations, group=g.group, channels_last=1, prepack=1, threads=1,
        repeats=1, minimum=names.MIN_DEFAULT)
    return Conv(**dict(fields, **how))


def library() -> ctypes.CDLL:
    """The op library; raises OperationError where it is not built."""
    path = kernels.library_path()
    if path is None:
        raise OperationError("the kernels are not built; " + kernels.HOW_TO_BUILD)
    lib = ctypes.CDLL(path)
    lib.dance_isa_name.restype = ctypes.c_char_p
    lib.dance_pack.restype = ctypes.c_void_p
    lib.dance_unpack.argtypes = [ctypes.c_void_p]
    return lib


def estimate(lib: ctypes.CDLL, conv: Conv, masks: list[np.ndarray]) -> tuple[int, list[float]]:
    """The variant that the masks (uint8) lead to, a key of VARIANTS, and what direct, 2x2 and 4x4 are estimated to
    take, all 0 where there is no choice. Raises OperationError for costs, or a layer, that the library refuses."""
    chosen, steps = ctypes.c_int32(), (ctypes.c_double * 3)()
    status = lib.dance_estimate(ctypes.byref(conv), *(ctypes.c_void_p(m.ctypes.data) for m in masks),
                                ctypes.byref(chosen), steps)
    if status != 0:
        raise OperationError(f"the kernels refuse an estimate (status {status})")
    return chosen.value, list(steps)


def variant_used(lib: ctypes.CDLL, geometry: Conv3dGeometry, masks: LayerMasks, costs: str | None = None) -> str:
    """Which variant the masks make the kernels choose for a channels-last layer: one of VARIANTS; costs: as the session
    config entry has them, or None for the built-in ones."""
    conv = conv_of(geometry, costs=None if costs is None else costs.encode())
    return VARIANTS[estimate(lib, conv, [np.ascontiguousarray(mask, np.uint8) for mask in masks])[0]]
