"""A small real bundle made with onnx.helper alone, so that the device half is tested without torch and the exporter.

clip [1,3,4,16,16] -> stem convolution, ReLU -> gate 0 -> two gated convolutions (3x3x3 and a 1x1x1 shortcut, added)
-> gate 1 -> gated convolution with residual -> mean -> linear -> 3 logits.
"""
import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dance_deploy.bundle import write_bundle
from dance_deploy.cost import ConvCost
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names
from dance_deploy.ops.functions import conv_node, dance_functions, gate_node
from dance_deploy.runtime.reference_backend import evaluator_from_bytes

OPSET, IR_VERSION = 17, 8
LABELS = ["left", "right", "still"]
CLIP = {"frames": 4, "stride": 2, "resize": [18, 20], "size": [16, 16], "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3], "layout": "NCTHW"}
STEM = Conv3dGeometry("stem", 3, 4, (4, 16, 16), (1, 3, 3), strides=(1, 2, 2), pads=(0, 1, 1, 0, 1, 1))
CONV_A = Conv3dGeometry("block.a", 4, 6, (4, 8, 8), (3, 3, 3), pads=(1,) * 6)
SHORTCUT = Conv3dGeometry("block.shortcut", 4, 6, (4, 8, 8), (1, 1, 1))
CONV_B = Conv3dGeometry("block.b", 6, 6, (4, 8, 8), (3, 1, 1), pads=(1, 0, 0, 1, 0, 0))
GATES = [("gate.a", (CONV_A, SHORTCUT)), ("gate.b", (CONV_B,))]
MASKS = [["gate%d.%s" % (layer, mask) for mask in names.MASK_NAMES] for layer in range(len(GATES))]


def write_tiny_bundle(folder, seed=0, **changes):
    """Write it; `changes` replace fields of the manifest. Returns the opened Bundle."""
    return write_bundle(folder, {**tiny_fields(), **changes}, tiny_files(seed))


def tiny_fields():
    """The manifest without format, version and files."""
    return {
        "model": {"name": "tiny", "labels": LABELS, "trained": False},
        "clip": CLIP,
        "budget": {"default": 0.6, "reached": [[1.0, 1.0], [0.6, 0.7]]},
        "gates": [{"name": name, "input": [convs[0].in_channels, *convs[0].in_size],
                   "convs": [_described(conv) for conv in convs]} for name, convs in GATES],
        "ungated": {"convs": [{**_described(STEM), "in_channels": STEM.in_channels, "in_size": list(STEM.in_size)}],
                    "linear_macs": 6 * 3, "linear_bytes": 4 * (6 + 18 + 3 + 3)},
        "controller": {"macs": 100, "bytes": 400},
        "profile": "cpu",
        "tools": {"opset": OPSET, "ir_version": IR_VERSION, "onnx": onnx.__version__},
    }


def tiny_files(seed=0, change=None):
    """{name: bytes} of the five required files; change: called with {name: weights} to change them first."""
    weights = _weights(np.random.default_rng(seed))
    if change is not None:
        change(weights)
    body, part = _body(weights)
    files = {"controller.onnx": _controller(weights).SerializeToString(), "body.onnx": body.SerializeToString(),
             "body_masks.onnxpart": part.SerializeToString(), "dense.onnx": _dense(weights).SerializeToString()}
    files["golden.npz"] = _golden(files, np.random.default_rng(seed + 1))
    return files


def dense_macs():
    """MACs of the network without gates."""
    return sum(ConvCost(conv).dense().macs for conv in (STEM, CONV_A, SHORTCUT, CONV_B)) + 18


def _described(conv):
    return {"name": conv.name, "out_channels": conv.out_channels, "kernel": list(conv.kernel),
            "strides": list(conv.strides), "pads": list(conv.pads), "dilations": list(conv.dilations),
            "group": conv.group}


def _weights(rng):
    weights = {}
    for conv in (STEM, CONV_A, SHORTCUT, CONV_B):
        shape = (conv.out_channels, conv.in_channels) + conv.kernel
        weights[conv.name + ".w"] = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        weights[conv.name + ".b"] = (0.1 * rng.standard_normal(conv.out_channels)).astype(np.float32)
    weights["head.w"] = rng.standard_normal((3, 6)).astype(np.float32)
    weights["head.b"] = rng.standard_normal(3).astype(np.float32)
    return weights


def _attributes(conv):
    return {"strides": conv.strides, "pads": conv.pads, "dilations": conv.dilations, "group": conv.group}


def _conv(conv, x, y):
    return helper.make_node("Conv", [x, conv.name + ".w", conv.name + ".b"], [y], **_attributes(conv))


def _head(x):
    return [helper.make_node("GlobalAveragePool", [x], ["mean"]), helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "head.w", "head.b"], ["logits"], transB=1)]


def _model(nodes, inputs, outputs, weights, functions=()):
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "tiny", [_value(*i) for i in inputs], [_value(*o) for o in outputs],
                              [numpy_helper.from_array(w, name) for name, w in weights.items() if name in used])
    model = helper.make_model(graph, ir_version=IR_VERSION, functions=list(functions), opset_imports=[
        helper.make_opsetid("", OPSET), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)])
    onnx.checker.check_model(model)
    return model


def _value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


