"""The ONNX function bodies, run by a plain ONNX Runtime without our library, against the definition."""
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from ops_cases import conv_cases, gate_cases, make_conv_case

from dance_deploy.errors import InputError
from dance_deploy.ops import definition, names

onnx = pytest.importorskip("onnx", reason="needs onnx")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

from dance_deploy.ops import functions  # noqa: E402

TYPES = {"int64": onnx.TensorProto.INT64, "bool": onnx.TensorProto.BOOL,
         "float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}


def values(specs):
    return [onnx.helper.make_tensor_value_info(name, TYPES[kind], [None] * rank) for name, kind, rank in specs]


def model_of(node, inputs, outputs, opset, ir_version, mask_dtype, float_type):
    """One-node model; inputs and outputs: (name, type, rank)."""
    graph = onnx.helper.make_graph([node], "case", values(inputs), values(outputs))
    model = onnx.helper.make_model(
        graph, ir_version=ir_version, functions=functions.dance_functions(opset, mask_dtype, float_type),
        opset_imports=[onnx.helper.make_opsetid("", opset),
                       onnx.helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)])
    onnx.checker.check_model(model, full_check=True)
    return model


def session_of(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gate_model(opset, ir_version, mask_dtype, float_type="float32", channels_last=False):
    node = functions.gate_node(names.GATE_INPUTS, names.MASK_NAMES, "gate", channels_last=channels_last)
    masks = list(zip(names.MASK_NAMES, [mask_dtype] * 3, (2, 2, 3)))
    return model_of(node, [("X", float_type, 5), ("tau", "float32", 2)], masks, opset, ir_version, mask_dtype,
                    float_type)


def conv_model(opset, ir_version, mask_dtype, float_type="float32", channels_last=False, with_z=False, node=None,
               **attributes):
    inputs = [("X", float_type, 5), ("W", float_type, 5), ("B", float_type, 1)]
    inputs += list(zip(names.MASK_NAMES, [mask_dtype] * 3, (2, 2, 3)))
    inputs += [("Z", float_type, 5)] if with_z else []
    node = node or functions.conv_node([name for name, _, _ in inputs], "Y", "conv", channels_last=channels_last,
                                       **attributes)
    return model_of(node, inputs, [("Y", float_type, 5)], opset, ir_version, mask_dtype, float_type)


@functools.cache
def newest_opset():
    """The newest opset that both onnx and this ONNX Runtime know."""
    for opset in range(onnx.defs.onnx_opset_version(), functions.OLDEST_OPSET, -1):
        try:
            session_of(gate_model(opset, 10, "bool"))
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    raise RuntimeError("ONNX Runtime loads none of the opsets that onnx writes")


VERSIONS = [(13, 8), (13, 10), (17, 8), (18, 8), (21, 10), ("newest", 10)]
every_version = pytest.mark.parametrize("opset, ir_version", VERSIONS)
both_masks = pytest.mark.parametrize("mask_dtype", ["bool", "float32"])
both_layouts = pytest.mark.parametrize("channels_last", [False, True])


def number(opset):
    return newest_opset() if opset == "newest" else opset


def test_newest_opset_is_newer_than_the_named_ones():
    assert newest_opset() > 21


@functools.cache
def gate_session(opset, ir_version, mask_dtype, float_type="float32", channels_last=False):
    return session_of(gate_model(opset, ir_version, mask_dtype, float_type, channels_last))


def run_gate(session, x, tau, channels_last=False):
    feed = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if channels_last else x
    return definition.GateMasks(*session.run(list(names.MASK_NAMES), {"X": feed, "tau": tau}))


@every_version
@both_masks
@both_layouts
@settings(max_examples=12, deadline=None)
@given(case=gate_cases())
def test_gate_function_decides_like_the_definition(opset, ir_version, mask_dtype, channels_last, case):
    x, tau = case
    masks = run_gate(gate_session(number(opset), ir_version, mask_dtype, "float32", channels_last), x, tau,
                     channels_last)
    assert definition.check_masks(x, tau, masks) == []
    if mask_dtype == "float32":
        assert all(np.isin(mask, [0, 1]).all() for mask in masks)


@both_masks
@settings(max_examples=15, deadline=None)
@given(case=gate_cases())
def test_gate_function_in_float16(mask_dtype, case):
    x, tau = case[0].astype(np.float16), case[1]
    masks = run_gate(gate_session(17, 8, mask_dtype, "float16"), x, tau)
    assert definition.check_masks(x, tau, masks) == []


def test_gate_function_sums_float16_in_float32():
    x = np.full((1, 4, 4, 32, 32), 1000, np.float16)
    x[:, :, 1] = 10
    masks = run_gate(gate_session(17, 8, "bool", "float16"), x, np.array([[0.5, 0, 0]], np.float32))
    np.testing.assert_array_equal(masks.frame_keep, [[True, False, True, True]])


def test_gate_function_is_accurate_on_a_large_tensor():
    rng = np.random.default_rng(0)
    x = rng.random((1, 16, 16, 112, 112), dtype=np.float32)    # means so alike that many are near the threshold
    tau = np.ones((1, 3), np.float32)
    masks = run_gate(gate_session(17, 8, "bool"), x, tau)
    assert definition.check_masks(x, tau, masks) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tau", [(0, 0, 0), (0.5, 0.5, 0.5), (3, 3, 3)])
def test_gate_function_hides_no_fault(value, tau):
    x = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float32).reshape(2, 3, 4, 5, 6)
    x[1, 2, 1, 3, 4] = value
    tau = np.array([tau, tau], np.float32)
    masks = run_gate(gate_session(17, 8, "bool"), x, tau)
    for mask, expected in zip(masks, definition.activation_gate(x, tau)):
        np.testing.assert_array_equal(mask, expected)
    assert masks.frame_keep[1, 1]
    assert masks.channel_keep[1, 2]
    assert masks.feature_keep[1, 3, 4]


