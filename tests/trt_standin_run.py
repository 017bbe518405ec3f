"""The half of the stand-in for TensorRT that runs engines. See trt_standin.py."""
import json
import weakref

import numpy as np
import onnx
from pycuda_standin import Misuse
from trt_world import PLAN_MARK, array_type, computed, dtype_of, guarded, nbytes, need_logger, np_type

from dance_deploy.ops import names as op_names


def runtime_class(world, trt):
    """Runtime, which deserializes engines."""
    Engine = engine_class(world, trt)

    class Runtime(guarded(world, "Runtime")):
        def __init__(self, logger):
            need_logger(logger)
            world.need_context()
            self._logger = weakref.ref(logger)
            self._engines = weakref.WeakSet()

        def deserialize_cuda_engine(self, plan):
            data = bytes(memoryview(plan))
            if not data.startswith(PLAN_MARK):
                self._logger().log(trt.ILogger.ERROR, "deserializeCudaEngine: Error Code 1: magic tag does not match")
                return None
            head, _, body = data[len(PLAN_MARK):].partition(b"\n")
            head = json.loads(head.decode())
            if head["version"] != trt.__version__:
                self._logger().log(trt.ILogger.ERROR, "The engine plan file is not compatible with this version")
                return None
            if tuple(head["capability"]) != tuple(world.capability):
                raise Misuse("an engine of another device is loaded")
            model = onnx.load_from_string(body)
            needed = {node.op_type for node in model.graph.node if node.domain == op_names.DOMAIN}
            if not needed <= world.plugins:
                self._logger().log(trt.ILogger.ERROR, f"getPluginCreator could not find plugin {sorted(needed)[0]}")
                return None
            engine = Engine(self, model)
            self._engines.add(engine)
            return engine

        def __del__(self):
            if len(self._engines):
                world.violations.append("a runtime went before its engine")

    return Runtime


def engine_class(world, trt):
    """ICudaEngine with the names of its bindings and tensors."""
    Context = context_class(world)

    class Engine(guarded(world, "ICudaEngine")):
        num_bindings = num_io_tensors = num_layers = num_optimization_profiles = None

        def __init__(self, runtime, model):
            self._model = model
            self._runtime = weakref.ref(runtime)
            ones = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np_type(i))
                    for i in model.graph.input}
            values = computed(world, model, ones)
            self._types = {i.name: (True, dtype_of(trt, ones[i.name]), tuple(ones[i.name].shape))
                           for i in model.graph.input}
            self._types.update((o.name, (False, dtype_of(trt, values[o.name]), tuple(values[o.name].shape)))
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

    return Engine


def context_class(world):
    """IExecutionContext; what it enqueues is computed when the stream is waited for."""
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

    return Context
