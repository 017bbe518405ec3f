"""A strict stand-in for the modules tensorrt and pycuda, to run our device half where there is neither.

It knows one generation at a time and has that generation's names only (trt_api.json, read off the real bindings);
deprecated ones raise. It is stricter than the real thing: copies and runs happen when the stream is waited for, not
before; what is read without waiting is still poison; freed memory, objects that outlive what they lean on, inputs
without a shape and tensors without an address raise Misuse. Graphs are computed by the numpy definition of our ops, so
predictions are right end to end.
"""
import json
import sys
import types
import weakref
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from pycuda_standin import Driver, Misuse, pycuda_module

from dance_deploy.ops import names as op_names
from dance_deploy.runtime.reference_backend import evaluator_from_bytes
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import cuda_graph

API = json.loads(Path(__file__).with_name("trt_api.json").read_text())
VERSIONS = {"8.2": "8.2.1.8", "8.4": "8.4.1.5", "8.6": "8.6.1", "10": "10.3.0", "11": "11.1.0.106", "rtx": "1.7.1.116"}
LEVELS = {"8.2": (8, 2), "8.4": (8, 4), "8.6": (8, 6), "10": (10, 3), "11": (11, 1), "rtx": (11, 1)}
OLDEST_OPSET_REFUSED = {"8.2": 14, "8.4": 18, "8.6": 18, "10": 23, "11": 26, "rtx": 26}
HALF_MAX = float(np.finfo(np.float16).max)
_MARK = b"STANDIN-PLAN"


class World:
    """One machine: a GPU, the TensorRT on it, and all that went wrong without an exception."""

    def __init__(self, generation, device="NVIDIA Tegra X1", capability=(5, 3), memory_bytes=4 << 30):
        self.generation, self.device, self.capability = generation, device, capability
        self.level = LEVELS[generation]
        self.memory_bytes = memory_bytes
        self.names = API[generation]
        self.regions = {}           # device address -> bytes
        self.next_address = 0x7000000
        self.contexts = []          # CUDA contexts that are pushed
        self.streams = {}
        self.clock_ms = 0.0
        self.cost_ms = lambda model: 1.0
        self.damage = lambda name, value: value   # changes a tensor on its way, as broken arithmetic would
        self.plugins = set()
        self.builds = []            # (what was parsed, config) of every engine built
        self.violations = []        # found where an exception would be swallowed, such as in __del__
        self.copied_to_host = []
        self.graphs = {}            # handle -> recorded work of CUDA graphs
        self.launches, self.no_graphs = 0, False
        self.pinned = []            # weak references to page-locked memory
        self.gpus = 1
        self.fail_build = None

    def region(self, address, nbytes, what):
        if address not in self.regions:
            raise Misuse(f"{what}: {address:#x} is no device memory that is allocated")
        if len(self.regions[address]) < nbytes:
            raise Misuse(f"{what}: needs {nbytes} bytes, the memory has {len(self.regions[address])}")
        return self.regions[address]

    def need_context(self):
        if not self.contexts:
            raise Misuse("no CUDA context is current")

    def settled(self):
        """To be asked at the end of a test: nothing was misused, nothing is left behind."""
        assert self.violations == []
        assert self.regions == {} and self.contexts == [] and self.graphs == {}


def guarded(world, name):
    """A base class that has only the names that `name` has in this generation."""
    known = world.names.get(name)
    if known is None:
        return None
    allowed, deprecated = set(known["names"]), set(known["deprecated"])

    def check(attribute):
        if attribute.startswith("_"):
            return
        if attribute not in allowed:
            raise AttributeError(f"'{name}' of TensorRT {world.generation} has no attribute '{attribute}'")
        if attribute in deprecated:
            raise Misuse(f"{name}.{attribute} is deprecated in TensorRT {world.generation}")

    class Guarded:
        def __getattribute__(self, attribute):
            check(attribute)
            return object.__getattribute__(self, attribute)

        def __setattr__(self, attribute, value):
            check(attribute)
            if not attribute.startswith("_") and not hasattr(type(self), attribute):
                raise Misuse(f"the stand-in does not know what {name}.{attribute} = ... does")
            object.__setattr__(self, attribute, value)

    return Guarded


