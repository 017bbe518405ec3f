"""The parity ladder must fail, naming the layer, wherever a rung is wrong; it is only worth what it catches."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dance_deploy import profiles
from dance_deploy.errors import OperationError
from dance_deploy.export import parity
from dance_deploy.export.graphs import graphs_from_model


@pytest.fixture
def graphs(gated):
    return graphs_from_model(gated, profiles.load("cpu"))


def node_of(graphs, name):
    return next(n for n in graphs.body.graph.node if n.name == name)


def attribute(node, name):
    return next(a for a in node.attribute if a.name == name)


def test_sound_graphs_pass_and_masks_differ_between_clips(gated, graphs, clips):
    runs = parity.ladder(gated, graphs, clips, 0.5, None)
    assert len(runs) == len(clips) and not runs[0].same_masks(runs[1])


def test_a_changed_weight_is_found_at_its_layer(gated, graphs, clips):
    weight = next(i for i in graphs.body.graph.initializer if i.name == "block2.conv2.0.weight")
    value = numpy_helper.to_array(weight).copy()
    value[3, 2, 1, 1, 1] += 0.05
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    with pytest.raises(OperationError, match=r"functions' .* at layer 'block2\.conv2\.0'"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_a_missing_clamp_is_found_at_its_layer(gated, graphs, clips):
    attribute(node_of(graphs, "block1.conv1.0"), "min").f = -1e30
    with pytest.raises(OperationError, match=r"at layer 'block1\.conv1\.0'"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_swapped_thresholds_are_found(gated, graphs, clips):
    with torch.no_grad():
        gated.controller.output.bias += torch.linspace(-1, 1, gated.controller.output.bias.numel())
    graphs = graphs_from_model(gated, profiles.load("cpu"))
    gate0, gate1 = node_of(graphs, "gate0"), node_of(graphs, "gate1")
    gate0.input[1], gate1.input[1] = gate1.input[1], gate0.input[1]
    with pytest.raises(OperationError, match="at layer 'block1.conv1.0': masks"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_a_gate_that_ignores_its_threshold_is_found(gated, graphs, clips):
    gate = next(f for f in graphs.body.functions if f.name == "ActivationGateCountsCl")
    for node in gate.node:
        if node.op_type == "Less":
            node.op_type = "Greater"
    with pytest.raises(OperationError, match="masks"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_a_difference_between_gated_layers_is_found_at_the_end(gated, graphs, clips):
    head = next(i for i in graphs.body.graph.initializer if i.name == "head.weight")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(1.01), head.name))
    with pytest.raises(OperationError, match="logits of 'onnxruntime with functions'"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_a_different_dense_graph_is_found(gated, graphs, clips):
    bias = next(i for i in graphs.dense.graph.initializer if i.name == "stem.0.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    with pytest.raises(OperationError, match="logits of 'dense.onnx'"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_frozen_controller_is_refused(gated, clips):
    with torch.no_grad():
        gated.controller.output.bias.fill_(-30.0)  # thresholds of 0: all clips keep everything
    graphs = graphs_from_model(gated, profiles.load("cpu"))
    with pytest.raises(OperationError, match="frozen controller.*everything is kept"):
        parity.ladder(gated, graphs, clips, 0.5, None)


def test_equal_clips_look_frozen_too(gated, graphs, clips):
    with pytest.raises(OperationError, match="frozen controller.*same slices"):
        parity.ladder(gated, graphs, [clips[0], clips[0]], 0.5, None)


def test_mask_outputs_part_merges_into_the_body(graphs, clips):
    merged = onnx.load_model_from_string(
        graphs.body.SerializeToString() + graphs.mask_outputs().SerializePartialToString())
    names = [o.name for o in merged.graph.output]
    gates = len({layer.gate for layer in graphs.layers})
    assert names[:2] == ["logits", "kept"]
    assert names[2:] == [f"gate{i}.{k}_keep" for i in range(gates) for k in ("frame", "channel", "feature")]
    assert len(merged.graph.node) == len(graphs.body.graph.node)
