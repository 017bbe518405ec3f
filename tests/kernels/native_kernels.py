"""The compiled kernels through ctypes, for the tests of this folder: no ONNX Runtime between."""
import ctypes

import numpy as np
import pytest

from dance_deploy.bench.native import Conv
from dance_deploy.ops import names
from dance_deploy.runtime import kernels

GUARD = 64    # elements before and after every buffer that a kernel is given
POISON = {np.dtype(np.float32): np.float32(np.nan), np.dtype(np.float16): np.float16(np.nan), np.dtype(np.uint8): 7}


def library():
    """The library; skips the test where it is not built."""
    path = kernels.library_path()
    if path is None:
        pytest.skip("the kernels are not built; " + kernels.HOW_TO_BUILD)
    lib = ctypes.CDLL(path)
    lib.dance_pack.restype = ctypes.c_void_p
    lib.dance_unpack.argtypes = [ctypes.c_void_p]
    for function in (lib.dance_isa_name, lib.dance_isa_used, lib.dance_bf16_name, lib.dance_bf16_used):
        function.restype = ctypes.c_char_p
    return lib


def isas():
    """Names of all variants compiled in, supported here or not."""
    return _listed("dance_isa_count", "dance_isa_name")


def bf16_variants():
    """Names of all variants of bfloat16 compiled in, supported here or not."""
    return _listed("dance_bf16_count", "dance_bf16_name")


def _listed(count, name):
    path = kernels.library_path()
    if path is None:
        return ["not built"]
    lib = ctypes.CDLL(path)
    named = getattr(lib, name)
    named.restype = ctypes.c_char_p
    return [named(i).decode() for i in range(getattr(lib, count)())]


def forced(lib, variant):
    """Body of a fixture: `variant` is the one that runs; skips by name where this machine lacks it."""
    if not lib.dance_force_isa(variant.encode()):
        pytest.skip(f"this machine does not support {variant}")
    yield variant
    lib.dance_force_isa(None)


def block(lib, isa):
    """Output channels of one tile of an instruction set, or of a variant of bfloat16."""
    names, variants = isas(), bf16_variants()
    return lib.dance_isa_block(names.index(isa) if isa in names else lib.dance_bf16_isa(variants.index(isa)))


class Guarded:
    """A copy of an array with poison around it, at an odd address; `intact` tells whether the poison still stands."""

    def __init__(self, array, fill=None):
        array = np.asarray(array)
        array = array.view(np.uint8) if array.dtype == bool else array
        self.whole = np.full(array.size + 2 * GUARD + 1, POISON[array.dtype], array.dtype)
        self.inner = self.whole[GUARD + 1:GUARD + 1 + array.size].reshape(array.shape)
        self.inner[...] = array if fill is None else fill
        self.before = self.whole.tobytes()

    @property
    def pointer(self):
        return ctypes.c_void_p(self.inner.ctypes.data)

    def unchanged(self):
        return self.whole.tobytes() == self.before

    def intact(self):
        """Nothing outside the inner part was written."""
        end = (GUARD + 1 + self.inner.size) * self.whole.itemsize
        start = (GUARD + 1) * self.whole.itemsize
        now = self.whole.tobytes()
        return now[:start] == self.before[:start] and now[end:] == self.before[end:]


def to_layout(array, channels_last):
    return np.ascontiguousarray(np.transpose(array, (0, 2, 3, 4, 1))) if channels_last else np.ascontiguousarray(array)


def gated_conv3d(lib, x, w, b, masks, z=None, minimum=names.MIN_DEFAULT, channels_last=False, prepack=True, threads=1,
                 strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1), group=1, variant=0, used=None, bf16=False,
                 magnitudes=None, costs=None, pack=False):
    """x: [N, C, T, H, W], converted to the layout asked for; the result is converted back. Checks all buffers.

    variant, used, bf16, costs: as in c_api.h; used is a c_int32 or None, costs a str or None. magnitudes: a list that
    gets the two of y, or None; pack: weights are packed by a call of their own.
    """
    out = [(x.shape[2 + i] + pads[i] + pads[i + 3] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i] + 1
           for i in range(3)]
    y_shape = (x.shape[0], w.shape[0], *out)
    conv = Conv((ctypes.c_int64 * 5)(*x.shape), (ctypes.c_int64 * 5)(*w.shape), (ctypes.c_int64 * 3)(*strides),
                (ctypes.c_int64 * 6)(*pads), (ctypes.c_int64 * 3)(*dilations), group, channels_last,
                x.dtype == np.float16, masks[0].dtype == np.float32, prepack, threads, 1, minimum,
                variant, ctypes.pointer(used) if used is not None else None, bf16)
    conv.costs = None if costs is None else costs.encode()
    inputs = [Guarded(to_layout(x, channels_last)), Guarded(w), Guarded(b), *map(Guarded, masks)]
    z = None if z is None else Guarded(to_layout(z, channels_last))
    y = Guarded(np.empty(to_layout(np.empty(y_shape, x.dtype), channels_last).shape, x.dtype), fill=np.nan)
    means = Means(x.shape[0], w.shape[0], *out) if magnitudes is not None else None
    if means:
        conv.channel_magnitude, conv.pixel_magnitude = means.channel.inner.ctypes.data, means.pixel.inner.ctypes.data
    conv.packed = lib.dance_pack(ctypes.byref(conv), inputs[1].pointer) if pack else None
    status = lib.dance_gated_conv3d(ctypes.byref(conv), *(i.pointer for i in inputs), z.pointer if z else None,
                                    y.pointer, None)
    lib.dance_unpack(conv.packed)
    assert status == 0
    assert all(i.unchanged() for i in inputs) and (z is None or z.unchanged()), "an input was written"
    assert y.intact(), "written outside the output"
    if means:
        magnitudes[:] = means.arrays()
    return np.transpose(y.inner, (0, 4, 1, 2, 3)) if channels_last else y.inner


