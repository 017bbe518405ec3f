"""The op library inside ONNX Runtime: types, layouts, errors, threads, and that it wins over the model's functions."""
import json
import os
import subprocess
import sys
import tempfile
import threading

import native_kernels
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dance_deploy.ops import definition, functions, names
from dance_deploy.runtime import kernels

FLOATS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}
SHAPE = {"X": (2, 5, 4, 9, 8), "W": (7, 5, 3, 3, 3)}
ATTRIBUTES = {"strides": (1, 2, 1), "pads": (1, 1, 1, 1, 1, 1)}
MASKS = list(names.MASK_NAMES)


@pytest.fixture(scope="module")
def path():
    if kernels.library_path() is None:
        pytest.skip("the kernels are not built; " + kernels.HOW_TO_BUILD)
    return kernels.library_path()


def open_session(path, model, threads=2, **entries):
    options = ort.SessionOptions()
    options.log_severity_level = 4    # refusals are expected here
    options.intra_op_num_threads = threads
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("_", ".", 1), value)
    if path:
        options.register_custom_ops_library(path)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def conv_model(w, b, *, add=False, channels_last=False, mask_type=TensorProto.BOOL, constant=True, gate=False,
               local_functions=(), attributes=ATTRIBUTES):
    """X (, W, B), masks or tau (, Z) -> Y, and the masks where `gate`."""
    float_type = FLOATS[w.dtype.type]
    op = names.GATED_CONV3D_ADD if add else names.GATED_CONV3D
    gate_op = names.ACTIVATION_GATE
    if channels_last:
        op, gate_op = names.CHANNELS_LAST[op], names.CHANNELS_LAST[gate_op]
    inputs = {"X": float_type, **({"tau": TensorProto.FLOAT} if gate else dict.fromkeys(MASKS, mask_type))}
    if add:
        inputs["Z"] = float_type
    if not constant:
        inputs.update(W=float_type, B=float_type)
    nodes = [helper.make_node(gate_op, ["X", "tau"], MASKS, name="gate0", domain=names.DOMAIN,
                              **names.PLUGIN_ATTRIBUTES)] if gate else []
    nodes.append(helper.make_node(op, ["X", "W", "B", *MASKS, *(["Z"] if add else [])], ["Y"], name="layer1.conv1",
                                  domain=names.DOMAIN, **names.PLUGIN_ATTRIBUTES, **attributes))
    outputs = {"Y": float_type, **(dict.fromkeys(MASKS, TensorProto.BOOL) if gate else {})}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(w, "W"), numpy_helper.from_array(b, "B")] if constant else [])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(local_functions))


def to_layout(array, channels_last):
    return np.ascontiguousarray(np.transpose(array, (0, 2, 3, 4, 1))) if channels_last else array


