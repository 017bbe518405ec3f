"""A strict stand-in for a GPU under torch: streams, events, graphs. The kernels are the real ones, built for the host.

While a graph is captured nothing may wait or be read; launches must be on the stream that captures; an event's time
needs both events recorded and the last one waited for. Time passes by what is launched, as `costs` says.
"""
import contextlib
import types

import torch

from dance_deploy.bench import cuda_gpu
from dance_deploy.bench.cuda_library import CudaLibrary


class Misuse(AssertionError):
    """A call that CUDA or torch would not take, or that would measure something else."""


class World:
    """What the device is doing. costs: {kind of launch: ms}; launched: kinds, in order."""

    def __init__(self, costs):
        self.costs, self.clock_ms, self.launched = costs, 0.0, []
        self.streams, self.capturing = [0x10], None

    def launch(self, kind, work, stream):
        """Do it now, or record it."""
        if stream != self.streams[-1]:
            raise Misuse(f"{kind} is launched on another stream than the current one")
        self.launched.append(kind)
        if self.capturing is not None:
            self.capturing.append((kind, work))
        else:
            self.clock_ms += self.costs.get(kind, 0.0)
        return work()  # in a capture too: what a graph writes is looked at after a replay

    def no_capture(self, what):
        if self.capturing is not None:
            raise Misuse(f"{what} while a graph is captured")


class Library(CudaLibrary):
    """Our library on the host, launches by the world's rules."""

    def __init__(self, path, world):
        super().__init__(path)
        self.world = world

    def conv(self, conv, tensors, workspace, workspace_bytes, stream):
        variant = self.conv_sizes(conv).variant
        self.world.launch(variant, lambda: super(Library, self).conv(conv, tensors, workspace, workspace_bytes, None),
                          stream)

    def gate(self, shape, kinds, tensors, workspace_bytes, stream):
        self.world.launch("gate", lambda: CudaLibrary.gate(self, shape, kinds, tensors, workspace_bytes, None), stream)

    def pack_weights(self, conv, w, packed, stream):
        self.world.no_capture("packing weights")
        self.world.launch("pack", lambda: CudaLibrary.pack_weights(self, conv, w, packed, None), stream)

    def fma_peak(self, out, blocks, stream):
        return self.world.launch("peak", lambda: 1000 * blocks, stream)


class Event:
    def __init__(self, world, enable_timing=False):
        self.world, self.timing, self.at, self.waited = world, enable_timing, None, False

    def record(self):
        self.world.no_capture("timing")
        self.at = self.world.clock_ms

    def synchronize(self):
        self.world.no_capture("waiting")
        self.waited = True

    def elapsed_time(self, end):
        if not (self.timing and end.timing) or self.at is None or end.at is None or not end.waited:
            raise Misuse("the time between events that are not both recorded with timing and waited for")
        return end.at - self.at


class Graph:
    def __init__(self, world):
        self.world, self.work = world, None

    def replay(self):
        self.world.no_capture("a replay")
        if not self.work:
            raise Misuse("a graph in which nothing was captured is replayed")
        for kind, work in self.work:
            self.world.launched.append(kind)
            self.world.clock_ms += self.world.costs.get(kind, 0.0)
            work()


def torch_of(world, capability=(8, 7)):
    """torch with a GPU: its tensors are the CPU's."""
    standin = types.ModuleType("torch")
    standin.__getattr__ = lambda name: getattr(torch, name)
    cuda = standin.cuda = types.SimpleNamespace()
    standin.version = types.SimpleNamespace(cuda="12.6")
    standin.__version__ = "2.9.0+cu126"
    standin.backends = types.SimpleNamespace(
        cudnn=types.SimpleNamespace(allow_tf32=True, benchmark=False, version=lambda: 90100),
        cuda=types.SimpleNamespace(matmul=types.SimpleNamespace(allow_tf32=True)))

    def stream_object(handle):
        return types.SimpleNamespace(cuda_stream=handle, wait_stream=lambda other: world.no_capture("waiting"))

    @contextlib.contextmanager
    def on_stream(stream):
        world.streams.append(stream.cuda_stream)
        yield
        world.streams.pop()

    @contextlib.contextmanager
    def capture(graph):
        if len(world.streams) > 1:
            raise Misuse("a capture inside another stream's block")
        world.capturing, graph.work = [], []
        world.streams.append(0x77)
        yield
        world.streams.pop()
        graph.work, world.capturing = world.capturing, None

    cuda.is_available = lambda: True
    cuda.get_device_capability = lambda: capability
    cuda.get_device_properties = lambda index: types.SimpleNamespace(name="Orin", multi_processor_count=2)
    cuda.Stream = lambda: stream_object(0x20)
    cuda.current_stream = lambda: stream_object(world.streams[-1])
    cuda.stream, cuda.graph = on_stream, capture
    cuda.synchronize = lambda: world.no_capture("waiting")
    cuda.CUDAGraph = lambda: Graph(world)
    cuda.Event = lambda enable_timing=False: Event(world, enable_timing)

    def cudnn(name):
        def call(*args, **kwargs):
            made = getattr(torch.nn.functional, name)(*args, **kwargs)
            return world.launch(name, lambda: made, world.streams[-1])
        return call

    functional = types.SimpleNamespace(pad=torch.nn.functional.pad, conv3d=cudnn("conv3d"), conv2d=cudnn("conv2d"))
    standin.nn = types.SimpleNamespace(functional=functional)
    return standin


def gpu_on_host(path, world, monkeypatch):
    """A cuda_gpu.Gpu over the stand-in."""
    monkeypatch.setattr(cuda_gpu.Gpu, "device", "cpu")
    gpu = cuda_gpu.Gpu(Library(path, world))
    gpu.torch = torch_of(world)
    return gpu