class Member(int):
    """A value of an enum: an int with a name, as py::arithmetic enums are."""

    def __new__(cls, value, name):
        self = int.__new__(cls, value)
        self.name = name
        return self

    def __repr__(self):
        return self.name

    def __hash__(self):
        return hash((int(self), self.name))

    def __eq__(self, other):
        return isinstance(other, Member) and (int(self), self.name) == (int(other), other.name)


def enum(world, name):
    members = [n for n in world.names.get(name, {"names": []})["names"] if n.isupper() or n[0].isupper()]
    made = type(name, (), {n: Member(i, n) for i, n in enumerate(members)})
    made.__members__ = {n: getattr(made, n) for n in members}
    return made


class HostMemory(bytearray):
    """IHostMemory: a buffer, and no bytes."""

    @property
    def nbytes(self):
        return memoryview(self).nbytes

    def __len__(self):
        raise Misuse("IHostMemory has no length; take its memoryview")

    def __add__(self, other):
        raise Misuse("IHostMemory is no bytes")

    __getitem__ = __iter__ = decode = __add__


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
        _register(world, path)
        return object()

    monkeypatch.setattr(cuda_graph, "_driver", lambda: Driver(world))
    monkeypatch.setattr(trt_api, "ctypes", types.SimpleNamespace(CDLL=load, RTLD_GLOBAL=256))
    return trt, cuda


def plugin_bytes(generation, note=b""):
    """A library built for a generation; note: to tell two of them apart."""
    old = LEVELS[generation] < (10, 0)
    return b"plugin %s\0IPluginV%d, TensorRT %d.%d.0\0" % ((note, 2 if old else 3) + LEVELS[generation])


def _register(world, path):
    text = Path(path).read_bytes()
    if not text.startswith(b"plugin"):
        raise OSError(f"{path}: invalid ELF header")
    suits = (1, 11) if world.generation == "rtx" else world.level[:1]
    if not any(f"TensorRT {major}.".encode() in text for major in suits):
        raise Misuse("a plugin library of another generation is loaded, which may end the process")
    world.plugins |= set(op_names.OP_TYPES)


_LAYER = {"Conv": "CONVOLUTION", "Relu": "ACTIVATION", "Clip": "ACTIVATION", "Sigmoid": "ACTIVATION",
          "ReduceMean": "REDUCE", "ReduceSum": "REDUCE", "ReduceMax": "REDUCE", "GlobalAveragePool": "REDUCE",
          "MaxPool": "POOLING", "Add": "ELEMENTWISE", "Mul": "ELEMENTWISE", "Div": "ELEMENTWISE", "Sub": "ELEMENTWISE",
          "Max": "ELEMENTWISE", "Less": "ELEMENTWISE", "And": "ELEMENTWISE", "Gemm": "MATRIX_MULTIPLY",
          "MatMul": "MATRIX_MULTIPLY", "Log": "UNARY", "Not": "UNARY", "Abs": "UNARY", "Cast": "IDENTITY",
          "Concat": "CONCATENATION", "Gather": "GATHER", "Where": "SELECT", "Constant": "CONSTANT", "Split": "SLICE"}
_HALVED = ("Conv", op_names.GATED_CONV3D, op_names.GATED_CONV3D_ADD)


