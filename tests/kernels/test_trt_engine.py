"""Real engines by TensorRT-RTX on a machine without a GPU, from files that the exporter writes, with the plugins."""
import importlib.util
import json
import os
import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
import trt_plugins
from onnx import TensorProto, helper, numpy_helper

from dance_deploy import profiles
from dance_deploy.ops import names
from dance_deploy.ops.functions import conv_node, gate_node

HERE = os.path.dirname(os.path.abspath(__file__))
STATE = struct.Struct("<I I 32s 128s 13q q Q 3q 4Q Q")    # as kernels/trt/state.cc writes it


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("no TensorRT-RTX here (pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings)")
    found = [headers for headers in trt_plugins.tensorrt_headers() if trt_plugins.version(headers) >= (11,)]
    if not found:
        pytest.skip("no headers of TensorRT 11 here (set TENSORRT_ROOT)")
    newest = max(found, key=trt_plugins.version)
    return trt_plugins.Host(newest, str(tmp_path_factory.mktemp("trt"))).library


@pytest.fixture
def build(library, tmp_path):
    """build(model): what build_rtx_engine.py found, and the engine's bytes."""
    import tensorrt_rtx_libs
    # the parser opens this name when it adds a plugin layer, and the package has only the versioned one
    os.symlink(os.path.join(os.path.dirname(tensorrt_rtx_libs.__file__), "libtensorrt_rtx.so.1"),
               tmp_path / "libtensorrt_rtx.so")

    def run(model):
        onnx.save(model, tmp_path / "model.onnx")
        done = subprocess.run([sys.executable, os.path.join(HERE, "build_rtx_engine.py"), str(tmp_path / "model.onnx"),
                               library, str(tmp_path / "engine")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", timeout=900, env=dict(os.environ, LD_LIBRARY_PATH=str(tmp_path)))
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        return found, (tmp_path / "engine").read_bytes() if found["built"] else b""
    return run


def states(engine):
    """{node: (op, attributes, configured)} of every plugin in an engine."""
    found, at = {}, engine.find(b"DNCT")
    while at >= 0:
        fields = STATE.unpack_from(engine, at)
        op, node = (text.rstrip(b"\0").decode() for text in fields[2:4])
        values = fields[4:17]
        attributes = dict(strides=values[:3], pads=values[3:9], dilations=values[9:12], group=values[12])
        attributes["min"] = struct.unpack("<f", struct.pack("<I", fields[17]))[0]
        found[node] = op, attributes, fields[18] == 1
        at = engine.find(b"DNCT", at + 1)
    return found


def check(model, found, engine):
    nodes = [node for node in model.graph.node if node.domain == names.DOMAIN]
    assert found["errors"] == [] and found["parsed"] and found["built"]
    assert found["plugins"] == len(nodes) > 0
    assert found["outputs"] == {o.name: [d.dim_value or -1 for d in o.type.tensor_type.shape.dim]
                                for o in model.graph.output}
    kept = states(engine)
    for node in nodes:
        op, attributes, configured = kept[node.name]
        assert op == node.op_type and configured
        written = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in attributes}
        for name, value in written.items():
            np.testing.assert_array_equal(attributes[name], value)


def model_of_all_ops(elem_type, batch, **changes):
    """Both layouts of all three ops, a grouped and strided convolution among them; changes: of its attributes."""
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    nodes, weights, outputs = [], [], []
    for last in (False, True):
        kind = "cl." if last else ""
        masks = [kind + mask for mask in names.MASK_NAMES]
        w = [kind + name for name in ("w0", "b0", "w1", "b1")]
        shapes = [(8, 4, 3, 3, 3), (8,), (8, 8, 1, 1, 1), (8,)]
        weights += [numpy_helper.from_array(rng.standard_normal(s).astype(dtype), n) for n, s in zip(w, shapes)]
        nodes += [gate_node([kind + "x", "tau"], masks, kind + "gate", channels_last=last),
                  conv_node([kind + "x", *w[2:], *masks], kind + "a", kind + "point", channels_last=last),
                  conv_node([kind + "x", *w[:2], *masks], kind + "y", kind + "grouped", channels_last=last,
                            **{**dict(strides=[1, 2, 2], pads=[1, 1, 0, 1, 2, 3], group=2, min=0.0), **changes}),
                  conv_node([kind + "x", *w[2:], *masks, kind + "a"], kind + "r", kind + "residual",
                            channels_last=last)]
        for name, shape in (("y", (batch, 8, 5, 5, 5)), ("r", (batch, 8, 5, 8, 9))):
            shape = (shape[0], *shape[2:], 8) if last else shape
            outputs.append(helper.make_tensor_value_info(kind + name, elem_type, shape))
    inputs = [helper.make_tensor_value_info("x", elem_type, (batch, 8, 5, 8, 9)),
              helper.make_tensor_value_info("cl.x", elem_type, (batch, 5, 8, 9, 8)),
              helper.make_tensor_value_info("tau", TensorProto.FLOAT, (batch, 3))]
    graph = helper.make_graph(nodes, "ops", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid(names.DOMAIN, 1)],
                             ir_version=7)


@pytest.mark.parametrize("batch", (1, "N"))
@pytest.mark.parametrize("elem_type", (TensorProto.FLOAT, TensorProto.FLOAT16))
def test_every_op_in_every_type_with_a_fixed_and_a_free_batch(build, elem_type, batch):
    model = model_of_all_ops(elem_type, batch)
    check(model, *build(model))


@pytest.mark.parametrize("changes, line", [
    (dict(group=3), "GatedConv3d 'grouped': X is [1,8,5,8,9], expected C divisible by group=3"),
    (dict(strides=[1, 0, 1]), "GatedConv3d 'grouped': strides is [1,0,1]"),
    (dict(dilations=[9, 1, 1]), "GatedConv3d 'grouped': W is [8,4,3,3,3], expected a kernel that fits into X"),
])
def test_what_does_not_fit_is_refused_with_a_line_in_tensorrts_log(build, changes, line):
    found, _ = build(model_of_all_ops(TensorProto.FLOAT, 1, **changes))
    assert not found["built"]
    assert any(logged.startswith(line) for logged in found["errors"]), found["errors"]


@pytest.mark.parametrize("architecture, profile", [("small", "jetson-nano"), ("small", "jetson-orin-nano"),
                                                   ("r3d18", "jetson-nano"), ("r2plus1d18", "jetson-nano")])
def test_the_exporters_files_build(build, architecture, profile):
    pytest.importorskip("torch")
    from dance_deploy import models
    from dance_deploy.export.graphs import graphs_from_model
    from dance_deploy.method.surgery import gate_model
    network = models.build(architecture, 10, seed=0)
    gated = gate_model(network, models.ARCHITECTURES[architecture].clip.shape)
    graphs = graphs_from_model(gated.eval(), profiles.load(profile))
    check(graphs.body, *build(graphs.body))