@both_layouts
def test_gate_function_keeps_all_that_attain_the_largest(channels_last):
    session = gate_session(17, 8, "bool", channels_last=channels_last)
    for shape in ((1, 3, 3, 7, 7), (1, 7, 5, 9, 11), (2, 33, 4, 17, 30)):
        tau = np.full((shape[0], 3), 1.01, np.float32)
        masks = run_gate(session, np.full(shape, 0.1, np.float32), tau, channels_last)
        assert all(mask.all() for mask in masks)


def run_conv(session, case, channels_last=False, mask_dtype="bool"):
    def layout(a):
        return np.ascontiguousarray(np.moveaxis(a, 1, -1)) if channels_last else a

    feed = {"X": layout(case.x), "W": case.w, "B": case.b}
    feed.update((name, mask.astype(mask_dtype)) for name, mask in zip(names.MASK_NAMES, case.masks))
    if case.z is not None:
        feed["Z"] = layout(case.z)
    y = session.run(["Y"], feed)[0]
    return np.moveaxis(y, -1, 1) if channels_last else y


def reference_of(case, minimum=names.MIN_DEFAULT, **more):
    return definition.reference(case.x, case.w, case.b, *case.masks, case.z, minimum=minimum, **case.attributes,
                                **more)


@every_version
@both_masks
@settings(max_examples=12, deadline=None)
@given(case=conv_cases())
def test_conv_function_computes_like_the_definition(opset, ir_version, mask_dtype, case):
    session = session_of(conv_model(number(opset), ir_version, mask_dtype, with_z=case.z is not None, min=-0.5,
                                    **case.attributes))
    y = run_conv(session, case, mask_dtype=mask_dtype)
    assert definition.check_output(y, reference_of(case, minimum=-0.5), with_norm=False) == []


@both_masks
@settings(max_examples=15, deadline=None)
@given(case=conv_cases())
def test_channels_last_conv_function(mask_dtype, case):
    session = session_of(conv_model(13, 8, mask_dtype, channels_last=True, with_z=case.z is not None, min=0.0,
                                    **case.attributes))
    y = run_conv(session, case, channels_last=True, mask_dtype=mask_dtype)
    assert definition.check_output(y, reference_of(case, minimum=0), with_norm=False) == []


@settings(max_examples=20, deadline=None)
@given(case=conv_cases(dtypes=(np.float16,)))
def test_conv_function_in_float16(case):
    session = session_of(conv_model(17, 8, "bool", "float16", with_z=case.z is not None, **case.attributes))
    # a runtime may round the convolution to float16 before it adds the residual
    expected = reference_of(case, eps=None if case.z is None else np.finfo(np.float16).eps)
    assert definition.check_output(run_conv(session, case), expected, with_norm=False) == []


def sized_case(keep=0.6, **more):
    arguments = {"n": 2, "c_per_group": 6, "m_per_group": 5, "group": 2, "size": (4, 9, 8), "kernel": (3, 3, 1),
                 "strides": (1, 2, 1), "pads": (1, 1, 0, 1, 0, 1), "dilations": (1, 1, 2)}
    return make_conv_case(np.random.default_rng(7), keep=keep, **{**arguments, **more})


