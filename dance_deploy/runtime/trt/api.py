"""TensorRT's Python interface, its generations made alike: the one place that knows how they differ.

    8.0 to 8.3   weakly typed; workspace as a property; bindings by index, execute_async_v2
    8.4          the same; workspace as a memory pool
    8.5, 8.6     the same; tensors by name, execute_async_v3
    10           strongly typed networks; plugin libraries through the registry; progress monitor
    11           nothing but strongly typed networks; the flag for it deprecated
    RTX          as 11; the compute capability is named, timing caches do nothing

Source: the Python bindings in python/src of NVIDIA/TensorRT, tags 8.2.1, 8.4.1, 8.5.1, v8.6.1, v10.3.0, v11.1, and the
module tensorrt_rtx_bindings 1.7.1 itself.
"""
import ctypes
import importlib
import os
import re
from typing import Any, NamedTuple, Tuple

from dance_deploy.errors import OperationError
from dance_deploy.ops import names
from dance_deploy.runtime.kernels import BUILD_PLUGIN
from dance_deploy.runtime.trt.plugin_file import check_built_for

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_MODULES = ((TENSORRT, "tensorrt"), (RTX, "tensorrt_rtx"), (RTX, "tensorrt_rtx_bindings"))
MAJORS = (8, 10, 11)  # 9 went to data centres only
PRECISIONS = ("fp32", "tf32", "fp16")
PROBE = names.ACTIVATION_GATE  # where this plugin is registered, all are
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
           "UINT8": "uint8"}
# layers that gain nothing from half precision or lose their meaning in it: statistics, thresholds, counts
_KEPT_IN_FLOAT = ("REDUCE", "UNARY", "MATRIX_MULTIPLY", "FULLY_CONNECTED", "SOFTMAX", "SCALE", "SELECT", "FILL",
                  "TOPK")
INSTALL = ("on a Jetson it comes with JetPack (sudo apt install python3-libnvinfer), elsewhere run: "
           "pip install --upgrade tensorrt")

EXPORT_AGAIN = "export it with this device's profile: dance-export CKPT --profile NAME -o BUNDLE"


class Tensor(NamedTuple):
    """One input or output of an engine. dtype: numpy's name for it."""

    name: str
    shape: Tuple[int, ...]
    dtype: str
    is_input: bool


class Settings(NamedTuple):
    """How one engine is built.

    workspace_bytes: limit for the layers' scratch memory; precision: one of PRECISIONS; pinned: names of layers that
    stay in float32, statistics: let all elementwise layers stay there too (both for fp16 on weakly typed networks only,
    the others say it in the graph); timing_cache: bytes of an earlier one, or b""; on_step: called with (phase, step,
    steps), steps None where unknown; compute_capability: (major, minor) to build for, which only RTX reads.
    """

    workspace_bytes: int
    precision: str = "fp32"
    pinned: Tuple[str, ...] = ()
    statistics: bool = False
    timing_cache: bytes = b""
    on_step: Any = None
    compute_capability: Any = None


class Built(NamedTuple):
    """plan: bytes of the engine; timing_cache: bytes, b"" where there is none; tensors, layers: of the network."""

    plan: bytes
    timing_cache: bytes
    tensors: Tuple[Tensor, ...]
    layers: int


def find(product=None):
    """The Api of the TensorRT that is installed, TensorRT before TensorRT-RTX; raises OperationError in one line."""
    broken = None
    for name, module in _MODULES:
        if product not in (None, name):
            continue
        try:
            return Api(importlib.import_module(module), name)
        except ImportError as error:
            if getattr(error, "name", None) != module:
                broken = "{}: {}".format(module, (str(error).splitlines() or ["unknown reason"])[0])
    if broken:
        raise OperationError("TensorRT is installed, but does not import ({}); {}".format(broken, INSTALL))
    raise OperationError("TensorRT for Python is not installed; {}".format(INSTALL))


