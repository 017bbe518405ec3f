"""Hands the magnitudes of `stem` on from the controller to the body's first gate, where both run on our kernels.

A bundle's graphs pass `stem` and `tau` alone (docs/bundle.md): others feed them, and a body must run from these. But
what makes `stem` has measured it already, for the controller, and a gate that is not told reads all of it again: 4 %
of the time of a small network of which little is kept. So the graphs are changed as they are loaded, and the files stay
as they are.
"""
import numpy as np

from dance_deploy.ops import definition, names
from dance_deploy.runtime.trt.onnx_file import FLOAT, Model, value_info
from dance_deploy.runtime.trt.wire import WireError

# no layer of a traced model is called so
NAMES = tuple("stem:" + name for name in names.MAGNITUDES)


def hand_on(controller, body):
    """(controller, body): the same graphs with NAMES as outputs of the one and inputs of the other, each as pieces to
    be laid end to end; None where nothing in them measures `stem`, or no gate reads it.

    controller, body: bytes of controller_kernels.onnx and of body.onnx.
    """
    try:
        makes, reads = Model(controller), Model(body)
    except WireError:
        return None  # ONNX Runtime says what is wrong
    made = next((node for node in makes.nodes if node.outputs[:1] == ["stem"]), None)
    gates = [node for node in reads.nodes if node.op_type == names.ACTIVATION_GATE_COUNTS_CL
             and node.domain == names.DOMAIN and node.inputs[:1] == ["stem"]]
    if made is None or made.domain != names.DOMAIN or made.op_type not in names.WITH_MAGNITUDES.values() or not gates:
        return None
    _, (n, t, h, w, c) = reads.shapes()["stem"]
    measured = dict(zip(made.outputs[1:], NAMES))
    for node in makes.nodes:
        node.inputs = [measured.get(name, name) for name in node.inputs]
        node.outputs = [measured.get(name, name) for name in node.outputs]
    for name, shape in zip(NAMES, ((n, t, c), (n, t, h, w))):
        makes.output(name, FLOAT, shape)
        reads.inputs[name] = value_info(name, FLOAT, shape)
    for gate in gates:
        gate.op_type = names.ACTIVATION_GATE_MAGNITUDES_CL
        gate.inputs.extend(NAMES)
    return makes.pieces(), reads.pieces()


def measure(stem):
    """[the two of NAMES] of a stem [N, T, H, W, C] that comes from elsewhere."""
    return [means.astype(np.float32) for means in definition.magnitudes(np.transpose(stem, (0, 4, 1, 2, 3)))]
