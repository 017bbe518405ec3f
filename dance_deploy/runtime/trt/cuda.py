"""The little of CUDA that running an engine takes, by pycuda: one device, one stream, buffers, events.

Written for pycuda 2019 to 2026; the only module that imports it.
"""
import numpy as np

from dance_deploy.errors import OperationError

INSTALL = "run: PATH=/usr/local/cuda/bin:$PATH pip install pycuda (with JetPack 4: 'pycuda<2021.1')"

NO_GPU = ("look with nvidia-smi, on a Jetson run: sudo usermod -aG video $USER and log in again; without a GPU run "
          "bundles with: dance-run --backend onnxruntime")


class Device(object):
    """The first CUDA device, current on this thread until close(). name; compute_capability: (major, minor)."""

    def __init__(self):
        self._cuda = _driver()
        device = self._cuda.Device(0)
        self.name = device.name()
        self.compute_capability = tuple(device.compute_capability())
        # the context that TensorRT and every other library uses too, where this pycuda knows it
        if hasattr(device, "retain_primary_context"):
            self._context = device.retain_primary_context()
            self._context.push()
        else:
            self._context = device.make_context()
        self._stream = self._cuda.Stream()

    @property
    def stream(self):
        """The stream's CUDA handle."""
        return self._stream.handle

    def memory(self):
        """(free, total) bytes of device memory; on a Jetson that is the memory of all."""
        return self._cuda.mem_get_info()

    def buffer(self, shape, dtype):
        """A Buffer; raises OperationError where memory is short."""
        try:
            return Buffer(self._cuda, shape, dtype)
        except self._cuda.MemoryError as error:
            raise OperationError("device memory is full: no room for {} bytes more; close other programs".format(
                int(np.prod(shape)) * np.dtype(dtype).itemsize)) from error

    def upload(self, buffer, array):
        """Start copying a host array into a buffer; the array must stay as it is until synchronize()."""
        if array.shape != buffer.shape or array.dtype != buffer.dtype:
            raise ValueError("{} {} does not fit a buffer of {} {}".format(array.dtype, array.shape, buffer.dtype,
                                                                           buffer.shape))
        np.copyto(buffer.host, array)
        self._cuda.memcpy_htod_async(buffer.memory, buffer.host, self._stream)

    def download(self, buffer):
        """Start copying a buffer to its host side, buffer.host, which is right after synchronize()."""
        self._cuda.memcpy_dtoh_async(buffer.host, buffer.memory, self._stream)

    def synchronize(self):
        """Wait for the stream; raises OperationError where something on it failed."""
        try:
            self._stream.synchronize()
        except self._cuda.Error as error:
            raise OperationError("the GPU reports: {}; if it stays so, build the engines anew with dance-export "
                                 "BUNDLE --engine".format(error)) from error

    def timed(self, work):
        """Milliseconds on the device that the calls of work() take."""
        start, end = self._cuda.Event(), self._cuda.Event()
        start.record(self._stream)
        work()
        end.record(self._stream)
        self.synchronize()
        return end.time_since(start)

    def close(self):
        """Give the device back; buffers must be gone."""
        if self._context is not None:
            self._stream = None
            self._context.pop()
            detach = getattr(self._context, "detach", None)
            if detach is not None:
                detach()
            self._context = None


class Buffer(object):
    """Device memory of one tensor with page-locked host memory beside it."""

    def __init__(self, cuda, shape, dtype):
        self.shape = tuple(int(extent) for extent in shape)
        self.dtype = np.dtype(dtype)
        self.memory = cuda.mem_alloc(max(1, int(np.prod(self.shape)) * self.dtype.itemsize))
        try:
            self.host = cuda.pagelocked_empty(self.shape, self.dtype)
        except BaseException:
            self.memory.free()
            raise

    @property
    def address(self):
        """The device address."""
        return int(self.memory)

    def free(self):
        """Give the memory back, the page-locked one too: it must not outlive the context."""
        if self.memory is not None:
            self.memory.free()
            self.memory = self.host = None


def _driver():
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        if getattr(error, "name", None) in ("pycuda", "pycuda.driver"):
            raise OperationError("the backend 'tensorrt' needs the package 'pycuda', which is not installed; "
                                 + INSTALL) from None
        raise OperationError("pycuda is installed, but does not import ({}); {}".format(
            (str(error).splitlines() or ["unknown reason"])[0], INSTALL)) from error
    try:
        cuda.init()
        if cuda.Device.count() == 0:
            raise OperationError("there is no CUDA device here; " + NO_GPU)
    except cuda.Error as error:
        raise OperationError("CUDA does not start ({}); {}".format(str(error).splitlines()[0], NO_GPU)) from error
    return cuda
