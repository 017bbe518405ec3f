"""Which layers may compute in half precision: found by running each graph in both, every layer's output marked."""
import numpy as np

from dance_deploy.errors import OperationError
from dance_deploy.runtime.trt import graph_edit, onnx_file
from dance_deploy.runtime.trt.session import run_once

# the contract's bound for one op in float16, as a share of its output's norm (docs/ops.md)
LAYER_LIMIT = 5e-3
LOGITS = "logits"


def layers_of(model, pinned=()):
    """[(name, output, inputs)] of the nodes that half precision would change, in the graph's order."""
    return [(node.name, node.outputs[0], list(node.inputs)) for node in model.nodes
            if node.op_type in graph_edit.HALF_OPS and node.name not in pinned]


def mark_layers(model, layers):
    """Make every such layer's output an output of the graph."""
    for _, output, _ in layers:
        if output not in model.outputs:
            model.output(output, onnx_file.FLOAT, None)


def compared(api, device, plans, what, feeds, layers):
    """(names of the layers to pin, error of the logits or None), from engines with marked outputs.

    plans: (in float32, in float16). Raises OperationError where float32 itself gives a NaN or an infinity.
    """
    outputs = [output for _, output, _ in layers if output != LOGITS] + ([LOGITS] if what != "controller.onnx" else [])
    exact = run_once(api, device, plans[0], what, feeds, outputs)
    half = run_once(api, device, plans[1], what, feeds, outputs)
    error = _error(exact[LOGITS], half[LOGITS]) if LOGITS in exact else None
    return to_pin(layers, exact, half, what), error


def to_pin(layers, exact, half, what):
    """Names of the layers whose output is worse than their inputs by more than the contract's bound.

    A layer that only hands on its inputs' error stays in half precision: pinning it would mend nothing.
    """
    errors, pinned = {}, []
    for name, output, inputs in layers:
        if not np.isfinite(exact[output]).all():
            raise OperationError("{}: layer '{}' gives a NaN or an infinity in float32 already, so there is nothing to "
                                 "compare with; check the model with dance-run --self-test".format(what, name))
        errors[output] = _error(exact[output], half[output])
        inherited = max([errors.get(tensor, 0.0) for tensor in inputs] or [0.0])
        if not np.isinf(inherited) and errors[output] > LAYER_LIMIT + 2 * inherited:
            pinned.append(name)
    return tuple(pinned)


def _error(exact, half):
    """Norm of the difference over the norm; infinite where half precision gives NaN or infinity."""
    half = np.asarray(half, np.float64)
    if not np.isfinite(half).all():
        return float("inf")
    exact = exact.astype(np.float64)
    return float(np.linalg.norm(half - exact) / max(float(np.linalg.norm(exact)), 1e-30))