def tensors(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x, w, b, z = (rng.standard_normal(shape).astype(dtype) for shape in (SHAPE["X"], SHAPE["W"], (7,), (2, 7, 4, 5, 8)))
    return x, w, b, z


def draw_masks(rng):
    n, c, t, h, w = SHAPE["X"]
    return [rng.random(shape) < 0.6 for shape in ((n, t), (n, c), (n, h, w))]


@pytest.mark.parametrize("constant", (True, False))
@pytest.mark.parametrize("add", (False, True))
@pytest.mark.parametrize("mask_type", (np.bool_, np.float32))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("channels_last", (False, True))
def test_conv_agrees_with_the_definition(path, channels_last, dtype, mask_type, add, constant):
    x, w, b, z = tensors(dtype)
    masks = draw_masks(np.random.default_rng(1))
    kind = TensorProto.BOOL if mask_type is np.bool_ else TensorProto.FLOAT
    model = conv_model(w, b, add=add, channels_last=channels_last, mask_type=kind, constant=constant,
                       attributes={**ATTRIBUTES, "min": 0.0})
    session = open_session(path, model)
    feed = {"X": to_layout(x, channels_last), **{name: m.astype(mask_type) for name, m in zip(MASKS, masks)}}
    feed.update({"Z": to_layout(z, channels_last)} if add else {}, **({} if constant else {"W": w, "B": b}))
    (y,) = session.run(None, feed)
    y = np.transpose(y, (0, 4, 1, 2, 3)) if channels_last else y
    reference = definition.reference(x, w, b, *masks, z=z if add else None, minimum=0.0, **ATTRIBUTES)
    assert definition.check_output(y, reference) == []


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("channels_last", (False, True))
def test_gate_and_conv_in_one_graph(path, channels_last, dtype):
    x, w, b, _ = tensors(dtype)
    tau = np.array([[1.0, 0.9, 1.0], [0.0, 1.0, 0.0]], np.float32)
    session = open_session(path, conv_model(w, b, gate=True, channels_last=channels_last))
    y, *masks = session.run(None, {"X": to_layout(x, channels_last), "tau": tau})
    assert definition.check_masks(x, tau, definition.GateMasks(*masks)) == []
    y = np.transpose(y, (0, 4, 1, 2, 3)) if channels_last else y
    assert definition.check_output(y, definition.reference(x, w, b, *masks, **ATTRIBUTES)) == []


def test_missing_attributes_take_the_defaults_of_the_ops(path):
    """Also the one constant that C++ repeats: with `min` missing, the lowest finite float32."""
    x, w, b, _ = tensors()
    b[0] = -np.inf
    masks = draw_masks(np.random.default_rng(2))
    session = open_session(path, conv_model(w, b, attributes={}))
    (y,) = session.run(None, {"X": x, **dict(zip(MASKS, masks))})
    np.testing.assert_array_equal(y[:, 0], np.float32(names.MIN_DEFAULT))
    assert y.shape == definition.gated_conv3d(x, w, b, *masks).shape


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("add", (False, True))
def test_library_is_taken_before_the_functions_of_the_model(path, add, channels_last):
    """One file: a profile of the run shows our two kernels where the library is registered, standard ops where not."""
    x, w, b, z = tensors()
    tau = np.array([[1.0, 1.0, 1.0]] * 2, np.float32)
    model = conv_model(w, b, gate=True, add=add, channels_last=channels_last,
                       local_functions=functions.dance_functions(17),
                       attributes={**ATTRIBUTES, "dilations": (1, 1, 1), "group": 1, "min": 0.0})
    feed = {"X": to_layout(x, channels_last), "tau": tau, **({"Z": to_layout(z, channels_last)} if add else {})}
    with_library, without = (open_session(one, model).run(None, feed) for one in (path, None))
    ops = {names.ACTIVATION_GATE, names.GATED_CONV3D_ADD if add else names.GATED_CONV3D}
    ops = {names.CHANNELS_LAST[op] for op in ops} if channels_last else ops
    assert operators_run(path, model, feed) == ops
    assert not operators_run(None, model, feed) & ops
    for ours, theirs in zip(with_library[1:], without[1:]):
        np.testing.assert_array_equal(ours, theirs)
    reference = definition.reference(x, w, b, *with_library[1:], z=z if add else None, minimum=0.0, **ATTRIBUTES)
    y = np.transpose(with_library[0], (0, 4, 1, 2, 3)) if channels_last else with_library[0]
    assert definition.check_output(y, reference) == []


def operators_run(path, model, feed):
    """Op types of the nodes that a profiled run executed."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "run")
        if path:
            options.register_custom_ops_library(path)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, feed)
        with open(session.end_profiling(), encoding="utf-8") as events:
            return {event["args"]["op_name"] for event in json.load(events) if event.get("cat") == "Node"}


WRONG_SHAPES = {
    "rank of X": ({"X": np.zeros((5, 4, 9, 8), np.float32)}, ["X is [5,4,9,8]", "[N,C,T,H,W]"]),
    "empty X": ({"X": np.zeros((2, 5, 0, 9, 8), np.float32)}, ["X is [2,5,0,9,8]", "at least 1"]),
    "channels": ({"X": np.zeros((2, 4, 4, 9, 8), np.float32)},
                 ["W is [7,5,3,3,3], expected [7,4,3,3,3]", "X [2,4,4,9,8]"]),
    "frames": ({MASKS[0]: np.zeros((2, 3), bool)}, ["frame_keep is [2,3], expected [2,4]", "X is [2,5,4,9,8]"]),
    "channel mask": ({MASKS[1]: np.zeros((1, 5), bool)}, ["channel_keep is [1,5], expected [2,5]", "X is [2,5,4,9,8]"]),
    "feature mask": ({MASKS[2]: np.zeros((2, 8, 9), bool)}, ["feature_keep is [2,8,9], expected [2,9,8]"]),
    "Z": ({"Z": np.zeros((2, 7, 4, 5, 7), np.float32)}, ["Z is [2,7,4,5,7], expected [2,7,4,5,8]", "X [2,5,4,9,8]"]),
    "rank of W": ({"W": np.zeros((7, 5, 3, 3), np.float32)}, ["W is [7,5,3,3]", "X [2,5,4,9,8]"]),
    "B": ({"B": np.zeros(6, np.float32)}, ["B is [6], expected [7]", "W [7,5,3,3,3]"]),
    "kernel": ({"W": np.zeros((7, 5, 3, 3, 12), np.float32)}, ["W is [7,5,3,3,12]", "fits into X [2,5,4,9,8]"]),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_a_shape_that_does_not_fit_is_refused_by_name(path, case):
    changes, said = WRONG_SHAPES[case]
    x, w, b, z = tensors()
    session = open_session(path, conv_model(w, b, add=True, constant=False))
    feed = {"X": x, "W": w, "B": b, "Z": z, **dict(zip(MASKS, draw_masks(np.random.default_rng(3))))}
    session.run(None, feed)
    with pytest.raises(Exception) as refused:
        session.run(None, {**feed, **changes})
    for part in ["GatedConv3dAdd 'layer1.conv1': ", *said]:
        assert part in str(refused.value)
    session.run(None, feed)    # and the session goes on


@pytest.mark.parametrize("attributes, said", [
    ({"strides": (1, 1)}, "strides is [1,1], expected 3 integer(s), each at least 1"),
    ({"strides": (1, 0, 1)}, "strides is [1,0,1]"),
    ({"pads": (0, 0, 0, -1, 0, 0)}, "pads is [0,0,0,-1,0,0], expected 6 integer(s), each at least 0"),
    ({"dilations": (1, 1, 1 << 40)}, "dilations is [1,1,1099511627776]"),
    ({"group": 0}, "group is [0]"),
    ({"min": "0"}, "attribute min"),
    ({"group": 5}, "expected [7,1,kT,kH,kW]"),
    ({"group": 2}, "expected C divisible by group=2"),
    ({"pads": (1 << 31,) * 6}, "expected a smaller output"),
])
def test_a_bad_attribute_is_refused_by_name(path, attributes, said):
    x, w, b, _ = tensors()
    feed = {"X": x, **dict(zip(MASKS, draw_masks(np.random.default_rng(3))))}
    with pytest.raises(Exception) as refused:
        open_session(path, conv_model(w, b, attributes=attributes)).run(None, feed)
    assert "GatedConv3d 'layer1.conv1': " in str(refused.value)
    assert said.replace("[7,1,kT,kH,kW]", "[7,1,3,3,3]") in str(refused.value)


def test_gate_refuses_by_name(path):
    x, w, b, _ = tensors()
    session = open_session(path, conv_model(w, b, gate=True))
    wrong = (({"X": x, "tau": np.zeros((1, 3), np.float32)}, "tau is [1,3], expected [2,3] (N of X [2,5,4,9,8])"),
             ({"X": x[0], "tau": np.zeros((2, 3), np.float32)}, "X is [5,4,9,8]"))
    for feed, said in wrong:
        with pytest.raises(Exception) as refused:
            session.run(None, feed)
        assert "ActivationGate 'gate0': " + said in str(refused.value)


def test_result_does_not_depend_on_the_threads_of_the_session(path):
    rng = np.random.default_rng(4)
    w, b = rng.standard_normal((20, 24, 3, 3, 3)).astype(np.float32), rng.standard_normal(20).astype(np.float32)
    feed = {"X": rng.standard_normal((1, 24, 6, 30, 31)).astype(np.float32), "tau": np.full((1, 3), 0.98, np.float32)}
    runs = [open_session(path, conv_model(w, b, gate=True), threads=threads).run(None, feed) for threads in (1, 2, 4)]
    for other in runs[1:]:
        for ours, first in zip(other, runs[0]):
            np.testing.assert_array_equal(ours, first)


def test_winograd_can_be_turned_off_for_a_session(path):
    """Both ways are within the bound and differ in rounding; turned off, the result is the direct kernel's."""
    rng = np.random.default_rng(7)
    w, b = rng.standard_normal((64, 64, 3, 3, 3)).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    x = rng.standard_normal((1, 64, 3, 20, 20)).astype(np.float32)
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 64), (1, 20, 20))]
    pads = (1,) * 6
    model = conv_model(w, b, attributes={"pads": pads})
    default, on, off = (open_session(path, model, **entries).run(None, {"X": x, **dict(zip(MASKS, masks))})[0]
                        for entries in ({}, {"dance_winograd": "1"}, {"dance_winograd": "0"}))
    expected = definition.reference(x, w, b, *masks, pads=pads)
    assert definition.check_output(on, expected) == definition.check_output(off, expected) == []
    np.testing.assert_array_equal(default, on)
    assert not np.array_equal(on, off)
    direct = native_kernels.gated_conv3d(native_kernels.library(), x, w, b, masks, pads=pads, variant=1)
    np.testing.assert_array_equal(off, direct)
    with pytest.raises(Exception, match=r"dance\.winograd is 'off', expected 0 .* or 1"):
        open_session(path, model, dance_winograd="off")


