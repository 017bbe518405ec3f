"""A strict stand-in for pycuda.driver: memory by address, streams that do nothing until they are waited for."""
import types
import weakref

import numpy as np


class Misuse(AssertionError):
    """A call that the real modules do not allow, or allow and then compute nonsense."""


def pycuda_module(world):
    cuda = types.ModuleType("pycuda.driver")
    cuda.Error = type("Error", (Exception,), {})
    cuda.MemoryError = type("MemoryError", (cuda.Error,), {})

    def init():
        if world.gpus == 0:
            raise cuda.Error("cuInit failed: no CUDA-capable device is detected")

    class Device:
        def __init__(self, index):
            if index >= world.gpus:
                raise cuda.Error("invalid device ordinal")

        @staticmethod
        def count():
            return world.gpus

        def name(self):
            return world.device

        def compute_capability(self):
            return world.capability

        def retain_primary_context(self):
            return Context()

    class Context:
        def push(self):
            world.contexts.append(self)

        def pop(self):
            if not world.contexts or world.contexts[-1] is not self:
                raise Misuse("a context is popped that is not the current one")
            if world.regions:
                world.violations.append("the context went with device memory still allocated")
            if any(array() is not None for array in world.pinned):
                world.violations.append("the context went before page-locked memory")
            del world.pinned[:]
            world.contexts.pop()

        def detach(self):
            pass

    class Stream:
        def __init__(self):
            world.need_context()
            self.handle = 0x51000 + len(world.streams)
            self._queue = []
            self._recorded = None    # the queue that stood before, while a graph is recorded
            world.streams[self.handle] = weakref.ref(self)

        def synchronize(self):
            world.need_context()
            if self._recorded is not None:
                raise Misuse("a stream is waited for while it is recorded")
            queue, self._queue[:] = list(self._queue), []
            for work in queue:
                work()

    class Event:
        def __init__(self):
            self._time = None

        def record(self, stream=None):
            self._time = None

            def done():
                self._time = world.clock_ms
            stream._queue.append(done)

        def time_since(self, earlier):
            if self._time is None or earlier._time is None:
                raise cuda.Error("cuEventElapsedTime failed: not ready")
            return self._time - earlier._time

    class Allocation:
        def __init__(self, address):
            self._address = address

        def __int__(self):
            return self._address

        def free(self):
            if self._address not in world.regions:
                raise Misuse("memory is freed twice")
            del world.regions[self._address]

    class PagelockedArray(np.ndarray):
        pass

    def mem_alloc(nbytes):
        world.need_context()
        if sum(len(r) for r in world.regions.values()) + nbytes > world.memory_bytes:
            raise cuda.MemoryError("cuMemAlloc failed: out of memory")
        address, world.next_address = world.next_address, world.next_address + nbytes + 512
        world.regions[address] = bytearray(b"\xff" * nbytes)  # NaN in every float
        return Allocation(address)

    def pagelocked_empty(shape, dtype):
        world.need_context()
        array = np.empty(shape, dtype).view(PagelockedArray)
        array.view(np.uint8).reshape(-1)[...] = 0xff if array.dtype != np.bool_ else 1
        world.pinned.append(weakref.ref(array))
        return array

    def copy(stream, array, work, what):
        if not isinstance(array, PagelockedArray):
            raise Misuse(f"{what}: an asynchronous copy needs page-locked memory")
        stream._queue.append(work)

    def memcpy_htod_async(dest, src, stream=None):
        address = int(dest)

        def work():
            world.region(address, src.nbytes, "copy to the device")[:src.nbytes] = src.tobytes()
        copy(stream, src, work, "memcpy_htod_async")

    def memcpy_dtoh_async(dest, src, stream=None):
        address = int(src)

        def work():
            data = world.region(address, dest.nbytes, "copy to the host")[:dest.nbytes]
            world.copied_to_host.append(dest.shape)
            dest[...] = np.frombuffer(bytes(data), dest.dtype).reshape(dest.shape)
        copy(stream, dest, work, "memcpy_dtoh_async")

    def mem_get_info():
        world.need_context()
        return world.memory_bytes - sum(len(r) for r in world.regions.values()), world.memory_bytes

    for thing in (init, Device, Context, Stream, Event, mem_alloc, pagelocked_empty, memcpy_htod_async,
                  memcpy_dtoh_async, mem_get_info):
        setattr(cuda, thing.__name__, thing)
    return cuda


class Driver:
    """The part of libcuda that CUDA graphs need. cuGraphInstantiate as in CUDA 10.2; new: also what came in 11.4."""

    def __init__(self, world, new=False):
        self._world = world
        if new:
            self.cuGraphInstantiateWithFlags = self._with_flags

    def cuStreamBeginCapture_v2(self, stream, mode):
        stream = self._world.streams[stream.value]()
        if self._world.no_graphs:
            return 900
        stream._recorded, stream._queue = stream._queue, []
        return 0

    def cuStreamEndCapture(self, stream, graph):
        stream = self._world.streams[stream.value]()
        if stream._recorded is None:
            return 901
        graph._obj.value = self._keep(stream._queue)
        stream._queue, stream._recorded = stream._recorded, None
        return 0

    def cuGraphInstantiate(self, made, graph, node, log, size):
        made._obj.value = self._keep(self._world.graphs[graph.value])
        return 0

    def _with_flags(self, made, graph, flags):
        return self.cuGraphInstantiate(made, graph, None, None, None)

    def cuGraphLaunch(self, graph, stream):
        if graph.value not in self._world.graphs:
            raise Misuse("a CUDA graph is launched that is gone")
        self._world.launches += 1
        self._world.streams[stream.value]()._queue.extend(self._world.graphs[graph.value])
        return 0

    def cuGraphDestroy(self, graph):
        del self._world.graphs[graph.value]
        return 0

    cuGraphExecDestroy = cuGraphDestroy

    def _keep(self, work):
        handle = 0x9000 + self._world.next_address % 4096 + 16 * len(self._world.graphs)
        while handle in self._world.graphs:
            handle += 8
        self._world.graphs[handle] = list(work)
        return handle
