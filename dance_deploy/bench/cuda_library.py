"""The CUDA kernels by C calls (kernels/cuda/c_api.cu), for benchmarks and checks. Pointers are device addresses.

Python 3.6 syntax: kernels/cuda/tests/on_device.py uses it on a Jetson Nano.
"""
import ctypes
from typing import NamedTuple

from dance_deploy.errors import OperationError

AUTOMATIC, DIRECT, WINOGRAD, DEPTHWISE, PLAIN = range(5)  # dance::cuda::Algorithm
_VARIANT_BYTES = 64


class Conv(ctypes.Structure):
    """struct DanceCudaConv of c_api.cu."""

    _fields_ = [("x_shape", ctypes.c_int64 * 5), ("w_shape", ctypes.c_int64 * 5), ("strides", ctypes.c_int64 * 3),
                ("pads", ctypes.c_int64 * 6), ("dilations", ctypes.c_int64 * 3), ("group", ctypes.c_int64),
                ("channels_last", ctypes.c_int32), ("type", ctypes.c_int32), ("mask_type", ctypes.c_int32),
                ("algorithm", ctypes.c_int32), ("multiprocessors", ctypes.c_int32), ("minimum", ctypes.c_float)]


class Sizes(NamedTuple):
    """packed_bytes, workspace_bytes: of device memory; algorithm: the one taken; variant: the kernel's name."""

    packed_bytes: int
    workspace_bytes: int
    algorithm: int
    variant: str


class CudaLibrary(object):
    """libdance_cuda.so, or the same built for the host; raises OperationError where it does not load."""

    def __init__(self, path):
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise OperationError("'{}' does not load: {}; build it on this machine: make -C kernels/cuda library "
                                 "ARCH=sm_..".format(path, error)) from error
        self._library.dance_cuda_status.restype = ctypes.c_char_p
        self._library.dance_cuda_fma_peak.restype = ctypes.c_int64

    def conv_sizes(self, conv) -> Sizes:
        """What a geometry takes; raises OperationError where it is refused."""
        packed, workspace, algorithm = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int32()
        variant = ctypes.create_string_buffer(_VARIANT_BYTES)
        self._check(self._library.dance_cuda_conv_sizes(
            ctypes.byref(conv), ctypes.byref(packed), ctypes.byref(workspace), ctypes.byref(algorithm), variant,
            _VARIANT_BYTES), "the convolution")
        return Sizes(packed.value, workspace.value, algorithm.value, variant.value.decode())

    def pack_weights(self, conv, w, packed, stream):
        """Write packed weights, of the size that conv_sizes says, from W."""
        self._check(self._library.dance_cuda_pack_weights(ctypes.byref(conv), ctypes.c_void_p(w),
                                                          ctypes.c_void_p(packed), ctypes.c_void_p(stream)),
                    "packing weights")

    def conv(self, conv, tensors, workspace, workspace_bytes, stream):
        """Launch it. tensors: addresses of X, packed weights, B, the three masks, Z or None, Y."""
        pointers = (ctypes.c_void_p * 9)(*(list(tensors) + [workspace]))
        self._check(self._library.dance_cuda_conv(ctypes.byref(conv), pointers, ctypes.c_int64(workspace_bytes),
                                                  ctypes.c_void_p(stream)), "the convolution")

    def gate_workspace(self, shape, kinds) -> int:
        """Bytes. shape: N, C, T, H, W; kinds: channels_last, type (1: float16), mask type (1: float32)."""
        size = ctypes.c_int64()
        self._check(self._library.dance_cuda_gate_workspace((ctypes.c_int64 * 5)(*shape), (ctypes.c_int32 * 3)(*kinds),
                                                            ctypes.byref(size)), "the gate")
        return size.value

    def gate(self, shape, kinds, tensors, workspace_bytes, stream):
        """Launch it. tensors: addresses of X, tau, the three masks, the workspace."""
        self._check(self._library.dance_cuda_gate((ctypes.c_int64 * 5)(*shape), (ctypes.c_int32 * 3)(*kinds),
                                                  (ctypes.c_void_p * 6)(*tensors), ctypes.c_int64(workspace_bytes),
                                                  ctypes.c_void_p(stream)), "the gate")

    def fma_peak(self, out, blocks, stream) -> int:
        """Launch FMAs in registers and nothing else; how many that are. out: a float for each block."""
        return int(self._library.dance_cuda_fma_peak(ctypes.c_void_p(out), blocks, ctypes.c_void_p(stream)))

    def _check(self, status, what):
        if status:
            raise OperationError("{}: {} (CUDA error {})".format(
                what, self._library.dance_cuda_status(status).decode(), self._library.dance_cuda_last_error()))