def test_costs_of_a_session_choose_its_variants(path):
    """Each session by its own: where tiles cost nothing, or too much; text that is no costs is refused in words."""
    rng = np.random.default_rng(7)
    w, b = rng.standard_normal((64, 64, 3, 3, 3)).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    x = rng.standard_normal((1, 64, 3, 20, 20)).astype(np.float32)
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 64), (1, 20, 20))]
    model = conv_model(w, b, attributes={"pads": (1,) * 6})
    sessions = [open_session(path, model, **entries) for entries in (
        {}, {"dance_costs": ""}, {"dance_costs": "product=100"}, {"dance_winograd": "0"},
        {"dance_costs": "product=0.01 in=0"}, {"dance_costs": "product=0.01 in=0", "dance_winograd": "0"})]
    default, empty, dear, direct, cheap, strict = (session.run(None, {"X": x, **dict(zip(MASKS, masks))})[0]
                                                   for session in sessions)
    np.testing.assert_array_equal(default, empty)
    np.testing.assert_array_equal(dear, direct)
    np.testing.assert_array_equal(strict, direct)
    assert not np.array_equal(default, dear) and not np.array_equal(cheap, direct)
    expected = definition.reference(x, w, b, *masks, pads=(1,) * 6)
    assert definition.check_output(cheap, expected) == definition.check_output(dear, expected) == []
    for text, said in (("in=fast", "'in' is 'fast', expected a number from 0 to 10000"),
                       ("speed=1", "'speed=1' is no cost, expected NAME=NUMBER"), ("in=1 in=2", "'in' is there twice"),
                       ("product=1e9", "'product' is '1e9'")):
        with pytest.raises(Exception) as refused:
            open_session(path, model, dance_costs=text)
        assert "dance ops: session config entry dance.costs: " + said in str(refused.value)


