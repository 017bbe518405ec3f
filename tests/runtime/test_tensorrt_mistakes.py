"""Mistakes that the stand-in must notice, each made on purpose: what passes on it passed something."""
import numpy as np
import pytest
from trt_machine import silent_log

from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import cuda
from dance_deploy.runtime.trt.command import build_bundle_engines
from dance_deploy.runtime.trt.session import Session

CLIP = np.random.default_rng(5).standard_normal((1, 3, 4, 16, 16)).astype(np.float32)


def goes_wrong(machine, precision="fp32"):
    """Whether building and running two clips raises, breaks a rule, or gives wrong logits."""
    try:
        build_bundle_engines(machine.bundle, precision, measure=False, out=lambda line: None)
        with open_runner(machine.bundle, "tensorrt", dense=True) as runner:
            runner.infer(CLIP[:, :, ::-1] * 2, 0.3)
            found = runner.infer(CLIP, 0.4).logits
        with open_runner(machine.bundle, "reference") as reference:
            expected = reference.infer(CLIP, 0.4).logits
        if precision == "fp32" and not np.allclose(found, expected, rtol=1e-5):
            return True
        machine.world.settled()
    except Exception:
        return True
    return False


def context_after_engine(self):
    self._engine = None
    self._context = None
    self._runtime = None


def runtime_first(self):
    self._runtime = None
    self._context = None
    self._engine = None


def no_shapes(self, addresses, stream):
    if isinstance(self, trt_api._EngineByIndex):
        return self._context.execute_async_v2([addresses[t.name] for t in self.tensors], stream)
    for tensor in self.tensors:
        self._context.set_tensor_address(tensor.name, addresses[tensor.name])
    return self._context.execute_async_v3(stream)


def order_of_the_graph(self, addresses, stream):
    for index, tensor in enumerate(self.tensors):
        if tensor.is_input:
            self._context.set_binding_shape(index, tensor.shape)
    return self._context.execute_async_v2([addresses[name] for name in sorted(addresses)], stream)


def one_address_missing(self, addresses, stream):
    for tensor in self.tensors[1:]:
        if tensor.is_input:
            self._context.set_input_shape(tensor.name, tensor.shape)
        self._context.set_tensor_address(tensor.name, addresses[tensor.name])
    return self._context.execute_async_v3(stream)


def read_without_waiting(self, names):
    for name in names:
        self._device.download(self.buffers[name])
    return [self.buffers[name].host.copy() for name in names]


def host_memory_reused(self, buffer, array):
    self._cuda.memcpy_htod_async(buffer.memory, buffer.host, self._stream)
    np.copyto(buffer.host, 0)


def memory_kept(self):
    self.memory = self.host = None


def without_obeying(self, config, network, settings):
    if settings.precision == "fp16":
        config.set_flag(self._trt.BuilderFlag.FP16)


@pytest.mark.parametrize("generation", ["8.2", "8.6", "10", "11"])
def test_nothing_goes_wrong_without_a_mistake(make_machine, generation):
    assert not goes_wrong(make_machine(generation))


@pytest.mark.parametrize("generation, owner, name, mistake", [
    ("8.2", trt_api._Engine, "close", context_after_engine),
    ("10", trt_api._Engine, "close", runtime_first),
    ("8.2", trt_api._EngineByIndex, "_enqueue", no_shapes),
    ("10", trt_api._EngineByName, "_enqueue", no_shapes),
    ("8.4", trt_api._EngineByIndex, "_enqueue", order_of_the_graph),
    ("11", trt_api._EngineByName, "_enqueue", one_address_missing),
    ("10", Session, "download", read_without_waiting),
    ("8.2", cuda.Device, "upload", host_memory_reused),
    ("8.6", cuda.Buffer, "free", memory_kept),
    ("10", trt_api.Api, "_network_flags", lambda self: 0),
    ("11", trt_api.Api, "_network_flags", lambda self: 1),
    ("8.2", trt_api.Api, "_network_flags", lambda self: 0),
    ("8.4", trt_api.Api, "_set_limits", lambda self, config, settings: setattr(config, "max_workspace_size", 1 << 20)),
    ("8.6", trt_api.Api, "_set_limits", lambda self, config, settings: None),
    ("10", trt_api.Api, "load_plugin", lambda self, path: None),
], ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_mistake_is_noticed(make_machine, monkeypatch, generation, owner, name, mistake):
    machine = make_machine(generation)
    monkeypatch.setattr(owner, name, mistake)
    assert goes_wrong(machine)


def test_half_precision_without_constraints_is_noticed(make_machine, monkeypatch):
    machine = make_machine("8.2")
    monkeypatch.setattr(trt_api.Api, "_set_precision", without_obeying)
    assert goes_wrong(machine, "fp16")


def test_a_parser_that_goes_before_the_build_is_noticed(make_machine):
    machine = make_machine("8.6")
    trt = machine.trt
    context = machine.cuda.Device(0).retain_primary_context()
    context.push()
    log = silent_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    assert trt.OnnxParser(network, log).parse(open(machine.bundle + "/dense.onnx", "rb").read())
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)
    with pytest.raises(AssertionError, match="parser, which owns the weights"):
        builder.build_serialized_network(network, config)
    context.pop()