def tensorrt_module(world):
    trt = types.ModuleType("tensorrt")
    trt.__version__ = VERSIONS[world.generation]
    for name in ("BuilderFlag", "DataType", "LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag",
                 "TensorIOMode"):
        if name in world.names:
            setattr(trt, name, enum(world, name))
    trt.float32, trt.float16 = trt.DataType.FLOAT, trt.DataType.HALF
    old = world.level < (10, 0)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self):
            self._initialised = True

    def dtype(array):
        names = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "bool": "BOOL",
                 "int64": "INT32" if old else "INT64"}  # TensorRT 8 has no 64-bit integers, its parser narrows them
        return getattr(trt.DataType, names[array.dtype.name])

    class Tensor(guarded(world, "ITensor")):
        name = dtype = shape = None

        def __init__(self, name, array):
            self.name, self.dtype, self.shape = name, dtype(array), tuple(array.shape)

    class Layer(guarded(world, "ILayer")):
        name = type = num_outputs = precision = None

        def __init__(self, node, tensors):
            self.name, self._node = node.name, node
            kind = _LAYER.get(node.op_type, "SHUFFLE")
            if node.domain == op_names.DOMAIN:
                kind = "PLUGIN_V2" if old else "PLUGIN_V3"
            self.type = getattr(trt.LayerType, kind)
            self.num_outputs = len(node.output)
            self._outputs = [Tensor(name, tensors[name]) for name in node.output]
            self._output_types = {}

        def get_output(self, index):
            return self._outputs[index]

        def set_output_type(self, index, kind):
            self._output_types[index] = kind

    class Network(guarded(world, "INetworkDefinition")):
        num_inputs = num_outputs = num_layers = None

        def __init__(self, builder, flags):
            self._builder = weakref.ref(builder)
            self._flags = flags
            self._parser = lambda: None
            self._inputs, self._outputs, self._layers, self._model = [], [], [], None

        def get_input(self, index):
            return self._inputs[index]

        def get_output(self, index):
            return self._outputs[index]

        def get_layer(self, index):
            return self._layers[index]

        def __setattr__(self, attribute, value):
            object.__setattr__(self, attribute, value)

    class ParserError(guarded(world, "ParserError")):
        def __init__(self, node, text):
            self._values = node, text

        def node(self):
            return self._values[0]

        def desc(self):
            return self._values[1]

    class OnnxParser(guarded(world, "OnnxParser")):
        num_errors = 0

        def __init__(self, network, logger):
            if not getattr(logger, "_initialised", False):
                raise TypeError("ILogger.__init__ was not called")
            self._network, self._errors = network, []
            network._parser = weakref.ref(self)

        def parse(self, model):
            if not isinstance(model, (bytes, bytearray, memoryview)):
                raise TypeError("parse(): incompatible function arguments")
            parsed = onnx.load_from_string(bytes(model))
            error = self._refusal(parsed)
            if error is not None:
                self._errors.append(ParserError(*error))
                self.num_errors = 1
                return False
            fill(self._network, parsed)
            return True

        def _refusal(self, model):
            opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
            if opset >= OLDEST_OPSET_REFUSED[world.generation]:
                return -1, f"opset {opset} is not known"
            functions = {(f.domain, f.name) for f in model.functions}
            for index, node in enumerate(model.graph.node):
                if node.input and node.input[-1] == "":
                    return index, "Assertion failed: tensors.count(inputName)"
                if node.domain == op_names.DOMAIN:
                    if node.op_type not in world.plugins:
                        if functions and not old:
                            raise Misuse("the parser takes the function and ignores strides given by reference")
                        return index, f"No importer registered for op: {node.op_type}"
                    attributes = {a.name: a for a in node.attribute}
                    if functions and not old and "plugin_namespace" not in attributes:
                        raise Misuse("the parser takes the function before the plugin")
                    unknown = set(attributes) - {"plugin_version", "plugin_namespace", "min", "strides", "pads",
                                                 "dilations", "group"}
                    if unknown:
                        return index, f"attributes {unknown}"
                    if old and functions:
                        raise Misuse("TensorRT 8 reads no functions: they only cost memory")
                    masks = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
                    made = [masks[name] for name in node.output if node.op_type in op_names.GATES and name in masks]
                    if old and TensorProto.BOOL in made:
                        return index, "kBOOL is not supported at a plugin's border"
                    if not old and TensorProto.FLOAT in made:
                        return index, "the output is declared FLOAT and the plugin makes BOOL"
            return None

        def get_error(self, index):
            return self._errors[index]

    def fill(network, model):
        """Layers and tensors of a parsed model; types and shapes by computing it once."""
        network._model = model
        values = computed(world, model, {i.name: np.ones([d.dim_value or 1 for d in i.type.tensor_type.shape.dim],
                                                         np_type(i)) for i in model.graph.input})
        for node in model.graph.node:
            if old and node.op_type.startswith("Reduce") and values[node.input[0]].dtype.kind != "f":
                raise Misuse(f"{node.name}: TensorRT 8 reduces floats only")
        network._inputs = [Tensor(i.name, values[i.name]) for i in model.graph.input]
        for tensor, info in zip(network._inputs, model.graph.input):
            object.__setattr__(tensor, "shape", tuple(d.dim_value or -1 for d in info.type.tensor_type.shape.dim))
        network._outputs = [Tensor(o.name, values[o.name]) for o in model.graph.output]
        network._layers = [Layer(node, values) for node in model.graph.node]
        network.num_inputs, network.num_outputs = len(network._inputs), len(network._outputs)
        network.num_layers = len(network._layers)

    class TimingCache(guarded(world, "ITimingCache")):
        def __init__(self, data, device):
            self._data, self._device = data, device

        def serialize(self):
            return HostMemory(self._data)

    class Config(guarded(world, "IBuilderConfig")):
        max_workspace_size = progress_monitor = None
        num_compute_capabilities = 0

        def __init__(self):
            self._flags, self._limits, self._cache = {"TF32"}, {}, None
            self._capability = None

        def set_flag(self, flag):
            self._flags.add(flag.name)

        def clear_flag(self, flag):
            self._flags.discard(flag.name)

        def get_flag(self, flag):
            return flag.name in self._flags

        def set_memory_pool_limit(self, pool, size):
            if not isinstance(size, int) or size <= 0:
                raise TypeError("set_memory_pool_limit")
            self._limits[pool.name] = size

        def create_timing_cache(self, data):
            return TimingCache(bytes(data), None)

        def set_timing_cache(self, cache, ignore_mismatch):
            if cache._data and not cache._data.startswith(_cache_head(world)) and not ignore_mismatch:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

        def set_compute_capability(self, capability, index):
            if index >= self.num_compute_capabilities:
                return False
            self._capability = capability.name
            return True

    class Builder(guarded(world, "Builder")):
        def __init__(self, logger):
            if not getattr(logger, "_initialised", False):
                raise TypeError("ILogger.__init__ was not called")
            if world.generation != "rtx":
                world.need_context()
            self._logger = weakref.ref(logger)
            self._configs = weakref.WeakSet()

        def create_network(self, flags=0):
            explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if old else None
            if old and not flags & explicit:
                raise Misuse("the ONNX parser needs EXPLICIT_BATCH here")
            if not old and world.level < (11, 0) and flags != 1 << int(
                    trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
                raise Misuse("flags are not STRONGLY_TYPED alone")
            if world.level >= (11, 0) and flags:
                raise Misuse("a flag that is deprecated in 11")
            return Network(self, flags)

        def create_builder_config(self):
            config = Config()
            self._configs.add(config)
            return config

        def build_serialized_network(self, network, config):
            if network._builder() is not self or config not in self._configs:
                raise Misuse("network or config of another builder")
            if network._parser() is None:
                raise Misuse("the parser, which owns the weights, is gone before the build")
            if self._logger() is None:
                raise Misuse("the logger is gone")
            if world.generation == "8.2":
                if not config.max_workspace_size:
                    raise Misuse("no limit for the workspace")
            elif not config._limits.get("WORKSPACE"):
                raise Misuse("no limit for the workspace")
            if world.generation == "rtx" and config._capability is None:
                raise Misuse("RTX builds for the GPU that is there unless a compute capability is named")
            if any(-1 in tensor.shape for tensor in network._inputs):
                self._logger().log(ILogger.ERROR, "Network has dynamic or shape inputs, but no optimization profile")
                return None
            monitor = getattr(config, "progress_monitor", None) if "progress_monitor" in world.names[
                "IBuilderConfig"]["names"] else None
            if monitor is not None:
                monitor.phase_start("Building engine", None, 2)
                for step in range(2):
                    if not monitor.step_complete("Building engine", step):
                        self._logger().log(ILogger.ERROR, "build cancelled")
                        return None
                monitor.phase_finish("Building engine")
            if world.fail_build is not None:
                self._logger().log(ILogger.ERROR, world.fail_build)
                return None
            world.builds.append((network._model, config, {layer.name: layer for layer in network._layers}))
            if config._cache is not None:
                config._cache._data = _cache_head(world) + b"%d" % len(world.builds)
            head = {"version": trt.__version__, "capability": list(world.capability)}
            model = rounded(network, config) if old and "FP16" in config._flags else network._model
            return HostMemory(_MARK + json.dumps(head).encode() + b"\n" + model.SerializeToString())

    def rounded(network, config):
        """What a weakly typed FP16 build computes: outputs of layers that are not pinned are rounded to half."""
        if "OBEY_PRECISION_CONSTRAINTS" not in config._flags:
            raise Misuse("without OBEY_PRECISION_CONSTRAINTS pinned layers are a wish")
        model = onnx.ModelProto()
        model.CopyFrom(network._model)
        nodes = []
        for node, layer in zip(network._model.graph.node, network._layers):
            node = onnx.NodeProto.FromString(node.SerializeToString())
            nodes.append(node)
            # "any layer but shuffles may be halved" would be real; these are those that matter
            free = layer.precision is None and layer._outputs[0].dtype == trt.float32 and (
                node.op_type in _HALVED + ("Relu", "ReduceMean", "ReduceSum", "Gemm", "MatMul", "Log", "Div", "Mul"))
            if free:
                output = node.output[0]
                node.output[0] = output + "/rounding"
                nodes += [helper.make_node("Cast", [node.output[0]], [output + "/rounded"], to=TensorProto.FLOAT16),
                          helper.make_node("Cast", [output + "/rounded"], [output], to=TensorProto.FLOAT)]
            elif layer.precision is not None and layer._output_types.get(0) != layer.precision:
                raise Misuse("a layer's precision is set and its output's type is not")
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model

    class Runtime(guarded(world, "Runtime")):
        def __init__(self, logger):
            if not getattr(logger, "_initialised", False):
                raise TypeError("ILogger.__init__ was not called")
            world.need_context()
            self._logger = weakref.ref(logger)
            self._engines = weakref.WeakSet()

        def deserialize_cuda_engine(self, plan):
            data = bytes(memoryview(plan))
            if not data.startswith(_MARK):
                self._logger().log(ILogger.ERROR, "deserializeCudaEngine: Error Code 1: magic tag does not match")
                return None
            head, _, body = data[len(_MARK):].partition(b"\n")
            head = json.loads(head.decode())
            if head["version"] != trt.__version__:
                self._logger().log(ILogger.ERROR, "The engine plan file is not compatible with this version")
                return None
            if tuple(head["capability"]) != tuple(world.capability):
                raise Misuse("an engine of another device is loaded")
            model = onnx.load_from_string(body)
            needed = {node.op_type for node in model.graph.node if node.domain == op_names.DOMAIN}
            if not needed <= world.plugins:
                self._logger().log(ILogger.ERROR, f"getPluginCreator could not find plugin {sorted(needed)[0]}")
                return None
            engine = Engine(self, model)
            self._engines.add(engine)
            return engine

        def __del__(self):
            if len(self._engines):
                world.violations.append("a runtime went before its engine")

    class Engine(guarded(world, "ICudaEngine")):
        num_bindings = num_io_tensors = num_layers = num_optimization_profiles = None

        def __init__(self, runtime, model):
            self._model = model
            self._runtime = weakref.ref(runtime)
            ones = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np_type(i))
                    for i in model.graph.input}
            values = computed(world, model, ones)
            self._types = {i.name: (True, dtype(ones[i.name]), tuple(ones[i.name].shape)) for i in model.graph.input}
            self._types.update((o.name, (False, dtype(values[o.name]), tuple(values[o.name].shape)))
                               for o in model.graph.output)
            # an order that nobody may rely on
            self._order = sorted(self._types, key=lambda name: name[::-1])
            self.num_bindings = self.num_io_tensors = len(self._order)
            self._contexts = weakref.WeakSet()

        def __setattr__(self, attribute, value):
            object.__setattr__(self, attribute, value)

        def create_execution_context(self):
            context = Context(self)
            self._contexts.add(context)
            return context

        def get_binding_name(self, index):
            return self._order[index]

        def get_binding_index(self, name):
            return self._order.index(name) if name in self._order else -1

        def _at(self, key):
            return self._types[self._order[key] if isinstance(key, int) else key]

        def binding_is_input(self, key):
            return self._at(key)[0]

        def get_binding_dtype(self, key):
            return self._at(key)[1]

        def get_binding_shape(self, key):
            return self._at(key)[2]

        def get_tensor_name(self, index):
            return self._order[index]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if self._types[name][0] else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return self._types[name][1]

        def get_tensor_shape(self, name):
            return self._types[name][2]

        def __del__(self):
            if len(self._contexts):
                world.violations.append("an engine went before its context")

    class Context(guarded(world, "IExecutionContext")):
        def __init__(self, engine):
            self._engine = weakref.ref(engine)
            self._shapes, self._addresses = {}, {}

        def _alive(self):
            engine = self._engine()
            if engine is None or engine._runtime() is None:
                raise Misuse("a context is used after its engine or runtime")
            return engine

        def _set_shape(self, name, shape):
            _, _, declared = self._alive()._types[name]
            if tuple(shape) != declared:
                return False
            self._shapes[name] = tuple(shape)
            return True

        def set_binding_shape(self, index, shape):
            return self._set_shape(self._alive()._order[index], shape)

        def set_input_shape(self, name, shape):
            return self._set_shape(name, shape)

        def set_tensor_address(self, name, address):
            if name not in self._alive()._types or type(address) is not int:
                raise TypeError("set_tensor_address(): incompatible function arguments")
            self._addresses[name] = address
            return True

        def execute_async_v2(self, bindings, stream_handle):
            engine = self._alive()
            if type(bindings) is not list or len(bindings) != engine.num_bindings or any(
                    type(b) is not int for b in bindings):
                raise TypeError("execute_async_v2(): incompatible function arguments")
            return self._enqueue(dict(zip(engine._order, bindings)), stream_handle)

        def execute_async_v3(self, stream_handle):
            return self._enqueue(dict(self._addresses), stream_handle)

        def _enqueue(self, addresses, handle):
            engine = self._alive()
            stream = world.streams[handle]()
            if stream is None:
                raise Misuse("the stream is gone")
            for name, (is_input, kind, shape) in engine._types.items():
                if name not in addresses:
                    raise Misuse(f"no address was set for '{name}'")
                if is_input and name not in self._shapes:
                    raise Misuse(f"no shape was set for input '{name}'")
                world.region(addresses[name], nbytes(kind, shape), f"'{name}'")
            me = weakref.ref(self)
            stream._queue.append(lambda: _execute(me, addresses))
            return True

    def _execute(me, addresses):
        context = me()
        if context is None:
            raise Misuse("the context went while its run was waiting on the stream")
        engine = context._alive()
        feeds = {}
        for info in engine._model.graph.input:
            _, kind, shape = engine._types[info.name]
            data = bytes(world.region(addresses[info.name], nbytes(kind, shape), info.name)[:nbytes(kind, shape)])
            feeds[info.name] = np.frombuffer(data, array_type(kind)).reshape(shape)
        values = computed(world, engine._model, feeds)
        for info in engine._model.graph.output:
            _, kind, shape = engine._types[info.name]
            made = np.ascontiguousarray(world.damage(info.name, values[info.name])).astype(array_type(kind)).tobytes()
            world.region(addresses[info.name], len(made), info.name)[:len(made)] = made
        world.clock_ms += world.cost_ms(engine._model)

    class Registry(guarded(world, "IPluginRegistry")):
        def load_library(self, path):
            try:
                _register(world, path)
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
    for thing in (ILogger, Builder, OnnxParser, Runtime):
        setattr(trt, thing.__name__, thing)
    return trt