def test_a_session_may_multiply_in_bfloat16(path):
    """As the kernels called without ONNX Runtime; beside it a session in float32 that is not touched by it."""
    if not kernels.has_bf16(path):
        pytest.skip("this processor has no AVX512-BF16")
    rng = np.random.default_rng(7)
    w, b = rng.standard_normal((64, 64, 3, 3, 3)).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    x = rng.standard_normal((1, 64, 3, 20, 20)).astype(np.float32)
    masks = [rng.random(shape) < 0.8 for shape in ((1, 3), (1, 64), (1, 20, 20))]
    model = conv_model(w, b, attributes={"pads": (1,) * 6})
    sessions = [open_session(path, model, dance_precision=precision) for precision in ("fp32", "bf16")]
    exact, half = (session.run(None, {"X": x, **dict(zip(MASKS, masks))})[0] for session in sessions)
    assert definition.check_output(exact, definition.reference(x, w, b, *masks, pads=(1,) * 6)) == []
    direct = native_kernels.gated_conv3d(native_kernels.library(), x, w, b, masks, pads=(1,) * 6, bf16=True)
    np.testing.assert_array_equal(half, direct)
    assert 1e-4 < np.linalg.norm(half - exact) / np.linalg.norm(exact) < 1.3e-2


def test_a_precision_that_is_unknown_or_not_to_be_had_is_refused(path):
    model = conv_model(*tensors()[1:3])
    with pytest.raises(Exception, match=r"dance\.precision is 'half', expected fp32 or bf16"):
        open_session(path, model, dance_precision="half")
    library = native_kernels.library()
    if "avx2" in native_kernels.isas() and library.dance_force_isa(b"avx2"):
        try:
            with pytest.raises(Exception, match="has no AVX512-BF16; expected fp32"):
                open_session(path, model, dance_precision="bf16")
        finally:
            library.dance_force_isa(None)


def test_an_instruction_set_in_the_environment_that_is_not_to_be_had_is_refused(path):
    code = "import onnxruntime, sys; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    for name, refused in (("portable", False), ("amx512", True)):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True,
                              env={**os.environ, "DANCE_ISA": name})
        assert (done.returncode != 0) == refused
        assert ("environment variable DANCE_ISA is 'amx512'" in done.stderr) == refused
    named = done.stderr.split("name one of ")[1].splitlines()[0].split(", ")
    lib = native_kernels.library()
    here = {name for i, name in enumerate(native_kernels.isas()) if lib.dance_isa_supported(i)}
    assert set(named) & set(native_kernels.isas()) == here and set(named) <= here | set(native_kernels.bf16_variants())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are given back on Linux only")
