"""ONNX files read, changed and written without the package onnx: held against that package and against results."""
import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_bundle import tiny_files

from dance_deploy.errors import InputError
from dance_deploy.ops import names
from dance_deploy.ops.functions import gate_node
from dance_deploy.runtime.reference_backend import evaluator_from_bytes
from dance_deploy.runtime.trt import graph_edit, onnx_file, wire
from dance_deploy.runtime.trt.onnx_file import Model, Node
from dance_deploy.runtime.trt.wire import WireError

SIZES = [(4, 4, 8, 8), (6, 4, 8, 8)]


@pytest.fixture(scope="module")
def files():
    return tiny_files()


@pytest.fixture
def body(files):
    return Model(files["body.onnx"] + files["body_masks.onnxpart"])


def feeds(tau=0.9):
    stem = np.random.default_rng(2).standard_normal((1, 4, 4, 8, 8)).astype(np.float32)
    return {"stem": stem, "tau": np.full((2, 3), tau, np.float32)}


def reference(data, feed, outputs=None):
    model = onnx.load_from_string(data)
    outputs = [o.name for o in model.graph.output] if outputs is None else outputs
    return dict(zip(outputs, evaluator_from_bytes(data, "graph").run(outputs, feed)))


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(np.asarray(first[name], np.float64), np.asarray(second[name], np.float64), rtol=1e-5,
                                   atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["controller.onnx", "body.onnx", "dense.onnx"])
def test_what_is_read_and_written_is_the_same_model(files, name):
    before = onnx.load_from_string(files[name])
    after = onnx.load_from_string(Model(files[name]).to_bytes())
    onnx.checker.check_model(after)
    if name != "body.onnx":  # imports of domains that no node uses are left out
        for model in (before, after):
            kept = [o for o in model.opset_import if o.domain == ""]
            del model.opset_import[:]
            model.opset_import.extend(kept)
    for model in (before, after):
        for node in model.graph.node:
            node.name = node.name or node.output[0]
        initializers = sorted(model.graph.initializer, key=lambda i: i.name)
        del model.graph.initializer[:]
        model.graph.initializer.extend(initializers)
    assert before == after


@given(st.binary(max_size=200))
@example(b"@\x00")            # a number for an opset
@example(b":\x02\x0a\x00")     # an empty node
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_model_or_a_wire_error(data):
    try:
        Model(data).to_bytes()
    except WireError:
        pass


@given(st.binary(min_size=1, max_size=4), st.integers(0, 2000))
@settings(max_examples=150, deadline=None)
def test_a_damaged_model_is_a_model_or_a_wire_error(noise, where):
    data = bytearray(tiny_graph())
    where %= len(data)
    data[where:where + len(noise)] = noise
    try:
        Model(bytes(data)).to_bytes()
    except WireError:
        pass


def tiny_graph():
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name="r")
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 2]) for n in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", info[:1], info[1:])).SerializeToString()


@given(st.lists(st.tuples(st.integers(1, 2000), st.one_of(
    st.integers(0, 2 ** 64 - 1), st.binary(max_size=300), st.floats(width=32, allow_nan=False).map(
        wire.Fixed.from_float)))))
@settings(deadline=None)
def test_fields_come_back_as_written(items):
    found = list(wire.fields(wire.message(items)))
    assert [(n, bytes(v) if not isinstance(v, int) else v) for n, v in found] == [
        (n, bytes(v) if not isinstance(v, int) else v) for n, v in items]


@given(st.one_of(st.integers(-2 ** 63, 2 ** 63 - 1), st.lists(st.integers(-2 ** 63, 2 ** 63 - 1), min_size=1),
                 st.floats(width=32, allow_nan=False), st.text(max_size=30)))
@settings(deadline=None)
def test_attributes_are_what_onnx_reads_and_writes(value):
    ours = onnx_file.attribute_bytes("a", value)
    parsed = onnx.AttributeProto.FromString(ours)
    theirs = onnx.helper.get_attribute_value(parsed)
    theirs = theirs.decode() if isinstance(theirs, bytes) else theirs
    assert (list(theirs) if isinstance(value, list) else theirs) == value
    assert onnx_file.attribute_value(onnx.helper.make_attribute(
        "a", value, attr_type=parsed.type).SerializeToString()) == value


