"""An engine with its buffers on the device, ready to run again and again."""
import numpy as np

from dance_deploy.errors import OperationError
from dance_deploy.runtime.trt.cuda_graph import Graph


class Session(object):
    """One engine on one device.

    shared: {input: Buffer of another session}: read where it lies, without a copy over the host. close() it before the
    device, and before the session whose buffers it shares.
    """

    def __init__(self, api, device, plan, what, shared=None):
        shared = shared or {}
        self.what = what
        self._device = device
        self._engine = api.open_engine(plan, what)
        self._own = []
        self._graph = None
        self.buffers = {}
        self.inputs = [tensor.name for tensor in self._engine.tensors if tensor.is_input]
        self.outputs = [tensor.name for tensor in self._engine.tensors if not tensor.is_input]
        try:
            for tensor in self._engine.tensors:
                self.buffers[tensor.name] = self._buffer(tensor, shared.get(tensor.name))
        except BaseException:
            self.close()
            raise

    def _buffer(self, tensor, given):
        if given is not None:
            if (given.shape, given.dtype) != (tensor.shape, np.dtype(tensor.dtype)):
                raise OperationError("{}: input '{}' is {} {}, but is handed {} {}; build the engines anew".format(
                    self.what, tensor.name, tensor.dtype, list(tensor.shape), given.dtype, list(given.shape)))
            return given
        buffer = self._device.buffer(tensor.shape, tensor.dtype)
        self._own.append(buffer)
        return buffer

    def upload(self, feeds):
        """Start copying host arrays {input: array} to the device; types are converted to the engine's."""
        for name, array in feeds.items():
            if name not in self.buffers:
                raise OperationError("{}: the engine has no input '{}', it has {}; build the engines anew".format(
                    self.what, name, ", ".join(self.inputs)))
            buffer = self.buffers[name]
            self._device.upload(buffer, np.ascontiguousarray(array, buffer.dtype))

    def enqueue(self):
        """Start one run on the device's stream."""
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def capture(self):
        """From now on launch the run as one CUDA graph. Raises OperationError where this device or engine cannot."""
        self._enqueue()  # the first run sets things up, such as packed weights, that must not be in the graph
        self._device.synchronize()
        self._graph = Graph(self._device.stream, self._enqueue)

    def _enqueue(self):
        self._engine.enqueue({name: buffer.address for name, buffer in self.buffers.items()}, self._device.stream)

    def download(self, names):
        """Wait, and return host arrays of these tensors, each a copy of its own."""
        for name in names:
            if name not in self.buffers:
                raise OperationError("{}: the engine has no output '{}'; build the engines anew".format(
                    self.what, name))
            self._device.download(self.buffers[name])
        self._device.synchronize()
        return [self.buffers[name].host.copy() for name in names]

    def run(self, feeds, names=None):
        """{output: array} for host arrays; names: the outputs wanted, None for all."""
        self.upload(feeds)
        self.enqueue()
        names = self.outputs if names is None else names
        return dict(zip(names, self.download(names)))

    def close(self):
        """Let go of the engine, then of the buffers."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._engine.close()
        for buffer in self._own:
            buffer.free()
        self._own = []
        self.buffers = {}


def run_once(api, device, plan, what, feeds, names=None):
    """Load an engine, run it once on host arrays, let it go: {output: array}."""
    session = Session(api, device, plan, what)
    try:
        return session.run(feeds, names)
    finally:
        session.close()
