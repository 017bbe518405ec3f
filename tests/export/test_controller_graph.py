"""The controller in ONNX: as plain nodes, as our op, and as that op's function it computes what torch computes."""
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dance_deploy.export.controller_graph import emit_controller, emit_thresholds, thresholds_function
from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.export.parity import session
from dance_deploy.method.controller import Controller
from dance_deploy.method.saliency import KINDS
from dance_deploy.ops import definition, names
from dance_deploy.runtime.kernels import HOW_TO_BUILD, library_path


@pytest.fixture(scope="module")
def library():
    if library_path() is None:
        pytest.skip("the kernels are not built; " + HOW_TO_BUILD)
    return library_path()


def controller_of(channels, gates, kinds, asked, seed):
    """A Controller with random weights and a calibrated map of these points."""
    torch.manual_seed(seed)
    controller = Controller(channels, gates, kinds)
    with torch.no_grad():
        for weight in (controller.hidden.weight, controller.output.weight, controller.output.bias):
            weight.add_(torch.randn_like(weight) * 0.3)
    controller.calibrate(asked, sorted(torch.rand(len(asked)).clamp_min(0.05).tolist()))
    return controller.eval()


def plain_model(controller, shape, opset, last):
    builder = OnnxBuilder("plain", opset, reserved=("tau",))
    stem = builder.input("stem", [shape[axis] for axis in (0, 2, 3, 4, 1)] if last else shape)
    builder.rename(emit_controller(builder, controller, stem, shape, builder.input("budget", [1]), last=last), "tau")
    builder.output("tau", [controller.gates, 3])
    return builder.model(8)


def op_model(controller, shape, opset=17):
    _, c, t, h, w = shape
    builder = OnnxBuilder("op", opset, reserved=("tau",))
    inputs = [builder.input(name, extents) for name, extents in zip(names.MAGNITUDES, ([1, t, c], [1, t, h, w]))]
    builder.rename(emit_thresholds(builder, controller, shape, builder.input("budget", [1]), tuple(inputs)), "tau")
    builder.output("tau", [controller.gates, 3])
    return builder.model(8, [thresholds_function(opset)])


def by_op(model, library, stem, budget):
    feed = dict(zip(names.MAGNITUDES, (m.astype(np.float32) for m in definition.magnitudes(stem))))
    return session(model, library).run(None, {**feed, "budget": np.array([budget], np.float32)})[0]


def by_torch(controller, stem, budget):
    with torch.no_grad():
        return controller(torch.from_numpy(stem), torch.tensor([budget], dtype=torch.float32))[0].numpy()


@settings(max_examples=25)
@given(channels=st.integers(1, 40), size=st.tuples(st.integers(1, 20), st.integers(1, 13), st.integers(1, 13)),
       gates=st.integers(1, 9), kinds=st.sets(st.sampled_from(KINDS), min_size=1), opset=st.sampled_from((13, 17, 18)),
       between=st.sets(st.integers(1, 19)), budget=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_all_forms_compute_what_torch_computes(library, channels, size, gates, kinds, opset, between, budget, seed):
    asked = [0.0, *(point / 20 for point in sorted(between)), 1.0]
    controller = controller_of(channels, gates, tuple(kinds), asked, seed)
    shape = (1, channels, *size)
    stem = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = by_torch(controller, stem, budget)
    model = op_model(controller, shape, opset)
    close = {"rtol": 1e-4, "atol": 3e-5}    # pieces of a map may be steep
    for last, x in ((False, stem), (True, np.ascontiguousarray(stem.transpose(0, 2, 3, 4, 1)))):
        plain = session(plain_model(controller, shape, opset, last), None)
        found = plain.run(None, {"stem": x, "budget": np.array([budget], np.float32)})[0]
        np.testing.assert_allclose(found, expected, **close)
    np.testing.assert_allclose(by_op(model, library, stem, budget), expected, **close)
    np.testing.assert_allclose(by_op(model, None, stem, budget), expected, **close)


SHAPE = (1, 5, 6, 7, 8)


@pytest.fixture(scope="module")
def controller():
    return controller_of(5, 3, KINDS, [0.0, 0.4, 1.0], 0)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e36])
def test_nothing_and_the_limits_of_float32(library, controller, scale):
    stem = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32) * np.float32(scale)
    expected = by_torch(controller, stem, 0.3)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(by_op(op_model(controller, SHAPE), library, stem, 0.3), expected, rtol=1e-5)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_fault_in_the_stem_drops_nothing(library, controller, fault):
    stem = np.ones(SHAPE, np.float32)
    stem[0, 2, 3, 4, 5] = fault
    tau = by_op(op_model(controller, SHAPE), library, stem, 0.3)
    assert np.isnan(tau).all() and np.isnan(by_torch(controller, stem, 0.3)).all()


@pytest.mark.parametrize("name, shape, said", [
    ("pixel_magnitude", (1, 6, 8, 7), "grid_rows is [4,7], expected [4,8] (pixel_magnitude is [1,6,8,7])"),
    ("pixel_magnitude", (1, 4, 7, 8), "channel_magnitude is [1,6,5], expected [1,4,5] (pixel_magnitude is [1,4,7,8])"),
    ("channel_magnitude", (1, 6), "channel_magnitude is [1,6], expected 3 extents, each at least 1"),
    ("channel_magnitude", (1, 6, 9), "hidden_W is [32,31], expected [32,35]"),
    ("budget", (2,), "budget is [2], expected [1]"),
    ("asked", (1,), "asked is [1], expected 2 numbers or more"),
    ("fed", (4,), "fed is [4], expected [3] (asked is [3])"),
    ("output_W", (8, 32), "output_W is [8,32], expected [9,32] (tau_scale is [3,3])"),
    ("tau_scale", (4, 3), "output_W is [9,32], expected [12,32] (tau_scale is [4,3])")])
def test_what_does_not_fit_is_refused(library, controller, name, shape, said):
    model = op_model(controller, SHAPE)
    constants = {c.name: c for c in model.graph.initializer}
    feed = {}
    # every input is fed, so that any can be of another shape
    for wanted, tensor in zip(names.THRESHOLDS_INPUTS, model.graph.node[0].input):
        given_shape = constants[tensor].dims if tensor in constants else dict(zip(
            names.THRESHOLDS_INPUTS, ((1, 6, 5), (1, 6, 7, 8), (1,))))[wanted]
        feed[wanted] = np.ones(shape if wanted == name else list(given_shape), np.float32)
    builder = OnnxBuilder("fed", 17, reserved=("tau",))
    inputs = [builder.input(wanted, [None] * value.ndim) for wanted, value in feed.items()]
    builder.rename(builder.node(names.THRESHOLDS, inputs, "t", domain=names.DOMAIN, name="op"), "tau")
    builder.output("tau", [None, 3])
    with pytest.raises(Exception) as refused:
        session(builder.model(8), library).run(None, feed)
    assert f"Thresholds 'op': {said}" in str(refused.value)
    assert isinstance(refused.value, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument)