def test_inlining_gives_what_the_functions_give(files, body):
    data = files["body.onnx"] + files["body_masks.onnxpart"]
    graph_edit.inline_functions(body)
    flat = onnx.load_from_string(body.to_bytes())
    onnx.checker.check_model(flat, full_check=True)
    assert {node.domain for node in flat.graph.node} == {""} and not flat.functions
    assert not any(a.ref_attr_name for node in flat.graph.node for a in node.attribute)
    outputs = [o.name for o in flat.graph.output]
    for tau in (0.0, 0.9, 1.5):
        ours = onnxruntime.InferenceSession(body.to_bytes()).run(outputs, feeds(tau))
        theirs = onnxruntime.InferenceSession(data).run(outputs, feeds(tau))
        by_onnx = onnx.inliner.inline_local_functions(onnx.load_from_string(data)).SerializeToString()
        again = onnxruntime.InferenceSession(by_onnx).run(outputs, feeds(tau))
        for a, b, c in zip(ours, theirs, again):
            assert np.array_equal(a, b) and np.array_equal(a, c)


def test_inlining_without_a_function_names_the_plugin(body):
    body.functions.clear()
    with pytest.raises(InputError, match="gate0.*make plugin"):
        graph_edit.inline_functions(body)


@pytest.mark.parametrize("left", [{0}, {1}, {0, 1}, set()])
def test_gates_left_out_are_gates_with_thresholds_of_zero(body, files, left):
    graph_edit.leave_dense(body, left, SIZES)
    feed = feeds(1.1)
    zeroed = dict(feed, tau=feed["tau"].copy())
    zeroed["tau"][sorted(left)] = 0
    same(reference(body.to_bytes(), feed),
         reference(files["body.onnx"] + files["body_masks.onnxpart"], zeroed))
    model = onnx.load_from_string(body.to_bytes())
    onnx.checker.check_model(model)
    assert sum(node.op_type == "ActivationGate" for node in model.graph.node) == 2 - len(left)


