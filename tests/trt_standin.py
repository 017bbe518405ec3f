"""A strict stand-in for the modules tensorrt and pycuda, to run our device half where there is neither.

It knows one generation at a time and has that generation's names only (trt_api.json, read off the real bindings);
deprecated ones raise. It is stricter than the real thing: copies and runs happen when the stream is waited for, not
before; what is read without waiting is still poison; freed memory, objects that outlive what they lean on, inputs
without a shape and tensors without an address raise Misuse. Graphs are computed by the numpy definition of our ops, so
predictions are right end to end.
"""
import sys
import types
from importlib.machinery import ModuleSpec

from pycuda_standin import Driver, pycuda_module
from trt_standin_build import builder_class, parser_class
from trt_standin_run import runtime_class
from trt_world import LEVELS, VERSIONS, Member, enum, guarded, register_plugins

from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import cuda_graph


def install(monkeypatch, world):
    """Put the stand-in where imports find it; returns (tensorrt, pycuda.driver)."""
    trt, cuda = tensorrt_module(world), pycuda_module(world)
    package = types.ModuleType("pycuda")
    package.driver = cuda
    name = "tensorrt_rtx" if world.generation == "rtx" else "tensorrt"
    for other in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx_libs"):
        monkeypatch.setitem(sys.modules, other, None)  # an import of it fails
    for key, module in ((name, trt), ("pycuda", package), ("pycuda.driver", cuda)):
        module.__spec__ = ModuleSpec(key, None)
        monkeypatch.setitem(sys.modules, key, module)

    def load(path, mode=0):
        register_plugins(world, path)
        return object()

    monkeypatch.setattr(cuda_graph, "_driver", lambda: Driver(world))
    monkeypatch.setattr(trt_api, "ctypes", types.SimpleNamespace(CDLL=load, RTLD_GLOBAL=256))
    return trt, cuda


def plugin_bytes(generation, note=b""):
    """A library built for a generation; note: to tell two of them apart."""
    old = LEVELS[generation] < (10, 0)
    return b"plugin %s\0IPluginV%d, TensorRT %d.%d.0\0" % ((note, 2 if old else 3) + LEVELS[generation])


def tensorrt_module(world):
    trt = types.ModuleType("tensorrt")
    trt.__version__ = VERSIONS[world.generation]
    for name in ("BuilderFlag", "DataType", "LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag",
                 "TensorIOMode"):
        if name in world.names:
            setattr(trt, name, enum(world, name))
    trt.float32, trt.float16 = trt.DataType.FLOAT, trt.DataType.HALF

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self):
            self._initialised = True

    class Registry(guarded(world, "IPluginRegistry")):
        def load_library(self, path):
            try:
                register_plugins(world, path)
            except OSError:
                return None
            return object()

        def get_creator(self, kind, version, namespace=""):
            return object() if kind in world.plugins and (version, namespace) == ("1", "") else None

        get_plugin_creator = get_creator

    class Monitor:
        def __init__(self):
            pass

    if "IProgressMonitor" in world.names:
        trt.IProgressMonitor = Monitor
    if world.generation == "rtx":
        trt.ComputeCapability = type("ComputeCapability", (), {"__members__": {
            name: Member(i, name) for i, name in enumerate(("SM75", "SM80", "SM86", "SM89", "SM120", "SM121"))}})
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    trt.ILogger = ILogger
    trt.Builder, trt.OnnxParser = builder_class(world, trt), parser_class(world)
    trt.Runtime = runtime_class(world, trt)
    return trt
