"""Real engines by TensorRT-RTX, which builds without a GPU: the builder's whole way but running.

What this shows: our edited graphs parse and build, with the shapes that they declare. What it cannot: numbers.
"""
import importlib
import json
from pathlib import Path

import onnx
import pytest
import trt_standin
import trt_world
from tiny_bundle import tiny_files

from dance_deploy.errors import OperationError
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import build, graph_edit
from dance_deploy.runtime.trt.onnx_file import Model

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install "
                          "tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings)")
AMPERE = (8, 0)


@pytest.fixture(scope="module")
def api():
    return trt_api.find(trt_api.RTX)


@pytest.fixture(scope="module")
def files():
    return tiny_files()


def graphs_of(files):
    return {"controller": files["controller.onnx"], "body": files["body.onnx"] + files["body_masks.onnxpart"],
            "dense": files["dense.onnx"]}


def settings(**changes):
    return trt_api.Settings(workspace_bytes=1 << 28, compute_capability=AMPERE)._replace(**changes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "tf32"])
@pytest.mark.parametrize("graph", ["controller", "body", "dense"])
def test_every_graph_builds_with_its_own_shapes(api, files, graph, precision):
    model = Model(graphs_of(files)[graph])
    graph_edit.inline_functions(model)
    if precision == "fp16":
        graph_edit.to_half(model)
    built = api.build(model.to_bytes(), graph, settings(precision=precision))
    build.check_shapes(model, built, graph)
    assert len(built.plan) > 1000
    declared = {t.name: t.dtype for t in built.tensors if not t.is_input}
    assert set(declared) == set(model.outputs)
    assert {dtype for name, dtype in declared.items() if name in ("logits", "stem", "tau")} == {"float32"}


def test_the_bodys_masks_are_outputs_by_protobufs_own_merging(api, files):
    built = api.build(inlined(files), "body", settings())
    assert {t.name: t.dtype for t in built.tensors if "keep" in t.name} == {
        "gate%d.%s_keep" % (layer, kind): "bool" for layer in (0, 1) for kind in ("frame", "channel", "feature")}


def inlined(files):
    model = Model(graphs_of(files)["body"])
    graph_edit.inline_functions(model)
    return model.to_bytes()


def test_functions_are_not_left_to_the_parser(api, files):
    """Why graphs are inlined: with functions the parser drops strides without a word. Here that shows in a shape."""
    model = onnx.load_from_string(files["body.onnx"])
    model.graph.node.remove(next(n for n in model.graph.node if n.op_type == "GlobalAveragePool"))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.name == "block.b" and attribute.name == "strides":
                attribute.ints[:] = [2, 2, 2]
    del model.graph.output[:]
    keep = [n for n in model.graph.node if n.op_type in ("Gather", "ActivationGate", "GatedConv3d")
            or n.name == "block.a"]
    del model.graph.node[:]
    model.graph.node.extend(keep)
    out = next(n for n in keep if n.name == "block.a").output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, [1, 6, 4, 8, 8]))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.name in ("block.a", "block.shortcut") and attribute.name == "strides":
                attribute.ints[:] = [1, 2, 2]
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, [1, 6, 4, 4, 4]))
    as_functions = Model(model.SerializeToString())
    built = api.build(as_functions.to_bytes(), "body", settings())
    with pytest.raises(OperationError, match="declares"):
        build.check_shapes(as_functions, built, "body")
    graph_edit.inline_functions(as_functions)
    build.check_shapes(as_functions, api.build(as_functions.to_bytes(), "body", settings()), "body")


def test_gates_left_out_build_too(api, files):
    model = Model(graphs_of(files)["body"])
    graph_edit.leave_dense(model, {0}, [(4, 4, 8, 8), (6, 4, 8, 8)])
    graph_edit.inline_functions(model)
    build.check_shapes(model, api.build(model.to_bytes(), "body", settings()), "body")


@pytest.mark.parametrize("gated", [True, False])
def test_one_gate_alone_builds(api, files, gated):
    for number, size in enumerate([(4, 4, 8, 8), (6, 4, 8, 8)]):
        model = Model(graphs_of(files)["body"])
        graph_edit.only_one_gate(model, number, size, gated)
        graph_edit.inline_functions(model)
        build.check_shapes(model, api.build(model.to_bytes(), "one gate", settings()), "one gate")


def test_layers_can_be_marked(api, files):
    from dance_deploy.runtime.trt import precision
    model = Model(graphs_of(files)["dense"])
    layers = precision.layers_of(model)
    precision.mark_layers(model, layers)
    built = api.build(model.to_bytes(), "dense", settings())
    assert {output for _, output, _ in layers} <= {t.name for t in built.tensors}


def test_progress_is_reported_and_can_stop_the_build(api, files):
    seen = []
    api.build(files["dense.onnx"], "dense", settings(on_step=lambda *step: seen.append(step)))
    assert len(seen) > 10 and any(steps for _, _, steps in seen)

    def interrupted(*_):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        api.build(files["dense.onnx"], "dense", settings(on_step=interrupted))


@pytest.mark.parametrize("data", [b"", b"\x08\x08garbage", b"\xff" * 64])
def test_what_is_no_model_is_one_line(api, data):
    with pytest.raises(OperationError, match="TensorRT-RTX") as caught:
        api.build(data, "graph", settings())
    assert "\n" not in str(caught.value)


def test_a_device_that_rtx_does_not_know_is_one_line(api, files):
    with pytest.raises(OperationError, match="no device of compute capability 5.3"):
        api.build(files["dense.onnx"], "dense", settings(compute_capability=(5, 3)))


def test_an_engine_does_not_open_without_a_gpu(api, files):
    """On a machine with a GPU it opens; either way a damaged one is one line."""
    plan = bytearray(api.build(files["dense.onnx"], "dense", settings()).plan)
    plan[:64] = b"\0" * 64
    with pytest.raises(OperationError, match="dense.engine: TensorRT") as caught:
        api.open_engine(bytes(plan), "dense.engine")
    assert "\n" not in str(caught.value)


def test_the_standin_has_the_real_modules_names():
    """The stand-in is as good as its list of names; here the list meets the module."""
    stored = json.loads(Path(trt_standin.__file__).with_name("trt_api.json").read_text())["rtx"]
    if rtx.__version__ != stored["source"].split()[-1]:
        pytest.skip("the list was made from {}, installed is {}".format(stored["source"], rtx.__version__))
    for name, known in stored.items():
        if name != "source":
            real = {n for n in dir(getattr(rtx, name)) if not n.startswith("_")}
            assert set(known["names"]) == real, name


def test_the_standins_methods_are_the_real_ones():
    """What the stand-in can do beyond its private parts exists in the real classes, for every class it plays."""
    module = trt_standin.tensorrt_module(trt_world.World("rtx"))
    for name in ("Builder", "OnnxParser", "Runtime"):
        real = getattr(importlib.import_module("tensorrt_rtx_bindings"), name)
        for attribute in vars(getattr(module, name)):
            if not attribute.startswith("_"):
                assert hasattr(real, attribute), (name, attribute)