@pytest.mark.parametrize("shared", [False, True])
def test_weights_are_given_back_where_one_node_alone_reads_them(path, shared):
    """Results stay; a look at W shows that its pages went, or that they stayed where two of our nodes read them."""
    rng = np.random.default_rng(11)
    w, b = rng.standard_normal((130, 65, 3, 1, 3)).astype(np.float32), rng.standard_normal(130).astype(np.float32)
    x = rng.standard_normal((1, 65, 3, 5, 4)).astype(np.float32)
    model = conv_model(w, b)
    graph = model.graph
    graph.node.append(helper.make_node("Mul", ["W", "scale"], ["seen"]))
    graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    if shared:
        second = graph.node.add()
        second.CopyFrom(graph.node[0])
        second.name, second.output[0] = "again", "Y2"
        graph.output.append(helper.make_tensor_value_info("Y2", TensorProto.FLOAT, None))
    feed = {"X": x, "scale": np.ones(1, np.float32),
            **{name: np.ones(shape, bool) for name, shape in zip(MASKS, ((1, 3), (1, 65), (1, 5, 4)))}}
    expected = open_session(path, model).run(["Y"], feed)[0]
    session = open_session(path, model, dance_weights_once="1")
    session.run(None, feed)
    y, seen, *more = session.run(None, feed)
    for got in (y, *more):
        np.testing.assert_array_equal(got, expected)
    if shared:
        np.testing.assert_array_equal(seen, w)
    else:
        assert np.count_nonzero(seen) < w.size / 4


def test_sessions_and_threads_at_once(path):
    """Two sessions, each run by two threads with inputs of their own, give what they give alone."""
    rng = np.random.default_rng(5)
    sessions, feeds = [], []
    for channels in (17, 24):
        w, b = rng.standard_normal((9, channels, 3, 3, 3)).astype(np.float32), rng.standard_normal(9).astype(np.float32)
        sessions += [open_session(path, conv_model(w, b, gate=True))] * 2
        for _ in range(2):
            feeds.append({"X": rng.standard_normal((1, channels, 4, 15, 16)).astype(np.float32),
                          "tau": np.full((1, 3), 0.99, np.float32)})
    expected = [session.run(None, feed) for session, feed in zip(sessions, feeds)]
    wrong = []

    def run(index):
        for _ in range(15):
            for got, first in zip(sessions[index].run(None, feeds[index]), expected[index]):
                if not np.array_equal(got, first):
                    wrong.append(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_of_a_session_stays_flat(path):
    """Resident memory after many runs with ever different masks is what it was after the first few."""
    rng = np.random.default_rng(6)
    w, b = rng.standard_normal((32, 32, 3, 3, 3)).astype(np.float32), np.zeros(32, np.float32)
    session = open_session(path, conv_model(w, b, gate=True))

    def resident_bytes():
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def run(times):
        for _ in range(times):
            tau = rng.uniform(0, 1.1, (1, 3)).astype(np.float32)
            session.run(None, {"X": rng.standard_normal((1, 32, 4, 28, 28)).astype(np.float32), "tau": tau})

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc/self/statm on this system")
    run(20)
    before = resident_bytes()
    run(100)
    activation_bytes = 32 * 4 * 28 * 28 * 4
    assert resident_bytes() - before < 10 * activation_bytes    # one leaked buffer a run would be 100


def layout_model(node):
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None] * 5)],
                              [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 5)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions.dance_functions(17))


def chain_model(x, w, b, hand_on):
    """Every op that can hand on magnitudes, each with a gate behind it where its output is channels last."""
    n, c, t, h, width = x.shape
    kept = {"k0": np.ones((n, t), bool), "k1": np.ones((n, c), bool), "k2": np.ones((n, h, width), bool)}
    nodes, outputs, found = [functions.to_channels_last_node("X", "a", "to_last")], [], {}

    def gate(name, tensor):
        magnitudes = []
        if hand_on:
            maker = next(node for node in nodes if node.output[0] == tensor)
            functions.hand_on_magnitudes(maker, tensor + ".c", tensor + ".p")
            magnitudes = [tensor + ".c", tensor + ".p"]
            found[tensor] = magnitudes
        masks = [name + kind for kind in MASKS]
        counts = [name + names.KEPT] if hand_on else []
        nodes.append(functions.gate_node([tensor, "tau", *magnitudes], masks + counts, name, channels_last=True))
        outputs.extend(masks + counts)
        return masks

    conv = {"pads": [1] * 6, "channels_last": True}
    nodes.append(functions.conv_node(["a", "W", "B", *gate("g0", "a")], "b", "conv", **conv))
    nodes.append(functions.conv_node(["b", "W", "B", *gate("g1", "b"), "a"], "d", "add", **conv))
    gate("g2", "d")
    nodes.append(functions.max_pool_node("d", "e", "pool", (1, 3, 3), (1, 1, 1), (0, 1, 1) * 2))
    nodes.append(functions.conv_node(["e", "W", "B", *gate("g3", "e")], "f", "last", **conv))
    nodes.append(functions.conv_node(["X", "W", "B", *kept], "h", "first", pads=[1] * 6))
    if hand_on:
        functions.hand_on_magnitudes(nodes[-1], "h.c", "h.p")
        found["h"] = ["h.c", "h.p"]
    outputs += ["a", "b", "d", "e", "f", "h", *(name for names_ in found.values() for name in names_)]
    kinds = {**{name: TensorProto.BOOL for name in outputs if name.endswith("_keep")},
             **{name: TensorProto.INT64 for name in outputs if name.endswith(names.KEPT)}}
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("X", "tau")],
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in {"W": w, "B": b, **kept}.items()])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions.dance_functions(17))
    return model, found


