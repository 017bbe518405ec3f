"""The half of the stand-in for TensorRT that builds: parser, network, builder. See trt_standin.py."""
import json
import weakref

import numpy as np
import onnx
from onnx import TensorProto, helper
from pycuda_standin import Misuse
from trt_world import HostMemory, PLAN_MARK, cache_head, computed, dtype_of, guarded, need_logger, np_type

from dance_deploy.ops import names as op_names

OLDEST_OPSET_REFUSED = {"8.2": 14, "8.4": 18, "8.6": 18, "10": 23, "11": 26, "rtx": 26}
_LAYER = {"Conv": "CONVOLUTION", "Relu": "ACTIVATION", "Clip": "ACTIVATION", "Sigmoid": "ACTIVATION",
          "ReduceMean": "REDUCE", "ReduceSum": "REDUCE", "ReduceMax": "REDUCE", "GlobalAveragePool": "REDUCE",
          "MaxPool": "POOLING", "Add": "ELEMENTWISE", "Mul": "ELEMENTWISE", "Div": "ELEMENTWISE", "Sub": "ELEMENTWISE",
          "Max": "ELEMENTWISE", "Less": "ELEMENTWISE", "And": "ELEMENTWISE", "Gemm": "MATRIX_MULTIPLY",
          "MatMul": "MATRIX_MULTIPLY", "Log": "UNARY", "Not": "UNARY", "Abs": "UNARY", "Cast": "IDENTITY",
          "Concat": "CONCATENATION", "Gather": "GATHER", "Where": "SELECT", "Constant": "CONSTANT", "Split": "SLICE"}
_HALVED = ("Conv", op_names.GATED_CONV3D, op_names.GATED_CONV3D_ADD)


def network_class(world, trt):
    """INetworkDefinition, which a parser fills."""
    class Tensor(guarded(world, "ITensor")):
        name = dtype = shape = None

        def __init__(self, name, array):
            self.name, self.dtype, self.shape = name, dtype_of(trt, array), tuple(array.shape)

    class Layer(guarded(world, "ILayer")):
        name = type = num_outputs = precision = None

        def __init__(self, node, tensors):
            self.name, self._node = node.name, node
            kind = _LAYER.get(node.op_type, "SHUFFLE")
            if node.domain == op_names.DOMAIN:
                kind = "PLUGIN_V2" if world.old else "PLUGIN_V3"
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

        def _fill(self, model):
            """Layers and tensors of a parsed model; types and shapes by computing it once."""
            self._model = model
            values = computed(world, model, {i.name: np.ones([d.dim_value or 1 for d in i.type.tensor_type.shape.dim],
                                                             np_type(i)) for i in model.graph.input})
            for node in model.graph.node:
                if world.old and node.op_type.startswith("Reduce") and values[node.input[0]].dtype.kind != "f":
                    raise Misuse(f"{node.name}: TensorRT 8 reduces floats only")
            self._inputs = [Tensor(i.name, values[i.name]) for i in model.graph.input]
            for tensor, info in zip(self._inputs, model.graph.input):
                object.__setattr__(tensor, "shape", tuple(d.dim_value or -1 for d in info.type.tensor_type.shape.dim))
            self._outputs = [Tensor(o.name, values[o.name]) for o in model.graph.output]
            self._layers = [Layer(node, values) for node in model.graph.node]
            self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)
            self.num_layers = len(self._layers)

    return Network


def parser_class(world):
    """OnnxParser, as strict about what each generation cannot read as the real ones."""
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
            need_logger(logger)
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
            self._network._fill(parsed)
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
                        if functions and not world.old:
                            raise Misuse("the parser takes the function and ignores strides given by reference")
                        return index, f"No importer registered for op: {node.op_type}"
                    attributes = {a.name: a for a in node.attribute}
                    if functions and not world.old and "plugin_namespace" not in attributes:
                        raise Misuse("the parser takes the function before the plugin")
                    unknown = set(attributes) - {"plugin_version", "plugin_namespace", "min", "strides", "pads",
                                                 "dilations", "group"}
                    if unknown:
                        return index, f"attributes {unknown}"
                    if world.old and functions:
                        raise Misuse("TensorRT 8 reads no functions: they only cost memory")
                    masks = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
                    made = [masks[name] for name in node.output if node.op_type in op_names.GATES and name in masks]
                    if world.old and TensorProto.BOOL in made:
                        return index, "kBOOL is not supported at a plugin's border"
                    if not world.old and TensorProto.FLOAT in made:
                        return index, "the output is declared FLOAT and the plugin makes BOOL"
            return None

        def get_error(self, index):
            return self._errors[index]

    return OnnxParser


def builder_class(world, trt):
    """Builder, with the network and the config that it makes."""
    Network, Config = network_class(world, trt), config_class(world)

    class Builder(guarded(world, "Builder")):
        def __init__(self, logger):
            need_logger(logger)
            if world.generation != "rtx":
                world.need_context()
            self._logger = weakref.ref(logger)
            self._configs = weakref.WeakSet()

        def create_network(self, flags=0):
            explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if world.old else None
            if world.old and not flags & explicit:
                raise Misuse("the ONNX parser needs EXPLICIT_BATCH here")
            if not world.old and world.level < (11, 0) and flags != 1 << int(
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
                self._logger().log(trt.ILogger.ERROR,
                                   "Network has dynamic or shape inputs, but no optimization profile")
                return None
            monitor = getattr(config, "progress_monitor", None) if "progress_monitor" in world.names[
                "IBuilderConfig"]["names"] else None
            if monitor is not None:
                monitor.phase_start("Building engine", None, 2)
                for step in range(2):
                    if not monitor.step_complete("Building engine", step):
                        self._logger().log(trt.ILogger.ERROR, "build cancelled")
                        return None
                monitor.phase_finish("Building engine")
            if world.fail_build is not None:
                self._logger().log(trt.ILogger.ERROR, world.fail_build)
                return None
            world.builds.append((network._model, config, {layer.name: layer for layer in network._layers}))
            if config._cache is not None:
                config._cache._data = cache_head(world) + b"%d" % len(world.builds)
            head = {"version": trt.__version__, "capability": list(world.capability)}
            model = rounded(trt, network, config) if world.old and "FP16" in config._flags else network._model
            return HostMemory(PLAN_MARK + json.dumps(head).encode() + b"\n" + model.SerializeToString())

    return Builder


def config_class(world):
    """IBuilderConfig and its timing cache."""
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
            if cache._data and not cache._data.startswith(cache_head(world)) and not ignore_mismatch:
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

    return Config


def rounded(trt, network, config):
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