class Means:
    """struct DanceMagnitudes of kernels/cpu/c_api.h: the means that an op writes beside its output, poisoned."""

    def __init__(self, n, c, t, h, w):
        self.channel = Guarded(np.empty((n, t, c), np.float32), fill=-7)
        self.pixel = Guarded(np.empty((n, t, h, w), np.float32), fill=-7)

    @property
    def pointer(self):
        self._struct = (ctypes.c_void_p * 2)(self.channel.inner.ctypes.data, self.pixel.inner.ctypes.data)
        return self._struct

    def arrays(self):
        assert self.channel.intact() and self.pixel.intact(), "written outside the magnitudes"
        return [self.channel.inner, self.pixel.inner]


def to_channels_last(lib, x, threads=1):
    """x: [N, C, T, H, W] -> [N, T, H, W, C], and its magnitudes."""
    means = Means(*x.shape)
    taken, y = Guarded(x), Guarded(to_layout(np.zeros_like(x), True))
    status = lib.dance_to_channels_last((ctypes.c_int64 * 5)(*x.shape), int(x.dtype == np.float16), taken.pointer,
                                        y.pointer, means.pointer, threads)
    assert status == 0 and taken.unchanged() and y.intact()
    return y.inner, means.arrays()


def max_pool3d(lib, x, kernel, strides, pads, threads=1):
    """x: [N, C, T, H, W]; the result in the same layout, and its magnitudes."""
    out = [(x.shape[2 + i] + pads[i] + pads[i + 3] - kernel[i]) // strides[i] + 1 for i in range(3)]
    means = Means(*x.shape[:2], *out)
    taken, y = Guarded(to_layout(x, True)), Guarded(np.zeros((x.shape[0], *out, x.shape[1]), x.dtype))
    status = lib.dance_max_pool3d(
        (ctypes.c_int64 * 5)(*x.shape), (ctypes.c_int64 * 3)(*kernel), (ctypes.c_int64 * 3)(*strides),
        (ctypes.c_int64 * 6)(*pads), int(x.dtype == np.float16), taken.pointer, y.pointer,
        means.pointer, threads)
    assert status == 0 and taken.unchanged() and y.intact()
    return np.transpose(y.inner, (0, 4, 1, 2, 3)), means.arrays()


def activation_gate(lib, x, tau, channels_last=False, threads=1, magnitudes=None, kept=None):
    """x: [N, C, T, H, W]. The three masks as bool arrays; checks all buffers.

    magnitudes: the two of x that are given to the gate, or None; kept: a list that gets how many it keeps, [N, 3].
    """
    n, c, t, h, w = x.shape
    inputs = [Guarded(to_layout(x, channels_last)), Guarded(np.asarray(tau, np.float32))]
    masks = [Guarded(np.empty(shape, np.uint8), fill=7) for shape in ((n, t), (n, c), (n, h, w))]
    given, counts = None, np.full((n, 3), -1, np.int64)
    if magnitudes is not None:
        assert [m.shape for m in magnitudes] == [(n, t, c), (n, t, h, w)]
        given = (ctypes.c_void_p * 2)(*(m.ctypes.data for m in magnitudes))
    status = lib.dance_activation_gate((ctypes.c_int64 * 5)(*x.shape), int(channels_last), int(x.dtype == np.float16),
                                       *(a.pointer for a in inputs + masks), given,
                                       counts.ctypes.data_as(ctypes.c_void_p) if kept is not None else None, threads)
    assert status == 0
    if kept is not None:
        kept[:] = counts.tolist()
    assert all(i.unchanged() for i in inputs), "an input was written"
    assert all(m.intact() and m.inner.max() <= 1 for m in masks), "written outside a mask, or not 0 or 1"
    return [m.inner.astype(bool) for m in masks]