def _cache_head(world):
    return "cache {} {}.{} ".format(VERSIONS[world.generation], *world.capability).encode()


def array_type(kind):
    return np.dtype({"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}[
        kind.name])


def nbytes(kind, shape):
    return int(np.prod(shape, dtype=np.int64)) * array_type(kind).itemsize


def np_type(info):
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def computed(world, model, feeds):
    """{tensor: array} of every tensor of a graph, by onnx's evaluator with the numpy definition of our ops."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.functions[:]
    declared = {o.name for o in whole.graph.output} | {i.name for i in whole.graph.input}
    for node in whole.graph.node:
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output
                                  if name and name not in declared)
    wanted = [o.name for o in whole.graph.output]
    with np.errstate(all="ignore"):
        values = dict(zip(wanted, evaluator_from_bytes(whole.SerializeToString(), "stand-in").run(wanted, feeds)))
    masks = mask_types(model)
    arrays = {name: np.asarray(value) for name, value in values.items()}
    values = {name: array.astype(masks.get(name, array.dtype)) for name, array in arrays.items()}
    return dict(feeds, **values)


def mask_types(model):
    """Float masks where the graph declares them so: the numpy definition gives bool."""
    return {o.name: np.float32 for o in model.graph.output
            if o.name.split(".")[-1] in op_names.MASK_NAMES and o.type.tensor_type.elem_type == TensorProto.FLOAT}