class Api(object):
    """One installed TensorRT. product: "tensorrt" or "tensorrt_rtx"; version: (major, minor); version_text: in full;
    title: both, for people.
    """

    def __init__(self, trt, product):
        self._trt = trt
        self.product = product
        self.version_text = str(trt.__version__)
        self.title = "{} {}".format(TITLES[product], self.version_text)
        numbers = [int(number) for number in re.findall(r"\d+", self.version_text)[:2]]
        self.version = tuple((numbers + [0, 0])[:2])
        if product == TENSORRT and self.version[0] not in MAJORS:
            raise OperationError("TensorRT {} is installed, this dance_deploy works with {} and {}; {}".format(
                self.version_text, ", ".join(map(str, MAJORS[:-1])), MAJORS[-1], INSTALL))
        self._level = self.version if product == TENSORRT else (11, 0)
        self.strongly_typed = self._level >= (10, 0)
        self.log = _log_of(trt)

    @property
    def bool_masks(self):
        """Whether bool can cross a plugin's border."""
        return self._level >= (10, 0)

    @property
    def plugin_headers(self):
        """Major versions of the headers that a plugin library may be built with.

        Interfaces hold within a major version. TensorRT-RTX counts from 1; 1.7 is built as 11 is: it took libraries of
        10's headers too, but their refusals did not reach its log.
        """
        return (1, 11) if self.product == RTX else self._level[:1]

    @property
    def newest_opset(self):
        """The newest ONNX opset that the parser takes (onnx-tensorrt, docs/operators.md of each release)."""
        return next(opset for since, opset in (((10, 0), 20), ((8, 4), 17), ((8, 0), 13))
                    if self._level >= since)

    def load_plugin(self, path):
        """Make the plugins in the library at `path` known; raises OperationError. Before parsing or opening engines."""
        self.log.clear()
        if self.product == RTX:
            _check_rtx_names()
        try:
            check_built_for(path, self.title, self.plugin_headers)
            if self._level >= (10, 0):
                if self._trt.get_plugin_registry().load_library(path) is None:
                    raise OSError("it exports no plugin creators for {}".format(self.title))
            else:
                ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # its creators register themselves
            if not self.has_plugin(PROBE):
                raise OSError("it registers no plugin '{}'".format(PROBE))
        except (OSError, RuntimeError, TypeError) as error:
            raise OperationError("the plugin library '{}' does not load into {}: {}; build it on this machine: "
                                 "{}".format(path, self.title, self.log.last_or(error), BUILD_PLUGIN)) from error

    def has_plugin(self, name):
        """Whether a creator of this name (version 1, namespace "") is registered."""
        registry = self._trt.get_plugin_registry()
        if self._level >= (10, 0):
            return registry.get_creator(name, "1", "") is not None
        return registry.get_plugin_creator(name, "1", "") is not None

    def build(self, model, what, settings):
        """An engine from the bytes of an ONNX model: Built. what: the graph's name in errors.

        Raises OperationError where the parser or the builder refuses.
        """
        self.log.clear()
        trt = self._trt
        builder = self._made(trt.Builder)
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self.log)  # owns weights that the network points at: lives until the build
        if not parser.parse(model):
            raise OperationError("{}: the parser of {} refuses it: {}; {}".format(
                what, self.title, _parser_error(parser, self.log), EXPORT_AGAIN))
        tensors = _network_tensors(network)
        for tensor in tensors:
            if tensor.is_input and any(extent < 0 for extent in tensor.shape):
                raise OperationError("{}: input '{}' has the open shape {}; export the graph with fixed shapes".format(
                    what, tensor.name, list(tensor.shape)))
        config = builder.create_builder_config()
        self._set_limits(config, settings)
        self._set_precision(config, network, settings)
        cache = self._set_timing_cache(config, settings)
        monitor = self._set_monitor(config, settings.on_step)
        layers = network.num_layers
        plan = builder.build_serialized_network(network, config)
        if plan is None and getattr(monitor, "interrupted", False):
            raise KeyboardInterrupt
        if plan is None:
            raise OperationError("{}: {} builds no engine: {}".format(
                what, self.title, self.log.last_or("no reason given")))
        timing = b"" if cache is None else bytes(memoryview(config.get_timing_cache().serialize()))
        plan = bytes(memoryview(plan))
        del monitor, cache, config, parser, network, builder  # in this order: each leans on those behind it
        return Built(plan, timing, tensors, layers)

    def open_engine(self, plan, what):
        """Load the bytes of an engine: Engine. Raises OperationError where TensorRT refuses them."""
        self.log.clear()
        runtime = self._made(self._trt.Runtime)
        engine = runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise OperationError("{}: {} does not load it: {}".format(
                what, self.title, self.log.last_or("no reason given")))
        kind = _EngineByName if self._level >= (8, 5) else _EngineByIndex
        return kind(self._trt, runtime, engine, context, self.log, what)

    def _made(self, kind):
        """A Builder or Runtime; where CUDA does not start, the bindings raise what pybind11 calls a null pointer."""
        try:
            return kind(self.log)
        except (TypeError, RuntimeError) as error:
            raise OperationError("{} does not start: {}; is there an NVIDIA GPU, and does its driver fit?".format(
                self.title, self.log.last_or(error))) from error

    def _network_flags(self):
        flags = self._trt.NetworkDefinitionCreationFlag
        if self._level >= (11, 0):
            return 0
        return 1 << int(flags.STRONGLY_TYPED if self._level >= (10, 0) else flags.EXPLICIT_BATCH)

    def _set_limits(self, config, settings):
        if self._level >= (8, 4):
            config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        else:
            config.max_workspace_size = settings.workspace_bytes
        if self.product == RTX and settings.compute_capability is not None:
            name = "SM{}{}".format(*settings.compute_capability)
            known = self._trt.ComputeCapability.__members__
            if name not in known:
                raise OperationError("{} builds for no device of compute capability {}.{}; use "
                                     "TensorRT there".format(self.title, *settings.compute_capability))
            config.num_compute_capabilities = 1
            config.set_compute_capability(known[name], 0)

    def _set_precision(self, config, network, settings):
        flags = self._trt.BuilderFlag
        if settings.precision == "fp32":
            config.clear_flag(flags.TF32)  # on by default from Ampere on: 10 bits of mantissa, and not called float32
        if self.strongly_typed or settings.precision != "fp16":
            return
        config.set_flag(flags.FP16)
        config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS if self._level >= (8, 2) else flags.STRICT_TYPES)
        kinds = _KEPT_IN_FLOAT + (("ELEMENTWISE",) if settings.statistics else ())
        kept = {getattr(self._trt.LayerType, name) for name in kinds if hasattr(self._trt.LayerType, name)}
        real = (self._trt.float32, self._trt.float16)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
            if not (layer.type in kept or layer.name in settings.pinned) or any(o.dtype not in real for o in outputs):
                continue
            layer.precision = self._trt.float32
            for i in range(layer.num_outputs):
                layer.set_output_type(i, self._trt.float32)

    def _set_timing_cache(self, config, settings):
        if self.product == RTX:
            return None
        cache = config.create_timing_cache(settings.timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            # of another device or version: start anew, what it cost is time
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def _set_monitor(self, config, on_step):
        if on_step is None or self._level < (10, 0):
            return None
        monitor = _monitor_of(self._trt, on_step)
        config.progress_monitor = monitor
        return monitor


class _Engine(object):
    """A loaded engine with its context. tensors: all inputs and outputs. close() lets go in the right order."""

    def __init__(self, trt, runtime, engine, context, log, what):
        self._trt, self._log, self._what = trt, log, what
        self._runtime, self._engine, self._context = runtime, engine, context
        self.tensors = self._list()

    def close(self):
        """Context, engine, runtime: a context must not outlive its engine."""
        self._context = None
        self._engine = None
        self._runtime = None

    def enqueue(self, addresses, stream):
        """Start one run. addresses: {tensor: device address}, of all tensors; stream: its CUDA handle."""
        self._log.clear()
        if not self._enqueue(addresses, stream):
            raise OperationError("{}: TensorRT does not run it: {}".format(
                self._what, self._log.last_or("no reason given")))

    def _shape_set(self, done, tensor):
        if not done:
            raise OperationError("{}: the engine does not take {} for input '{}'".format(
                self._what, list(tensor.shape), tensor.name))


class _EngineByName(_Engine):
    """8.5 and newer."""

    def _list(self):
        engine = self._engine
        found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [Tensor(name, tuple(engine.get_tensor_shape(name)), _dtype(engine.get_tensor_dtype(name)),
                       engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT) for name in found]

    def _enqueue(self, addresses, stream):
        for tensor in self.tensors:
            if tensor.is_input:
                self._shape_set(self._context.set_input_shape(tensor.name, tensor.shape), tensor)
            self._context.set_tensor_address(tensor.name, int(addresses[tensor.name]))
        return self._context.execute_async_v3(stream)


class _EngineByIndex(_Engine):
    """8.0 to 8.4."""

    def _list(self):
        engine = self._engine
        return [Tensor(engine.get_binding_name(index), tuple(engine.get_binding_shape(index)),
                       _dtype(engine.get_binding_dtype(index)), engine.binding_is_input(index))
                for index in range(engine.num_bindings)]

    def _enqueue(self, addresses, stream):
        bindings = [0] * self._engine.num_bindings
        for tensor in self.tensors:
            index = self._engine.get_binding_index(tensor.name)
            if tensor.is_input:
                self._shape_set(self._context.set_binding_shape(index, tensor.shape), tensor)
            bindings[index] = int(addresses[tensor.name])
        return self._context.execute_async_v2(bindings, stream)


def _dtype(kind):
    name = getattr(kind, "name", str(kind).split(".")[-1])
    if name not in _DTYPES:
        raise OperationError("the engine has a tensor of type {}, which dance_deploy does not use; build it "
                             "anew".format(name))
    return _DTYPES[name]


def _network_tensors(network):
    found = []
    for is_input, count, get in ((True, network.num_inputs, network.get_input),
                                 (False, network.num_outputs, network.get_output)):
        for index in range(count):
            tensor = get(index)
            found.append(Tensor(tensor.name, tuple(tensor.shape), _dtype(tensor.dtype), is_input))
    return tuple(found)


def _check_rtx_names():
    """Raise OperationError where RTX's package lacks a name that its parser opens when it meets a plugin.

    Up to 1.7.1 at least; without the name the process ends inside the parser, no word said.
    """
    try:
        import tensorrt_rtx_libs
    except ImportError:
        return  # installed otherwise, by an archive or a system package
    folder = os.path.dirname(os.path.abspath(tensorrt_rtx_libs.__file__))
    there, name = os.path.join(folder, "libtensorrt_rtx.so.1"), "libtensorrt_rtx.so"
    places = [folder] + os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if os.path.exists(there) and not any(os.path.exists(os.path.join(place, name)) for place in places if place):
        raise OperationError("TensorRT-RTX's package lacks the name {0}, which its parser opens when it meets a "
                             "plugin; run: ln -s libtensorrt_rtx.so.1 {1}/{0}".format(name, folder))


def _parser_error(parser, log):
    if not parser.num_errors:
        return log.last_or("no reason given")
    error = parser.get_error(0)
    return " ".join("node {}: {}".format(error.node(), error.desc()).split())[:300]


def _log_of(trt):
    """TensorRT's logger, which keeps the last error for our one line and prints nothing."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self._last = ""

        def log(self, severity, msg):
            # the first error of a call names the cause, those behind it what it led to
            if severity <= trt.ILogger.ERROR and not self._last:
                self._last = " ".join(msg.split())[:300]

        def clear(self):
            self._last = ""

        def last_or(self, otherwise):
            return self._last or str(otherwise)

    return Log()


def _monitor_of(trt, on_step):
    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps = {}

        def phase_start(self, phase_name, parent_phase, num_steps):
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name):
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name, step):
            try:
                on_step(phase_name, step, self._steps.get(phase_name))
            except KeyboardInterrupt:  # must not pass through TensorRT's own frames
                self.interrupted = True
            return not self.interrupted

    return Monitor()