@pytest.mark.parametrize("tau", ([0.9, 0.0, 0.9], [0.9, 0.95, 0.9], [0.0, 0.0, 0.0]))
def test_magnitudes_handed_on_change_no_decision(path, tau):
    """With the library, by the functions, and by gates that read everything themselves: the same masks and outputs."""
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((2, 6, 4, 9, 8)) * rng.gamma(1.0, 1.0, (2, 6, 4, 1, 1))).astype(np.float32)
    w, b = rng.standard_normal((6, 6, 3, 3, 3)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    feed = {"X": x, "tau": np.array([tau] * 2, np.float32)}
    runs = []
    for library, hand_on in ((path, True), (None, True), (path, False)):
        model, found = chain_model(x, w, b, hand_on)
        session = open_session(library, model)
        runs.append(dict(zip([o.name for o in session.get_outputs()], session.run(None, feed))))
        for tensor, (channel, pixel) in found.items():
            y = runs[-1][tensor]
            expected = definition.magnitudes(y if tensor == "h" else np.transpose(y, (0, 4, 1, 2, 3)))
            np.testing.assert_allclose(runs[-1][channel], expected[0], rtol=5e-6)
            np.testing.assert_allclose(runs[-1][pixel], expected[1], rtol=5e-6)
    ours, theirs, plain = runs
    for name, mask in plain.items():
        if name.endswith("_keep"):
            np.testing.assert_array_equal(ours[name], mask)
            np.testing.assert_array_equal(theirs[name], mask)
            axis = [g + kind for g in ("g0", "g1", "g2", "g3") for kind in MASKS].index(name) % 3
            for run in (ours, theirs):
                np.testing.assert_array_equal(run[name[:2] + names.KEPT][:, axis], mask.reshape(2, -1).sum(1))
        else:
            np.testing.assert_array_equal(ours[name], mask)
            np.testing.assert_allclose(theirs[name], mask, rtol=1e-3, atol=1e-3 * np.abs(mask).max())


def test_a_gate_refuses_magnitudes_of_another_shape(path):
    node = functions.gate_node(["X", "tau", "c", "p"], [*MASKS, names.KEPT], "g", channels_last=True)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.input],
        [helper.make_tensor_value_info(names.KEPT, TensorProto.INT64, None)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    session = open_session(path, helper.make_model(graph, opset_imports=imports, ir_version=8))
    feed = {"X": np.ones((1, 2, 3, 4, 5), np.float32), "tau": np.ones((1, 3), np.float32),
            "c": np.ones((1, 2, 5), np.float32), "p": np.ones((1, 2, 3, 4), np.float32)}
    assert session.run(None, feed)[0].tolist() == [[2, 5, 12]]
    for name, shape, said in (("c", (1, 5, 2), "channel_magnitude is [1,5,2], expected [1,2,5] (X is [1,2,3,4,5])"),
                              ("p", (1, 2, 4, 3), "pixel_magnitude is [1,2,4,3], expected [1,2,3,4]")):
        with pytest.raises(Exception) as refused:
            session.run(None, {**feed, name: np.ones(shape, np.float32)})
        assert "ActivationGateMagnitudesCl 'g': " + said in str(refused.value)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 4, 5, 7), (1, 17, 3, 33, 34), (1, 64, 2, 20, 30)])
def test_to_channels_last_moves_and_changes_nothing(path, shape):
    model = layout_model(functions.to_channels_last_node("X", "Y", "to_last"))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x.flat[0] = np.nan
    for library in (path, None):
        np.testing.assert_array_equal(open_session(library, model).run(None, {"X": x})[0], to_layout(x, True))


POOLS = [((1, 2, 2), (1, 2, 2), (0,) * 6), ((2, 2, 2), (2, 2, 2), (0, 1, 1, 0, 1, 1)),
         ((3, 1, 2), (1, 3, 2), (2, 0, 0, 1, 0, 1)), ((1, 1, 1), (2, 1, 3), (0,) * 6)]