CLIP_INPUT = ("clip", [1, 3, 4, 16, 16])
STEM_OUTPUT = ("stem", [1, 4, 4, 8, 8])
TAU = ("tau", [len(GATES), 3])
LOGITS = ("logits", [1, len(LABELS)])


def _controller(weights):
    """tau = (1 - budget) * base * (largest / mean activation of the clip): it depends on both inputs."""
    constants = {"one": np.ones(1, np.float32), "base": np.array([[0.82, 0.75, 0.6], [0.8, 0.8, 0.65]], np.float32)}
    nodes = [
        _conv(STEM, "clip", "stem.linear"), helper.make_node("Relu", ["stem.linear"], ["stem"]),
        helper.make_node("ReduceMax", ["stem"], ["largest"], axes=[1, 2, 3, 4], keepdims=0),
        helper.make_node("ReduceMean", ["stem"], ["average"], axes=[1, 2, 3, 4], keepdims=0),
        helper.make_node("Div", ["largest", "average"], ["ratio.all"]),
        helper.make_node("Log", ["ratio.all"], ["ratio"]),
        helper.make_node("Sub", ["one", "budget"], ["pressure"]),
        helper.make_node("Mul", ["pressure", "ratio"], ["scale"]),
        helper.make_node("Mul", ["base", "scale"], ["tau"]),
    ]
    return _model(nodes, [CLIP_INPUT, ("budget", [1])], [STEM_OUTPUT, TAU], {**weights, **constants})


def _body(weights):
    constants = {"row0": np.array([0], np.int64), "row1": np.array([1], np.int64), "axis0": np.array([0], np.int64),
                 "axes12": np.array([1, 2], np.int64), "axis1": np.array([1], np.int64)}
    nodes, counts = [], []
    for layer, x in enumerate(["stem", "sum"]):
        tau = "tau%d" % layer
        nodes += [helper.make_node("Gather", ["tau", "row%d" % layer], [tau], axis=0),
                  gate_node([x, tau], MASKS[layer], "gate%d" % layer)]
        if layer == 0:
            nodes += [_gated(SHORTCUT, x, MASKS[0], "short"), _gated(CONV_A, x, MASKS[0], "sum", "short")]
        for mask, axes in zip(MASKS[layer], ("axis1", "axis1", "axes12")):
            counts.append(mask + ".count")
            nodes += [helper.make_node("Cast", [mask], [mask + ".int"], to=TensorProto.INT64),
                      helper.make_node("ReduceSum", [mask + ".int", axes], [counts[-1]], keepdims=0)]
    constants["kept.shape"] = np.array([2, 3], np.int64)
    nodes += [_gated(CONV_B, "sum", MASKS[1], "out", "sum"), *_head("out"),
              helper.make_node("Concat", counts, ["kept.flat"], axis=0),
              helper.make_node("Reshape", ["kept.flat", "kept.shape"], ["kept"])]
    nodes.sort(key=lambda node: node.op_type in ("Concat", "Reshape"))
    body = _model(nodes, [STEM_OUTPUT, TAU], [LOGITS, ("kept", [2, 3], TensorProto.INT64)], {**weights, **constants},
                  dance_functions(OPSET))
    part = onnx.ModelProto()
    for layer, (_, convs) in enumerate(GATES):
        frames, height, width = convs[0].in_size
        for name, shape in zip(MASKS[layer], ([1, frames], [1, convs[0].in_channels], [1, height, width])):
            part.graph.output.append(_value(name, shape, TensorProto.BOOL))
    return body, part


def _gated(conv, x, masks, y, z=None):
    return conv_node([x, conv.name + ".w", conv.name + ".b", *masks] + ([z] if z else []), y, conv.name, min=0.0,
                     **_attributes(conv))


def _dense(weights):
    nodes = [
        _conv(STEM, "clip", "stem.linear"), helper.make_node("Relu", ["stem.linear"], ["stem"]),
        _conv(SHORTCUT, "stem", "short.linear"), helper.make_node("Relu", ["short.linear"], ["short"]),
        _conv(CONV_A, "stem", "a.linear"), helper.make_node("Add", ["a.linear", "short"], ["a.sum"]),
        helper.make_node("Relu", ["a.sum"], ["sum"]),
        _conv(CONV_B, "sum", "b.linear"), helper.make_node("Add", ["b.linear", "sum"], ["b.sum"]),
        helper.make_node("Relu", ["b.sum"], ["out"]), *_head("out"),
    ]
    return _model(nodes, [CLIP_INPUT], [LOGITS], weights)


def _golden(files, rng):
    """The clip's results by the numpy definition, which shares no code with ONNX Runtime."""
    clip = rng.standard_normal((1, 3, 4, 16, 16)).astype(np.float32)
    budget = np.array([0.4], np.float32)
    stem, tau = evaluator_from_bytes(files["controller.onnx"], "controller").run(
        ["stem", "tau"], {"clip": clip, "budget": budget})
    flat = [name for layer in MASKS for name in layer]
    found = evaluator_from_bytes(files["body.onnx"] + files["body_masks.onnxpart"], "body").run(
        ["logits", "kept"] + flat, {"stem": stem, "tau": tau})
    out = io.BytesIO()
    np.savez(out, clip=clip, budget=budget, stem=stem, tau=tau, logits=found[0], kept=found[1],
             **{name.replace(".", "_"): mask for name, mask in zip(flat, found[2:])})
    return out.getvalue()