@both_layouts
def test_the_norm_too_is_within_the_contract(channels_last):
    case = sized_case(with_z=True)
    session = session_of(conv_model(13, 8, "bool", channels_last=channels_last, with_z=True, **case.attributes))
    assert definition.check_output(run_conv(session, case, channels_last), reference_of(case)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_pruned_slice_holds_never_shows(value):
    case = sized_case()
    session = session_of(conv_model(13, 8, "bool", **case.attributes))
    frames, channels, features = case.masks
    keep = frames[:, None, :, None, None] & channels[:, :, None, None, None] & features[:, None, None]
    assert not keep.all()
    poisoned = case._replace(x=np.where(keep, case.x, np.float32(value)))
    np.testing.assert_array_equal(run_conv(session, poisoned), run_conv(session, case))


def test_a_kept_nan_shows_also_through_the_clamp():
    case = sized_case(keep=1)
    case.x[1, 3, 2, 4, 4] = np.nan
    session = session_of(conv_model(13, 8, "bool", min=0.0, **case.attributes))
    y = run_conv(session, case)
    expected = reference_of(case, minimum=0)
    assert np.isnan(y).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected.y))


def test_none_kept_is_the_bias_and_residual_clamped():
    case = sized_case(keep=0, with_z=True)
    session = session_of(conv_model(13, 8, "bool", with_z=True, min=0.25, **case.attributes))
    expected = np.maximum(case.z + case.b[:, None, None, None], np.float32(0.25))
    np.testing.assert_array_equal(run_conv(session, case), expected)


@pytest.mark.parametrize("ir_version", [8, 9, 10])
@pytest.mark.parametrize("with_z", [False, True])
def test_attributes_have_their_defaults(ir_version, with_z):
    """A node that carries no attribute at all: strides 1, no padding, one group, and no clamp."""
    case = sized_case(group=1, strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1), with_z=with_z)
    inputs = names.CONV_ADD_INPUTS if with_z else names.CONV_INPUTS
    bare = onnx.helper.make_node(names.GATED_CONV3D_ADD if with_z else names.GATED_CONV3D, inputs, ["Y"],
                                 domain=names.DOMAIN)
    y = run_conv(session_of(conv_model(13, ir_version, "bool", with_z=with_z, node=bare)), case)
    assert (y < 0).any()
    assert definition.check_output(y, reference_of(case)) == []


def test_the_plugin_attributes_change_nothing():
    case = sized_case()
    model = conv_model(13, 8, "bool", **case.attributes)
    assert {a.name for a in model.graph.node[0].attribute} >= set(names.PLUGIN_ATTRIBUTES)
    with_them = run_conv(session_of(model), case)
    kept = [a for a in model.graph.node[0].attribute if a.name not in names.PLUGIN_ATTRIBUTES]
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend(kept)
    np.testing.assert_array_equal(run_conv(session_of(model), case), with_them)


@pytest.mark.parametrize("opset, ir_version", [(13, 8), (21, 10)])
def test_inlined_by_onnx_it_is_the_same(opset, ir_version):
    """The plugin-free route to other parsers: nodes that carry every attribute survive ONNX's own inliner."""
    import onnx.inliner

    case = sized_case(with_z=True)
    model = conv_model(opset, ir_version, "bool", with_z=True, min=-0.5, **case.attributes)
    flat = onnx.inliner.inline_local_functions(model)
    assert {node.domain for node in flat.graph.node} == {""}
    onnx.checker.check_model(flat, full_check=True)
    np.testing.assert_array_equal(run_conv(session_of(flat), case), run_conv(session_of(model), case))


def test_nodes_carry_every_attribute():
    node = functions.conv_node(list(names.CONV_INPUTS), "Y", "c", strides=[1, 2, 2])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes["strides"] == [1, 2, 2]
    assert attributes["pads"] == [0] * 6
    assert attributes["dilations"] == [1, 1, 1]
    assert attributes["group"] == 1
    assert attributes["min"] == np.float32(names.MIN_DEFAULT) == np.finfo(np.float32).min
    assert (node.domain, node.op_type) == ("dance", "GatedConv3d")
    assert functions.conv_node(list(names.CONV_ADD_INPUTS), "Y", "c", channels_last=True).op_type == "GatedConv3dAddCl"


