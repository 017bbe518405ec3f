"""A bundle's network in our kernels without gates and controller: what it would run as had nobody gated it.

The fair other side where a network that is pruned once and for all is compared with a gated one: `all kept` pays for
gates that decide nothing.
"""

from __future__ import annotations

import numpy as np
import onnx

from dance_deploy.bench.forced import force_masks
from dance_deploy.bundle import Bundle
from dance_deploy.errors import InputError
from dance_deploy.manifest import CONTROLLER_KERNELS
from dance_deploy.ops import names
from dance_deploy.runtime.backends import LayerMasks


def ungated_graph(bundle: Bundle) -> bytes:
    """clip -> logits as one graph of dance ops that keep everything; to be run with our library.

    Raises InputError for a bundle whose body is not channels last, which has no such controller graph.
    """
    if CONTROLLER_KERNELS not in bundle.manifest.files:
        raise InputError(f"bundle '{bundle.path}': without {CONTROLLER_KERNELS} its first layer is no op of ours; "
                         "export it with a profile that lays activations out channels last, such as cpu")
    head = onnx.load_model_from_string(bundle.read(CONTROLLER_KERNELS))
    kept = [LayerMasks(np.ones(t, bool), np.ones(c, bool), np.ones((h, w), bool))
            for c, t, h, w in (gate.input_size for gate in bundle.manifest.gates)]
    model = onnx.load_model_from_string(force_masks(bundle.read("body.onnx"), kept))
    constants = {tensor.name: tensor for graph in (head.graph, model.graph) for tensor in graph.initializer}
    nodes = _needed([*head.graph.node, *model.graph.node], "logits")
    inputs = [value for value in head.graph.input if value.name == "clip"]
    outputs = [value for value in model.graph.output if value.name == "logits"]
    used = {name for node in nodes for name in node.input}
    del model.functions[:]
    model.graph.CopyFrom(onnx.helper.make_graph(nodes, "ungated", inputs, outputs, [
        tensor for name, tensor in constants.items() if name in used]))
    return bytes(model.SerializeToString())


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on, none of which measures for gates."""
    plain = {measuring: op_type for op_type, measuring in names.WITH_MAGNITUDES.items()}
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            if node.op_type in plain:
                node.op_type = plain[node.op_type]
                del node.output[1:]
            wanted.update(node.input)
            found.append(node)
    return found[::-1]