@pytest.mark.parametrize("channels", [1, 15, 16, 70])
@pytest.mark.parametrize("kernel, strides, pads", POOLS)
def test_max_pool_equals_its_function(path, kernel, strides, pads, channels):
    model = layout_model(functions.max_pool_node("X", "Y", "pool", kernel, strides, pads))
    x = np.random.default_rng(1).standard_normal((2, 5, 7, 8, channels)).astype(np.float32) - 9    # padding is not 0
    x[0, 1, 2] = -np.inf
    ours, theirs = (open_session(one, model).run(None, {"X": x})[0] for one in (path, None))
    np.testing.assert_array_equal(ours, theirs)


def test_max_pool_passes_a_fault_on(path):
    model = layout_model(functions.max_pool_node("X", "Y", "pool", (1, 2, 2), (1, 2, 2), (0,) * 6))
    x = np.ones((1, 1, 4, 4, 20), np.float32)
    x[0, 0, 1, 2, 3], x[0, 0, 2, 1, 18] = np.nan, np.nan
    (y,) = open_session(path, model).run(None, {"X": x})
    assert np.isnan(y[0, 0, 0, 1, 3]) and np.isnan(y[0, 0, 1, 0, 18]) and np.isnan(y).sum() == 2


def swish_session(path, dtype=np.float32):
    node, kind = functions.scaled_swish_node("X", "S", "Y", "act"), FLOATS[dtype]
    info = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [info(name, kind, [None] * 5) for name in "XS"], [info("Y", kind, None)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    float_type = "float32" if dtype is np.float32 else "float16"
    return open_session(path, helper.make_model(graph, opset_imports=imports, ir_version=8, functions=[] if path else
                                                functions.dance_functions(17, float_type=float_type)))


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 2, 3, 5, 15), (1, 2, 9, 8, 54), (2, 1, 3, 3, 16),
                                   (1, 4, 40, 40, 24)])
def test_scaled_swish_equals_its_function_and_float64(path, shape, dtype):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(shape) * 20).astype(dtype)
    scale = rng.random((shape[0], 1, 1, 1, shape[4])).astype(dtype) * 3
    (ours,), (theirs,) = (swish_session(one, dtype).run(None, {"X": x, "S": scale}) for one in (path, None))
    a = x.astype(np.float64) * scale
    exact = a / (1 + np.exp(-a))
    eps = np.finfo(dtype).eps
    # the product is rounded, which the exponential magnifies; below -87 the exponential stays what it is there
    allowed = 8 * eps * np.abs(exact) * (1 + np.abs(a)) + 2 * np.finfo(dtype).tiny * (1 + np.abs(a))
    assert np.all(np.abs(ours - exact) <= allowed)
    # ONNX Runtime's sigmoid is off by up to 1e-6 where it is next to 0
    np.testing.assert_allclose(ours, theirs, rtol=20 * eps, atol=1e-5 * float(np.abs(a).max()))


def test_scaled_swish_at_its_limits(path):
    """Large numbers come out as they went in, or as nothing; a fault is not hidden and stays where it is."""
    x = np.array([3e38, 1e9, 200, -200, -1e9, -3e38, np.inf, np.nan, 0, -0.0] + [1] * 10, np.float32)
    x = x.reshape(1, 1, 1, 20, 1)
    (y,) = swish_session(path).run(None, {"X": x, "S": np.ones((1, 1, 1, 1, 1), np.float32)})
    y = y.ravel()
    np.testing.assert_array_equal(y[:3], x.ravel()[:3])
    assert np.all(np.abs(y[3:5]) < 1e-27) and abs(y[5]) < 10 and y[6] == np.inf and np.isnan(y[7])
    assert y[8] == y[9] == 0 and np.all(y[10:] == y[10]) and abs(y[10] - 0.7310586) < 1e-6


def test_scaled_swish_refuses_another_scale(path):
    x, scale = np.zeros((1, 2, 3, 4, 5), np.float32), np.zeros((1, 1, 1, 1, 4), np.float32)
    with pytest.raises(Exception) as refused:
        swish_session(path).run(None, {"X": x, "S": scale})
    assert "ScaledSwishCl 'act': S is [1,1,1,1,4], expected [1,1,1,1,5] (X is [1,2,3,4,5])" in str(refused.value)


def expand_inputs(rng, channels=5, wide=20):
    shapes = ((2, 3, 6, 17, channels), (wide, channels, 1, 1, 1), (wide,), (wide, 1, 3, 3, 3), (wide,))
    x, w, b, depthwise_w, depthwise_b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    masks = [rng.random(shape) < 0.7 for shape in ((2, 3), (2, channels), (2, 6, 17))]
    return dict(zip(names.EXPAND_INPUTS, (x, w, b, *masks, depthwise_w, depthwise_b)))