@pytest.mark.parametrize("low", [0.0, names.MIN_DEFAULT, -0.5])
@pytest.mark.parametrize("residual", [False, True])
def test_a_convolution_left_dense_is_the_op_with_everything_kept(low, residual):
    rng = np.random.default_rng(4)
    x, w, b, z = (rng.standard_normal(s).astype(np.float32) for s in ((1, 4, 3, 7, 6), (6, 2, 3, 2, 1), (6,),
                                                                      (1, 6, 2, 4, 6)))
    inputs = ["x", "w", "b", "t", "c", "h"] + (["z"] if residual else [])
    node = Node(names.GATED_CONV3D_ADD if residual else names.GATED_CONV3D, inputs, ["y"], "layer", names.DOMAIN)
    node.set(strides=[1, 2, 1], pads=[0, 1, 0, 1, 0, 0], dilations=[1, 1, 1], group=2, min=low)
    nodes = graph_edit.dense_nodes(node)
    onnx_nodes = [onnx.NodeProto.FromString(n.to_bytes()) for n in nodes]
    values = {"x": x, "w": w, "b": b, **({"z": z} if residual else {})}
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, v.shape) for n, v in values.items()]
    graph = onnx.helper.make_graph(onnx_nodes, "g", info, [onnx.helper.make_tensor_value_info(
        "y", onnx.TensorProto.FLOAT, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], values)[0]
    from dance_deploy.ops import definition
    every = [np.ones(s, bool) for s in ((1, 3), (1, 4), (1, 7, 6))]
    expected = definition.gated_conv3d(x, w, b, *every, z if residual else None, strides=(1, 2, 1),
                                       pads=(0, 1, 0, 1, 0, 0), group=2, minimum=low)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_channels_last_cannot_be_left_dense():
    with pytest.raises(InputError, match="cannot be left dense"):
        graph_edit.dense_nodes(Node("GatedConv3dCl", list("xwbtch"), ["y"], "layer", names.DOMAIN))


@pytest.mark.parametrize("pinned", [(), ("block.a",), ("block.a", "block.b", "block.shortcut")])
def test_half_precision_in_the_graph(files, pinned):
    body = Model(files["body.onnx"] + files["body_masks.onnxpart"])
    graph_edit.to_half(body, pinned)
    graph_edit.drop_unused_weights(body)
    model = onnx.load_from_string(body.to_bytes())
    weights = {i.name: i.data_type for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type.startswith("GatedConv3d"):
            wanted = onnx.TensorProto.FLOAT if node.name in pinned else onnx.TensorProto.FLOAT16
            assert {weights[name] for name in node.input[1:3]} == {wanted}, node.name
            assert not any(name.endswith("/half") for name in node.input[3:6])  # masks are no numbers
    exact = reference(files["body.onnx"] + files["body_masks.onnxpart"], feeds(0.0))
    half = reference(body.to_bytes(), feeds(0.0))
    assert half["logits"].dtype == np.float32 and half["kept"].tolist() == exact["kept"].tolist()
    np.testing.assert_allclose(half["logits"], exact["logits"], rtol=2e-2, atol=2e-2)
    if len(pinned) == 3:
        np.testing.assert_array_equal(half["logits"], exact["logits"])


def test_thresholds_are_computed_in_float32(files):
    controller = Model(files["controller.onnx"])
    behind = graph_edit.behind_stem(controller)
    assert "stem" not in behind and {"largest", "average", "tau"} <= set(behind)
    graph_edit.to_half(controller, behind)
    clip = np.random.default_rng(0).standard_normal((1, 3, 4, 16, 16)).astype(np.float32)
    feed = {"clip": clip, "budget": np.array([0.3], np.float32)}
    half, exact = reference(controller.to_bytes(), feed), reference(files["controller.onnx"], feed)
    assert not np.array_equal(half["stem"], exact["stem"])
    np.testing.assert_allclose(half["tau"], exact["tau"], rtol=2e-3)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("number", [0, 1])
def test_one_gate_alone_computes_what_it_computes_inside(files, number, gated):
    data = files["body.onnx"] + files["body_masks.onnxpart"]
    inside = reference(data, feeds(0.0 if not gated else 1.0), ["stem", "sum", "short", "out", *MASKS[number]])
    alone = Model(data)
    shapes = graph_edit.only_one_gate(alone, number, SIZES[number], gated)
    onnx.checker.check_model(onnx.load_from_string(alone.to_bytes()))
    z = {"block.a.z": inside["short"], "block.b.z": inside["sum"]}
    given_values = {"stem": inside["stem"], "sum": inside["sum"], "tau.row": np.ones((1, 3), np.float32), **z}
    given_values.update((name + ".given", inside[name]) for name in MASKS[number])
    assert set(shapes) <= set(given_values)
    got = reference(alone.to_bytes(), {name: given_values[name] for name in shapes})
    for name in ("sum", "short", "out"):
        if name in got:
            np.testing.assert_allclose(got[name], inside[name], rtol=1e-4, atol=1e-5)
    assert (MASKS[number][0] in got) == gated


MASKS = [["gate%d.%s" % (layer, mask) for mask in names.MASK_NAMES] for layer in (0, 1)]


def test_weights_are_not_copied_while_reading(files):
    model = Model(files["dense.onnx"])
    assert all(isinstance(data, memoryview) for data in model.weights.values())


def test_a_gate_node_is_read_with_its_attributes():
    node = Node.from_bytes(gate_node(["x", "tau"], ["a", "b", "c"], "gate").SerializeToString())
    assert (node.domain, node.attribute("plugin_version"), node.attribute("plugin_namespace")) == ("dance", "1", "")
    assert node.attribute("no such", 7) == 7