@pytest.mark.parametrize("opset, ir_version, float_type", [(13, 8, "float32"), (17, 8, "float32"), (18, 10, "float16")])
@both_masks
def test_magnitudes_are_handed_on_and_decided_from(opset, ir_version, float_type, mask_dtype):
    """A node of every op that writes them, each with a gate behind it where its output is channels last."""
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((2, 4, 3, 6, 5)) * rng.gamma(1.0, 1.0, (2, 4, 3, 1, 1))).astype(float_type)
    w, b = rng.standard_normal((4, 4, 1, 3, 3)).astype(float_type), np.zeros(4, float_type)
    keep = {"k0": np.ones((2, 3), mask_dtype), "k1": np.ones((2, 4), mask_dtype), "k2": np.ones((2, 6, 5), mask_dtype)}
    conv = {"pads": [0, 1, 1] * 2}
    nodes = [functions.to_channels_last_node("X", "a", "to_last"),
             functions.conv_node(["a", "W", "B", *keep], "b", "conv", channels_last=True, **conv),
             functions.conv_node(["b", "W", "B", *keep, "a"], "c", "add", channels_last=True, **conv),
             functions.max_pool_node("c", "d", "pool", (1, 2, 2), (1, 2, 2), (0,) * 6),
             functions.conv_node(["X", "W", "B", *keep], "e", "first", **conv)]
    for node in nodes:
        functions.hand_on_magnitudes(node, node.output[0] + ".c", node.output[0] + ".p")
    assert {node.op_type for node in nodes} == set(names.WITH_MAGNITUDES.values())
    outputs = [(name, float_type if rank == 5 else "float32", rank)
               for node in nodes for name, rank in zip(node.output, (5, 3, 4))]
    for tensor in "abcd":
        masks = [tensor + kind for kind in names.MASK_NAMES]
        nodes.append(functions.gate_node([tensor, "tau", tensor + ".c", tensor + ".p"], masks + [tensor + names.KEPT],
                                         "gate." + tensor, channels_last=True))
        outputs += list(zip(masks, [mask_dtype] * 3, (2, 2, 3))) + [(tensor + names.KEPT, "int64", 2)]
    graph = onnx.helper.make_graph(
        nodes, "chain", values([("X", float_type, 5), ("tau", "float32", 2)]), values(outputs),
        [onnx.numpy_helper.from_array(value, name) for name, value in {"W": w, "B": b, **keep}.items()])
    model = onnx.helper.make_model(
        graph, ir_version=ir_version, functions=functions.dance_functions(opset, mask_dtype, float_type),
        opset_imports=[onnx.helper.make_opsetid("", opset),
                       onnx.helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)])
    onnx.checker.check_model(model, full_check=True)
    tau = np.array([[0.9, 0.9, 0.9], [1.1, 0.0, 0.8]], np.float32)
    session = session_of(model)
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"X": x, "tau": tau})))
    for tensor in "abcde":
        y = found[tensor] if tensor == "e" else np.moveaxis(found[tensor], -1, 1)
        for name, expected in zip((".c", ".p"), definition.magnitudes(y)):
            np.testing.assert_allclose(found[tensor + name], expected, rtol=5e-6)
        if tensor != "e":
            masks = [found[tensor + kind] for kind in names.MASK_NAMES]
            assert definition.check_masks(y, tau, definition.GateMasks(*masks)) == []
            assert found[tensor + names.KEPT].tolist() == [[int(m[n].sum()) for m in masks] for n in range(2)]


def test_every_op_has_a_function():
    # that of Thresholds is the exporter's, which knows the controller
    assert {f.name for f in functions.dance_functions(17)} == set(names.OP_TYPES) - {names.THRESHOLDS}
    assert {f.domain for f in functions.dance_functions(17)} == {names.DOMAIN}


@pytest.mark.parametrize("arguments, expected", [
    ((12,), "opset 12 | expected 13 or newer"),
    ((17, "int32"), "mask_dtype is 'int32' | expected one of bool, float32"),
    ((17, "bool", "bfloat16"), "float_type is 'bfloat16' | expected one of float32, float16"),
])
def test_impossible_functions_are_refused(arguments, expected):
    with pytest.raises(InputError) as refused:
        functions.dance_functions(*arguments)
    assert expected in str(refused.value)


def test_an_unknown_attribute_is_refused():
    with pytest.raises(InputError, match="attribute 'padding' | expected one of strides"):
        functions.conv_node(list(names.CONV_INPUTS), "Y", "c", padding=[1] * 6)