def expand_session(path, feed, *, swish=False, constant=True, float_masks=False, **attributes):
    node = functions.expand_depthwise_node(list(names.EXPAND_INPUTS), "Y", "conv_b", **{
        "pads": (1,) * 6, "strides": (1, 2, 1), "group": 20, "min": 0.0, **attributes})
    node.op_type = names.EXPANDING[swish]
    weights = [name for name in feed if name.endswith(("W", "B"))] if constant else []
    kinds = {name: (TensorProto.FLOAT if float_masks else TensorProto.BOOL) if name in MASKS else TensorProto.FLOAT
             for name in feed if name not in weights}
    info = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [info(name, kind, None) for name, kind in kinds.items()],
                              [info("Y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(feed[name], name) for name in weights])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    own = [] if path else functions.dance_functions(17, "float32" if float_masks else "bool")
    session = open_session(path, helper.make_model(graph, opset_imports=imports, ir_version=8, functions=own))
    given = {name: feed[name].astype(np.float32) if float_masks and name in MASKS else feed[name] for name in kinds}
    return session.run(None, given)[0]


@pytest.mark.parametrize("constant, float_masks", [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("swish", (False, True))
def test_an_expansion_equals_its_function_and_the_definition(path, swish, constant, float_masks):
    feed = expand_inputs(np.random.default_rng(8))
    x, w, b, *masks, depthwise_w, depthwise_b = feed.values()
    attributes = {"pads": (1,) * 6, "strides": (1, 2, 1), "group": 20, "minimum": 0.0, "swish": swish}
    expected = definition.expand_depthwise_reference(np.moveaxis(x, -1, 1), w, b, masks, depthwise_w, depthwise_b,
                                                     **attributes)
    for one in (path, None):
        y = expand_session(one, feed, swish=swish, constant=constant, float_masks=float_masks)
        assert definition.check_output(np.moveaxis(y, -1, 1), expected) == []
    plain = definition.expand_depthwise_cl(*feed.values(), **attributes)
    assert definition.check_output(np.moveaxis(plain, -1, 1), expected) == []


@pytest.mark.parametrize("name, shape, attributes, said", [
    ("W", (20, 5, 1, 3, 3), {}, "W is [20,5,1,3,3], expected [20,5,1,1,1] (a 1x1x1 kernel)"),
    ("W", (20, 4, 1, 1, 1), {}, "W is [20,4,1,1,1], expected [20,5,1,1,1] (C=5 of X [2,3,6,17,5], group=1)"),
    ("feature_keep", (2, 6, 16), {}, "feature_keep is [2,6,16], expected [2,6,17]"),
    ("depthwise_W", (20, 2, 3, 3, 3), {"group": 10},
     "depthwise_W is [20,2,3,3,3] with group=10, expected [20,1,3,3,3] with group=20 (M of W)"),
    ("depthwise_W", (20, 1, 9, 3, 3), {},
     "depthwise_W is [20,1,9,3,3], expected a kernel that fits into the expanded X"),
    ("depthwise_B", (19,), {}, "depthwise_B is [19], expected [20]"),
    ("X", (2, 3, 6, 17, 5), {"strides": (1, 0, 1)}, "strides is [1,0,1], expected 3 integer(s), each at least 1")])
def test_an_expansion_refuses_by_name(path, name, shape, attributes, said):
    feed = expand_inputs(np.random.default_rng(8))
    feed[name] = np.zeros(shape, feed[name].dtype)
    with pytest.raises(Exception) as refused:
        expand_session(path, feed, **attributes)
    assert "ExpandDepthwiseCl 'conv_b': " + said in str(refused.value)


@pytest.mark.parametrize("node, x, said", [
    (functions.to_channels_last_node("X", "Y", "a"), (2, 3, 0, 1, 1), "ToChannelsLast 'a': X is [2,3,0,1,1]"),
    (functions.max_pool_node("X", "Y", "p", (1, 2, 2), (1, 1, 1), (0,) * 6), (1, 1, 1, 4, 3),
     "MaxPool3dCl 'p': kernel_shape is [1,2,2], expected a window that fits into X [1,1,1,4,3]"),
    (functions.max_pool_node("X", "Y", "p", (1, 2, 2), (1, 1, 1), (0, 2, 0, 0, 0, 0)), (1, 1, 4, 4, 3),
     "MaxPool3dCl 'p': pads is [0,2,0,0,0,0], expected less than kernel_shape [1,2,2]"),
    (functions.max_pool_node("X", "Y", "p", (1, 2), (1, 1, 1), (0,) * 6), (1, 1, 4, 4, 3), "kernel_shape is [1,2]")])
def test_layout_ops_refuse_by_name(path, node, x, said):
    model = layout_model(node)
    del model.functions[:]    # ONNX Runtime would refuse some of them earlier, in words of its own
    with pytest.raises(Exception) as refused:
        open_session(path, model).run(None, {"X": np.zeros(x, np.float32)})
    assert said in str(refused.value)
