"""Controller and body as the one graph that our kernels run for a clip.

A bundle keeps them apart (docs/bundle.md): an engine, a test or a program of the user's own may run either. In two
sessions `stem` would leave the one and enter the other by new memory, and the body's first gate would read all of it
for magnitudes that were measured for the controller already. So the graphs are joined as they are loaded, and the files
stay as they are: a small network gated to a tenth to a fifth of its MACs takes 3 to 5 % less time, and more where other
sessions have run in between.
"""
from dance_deploy.ops import names
from dance_deploy.runtime.trt.onnx_file import INT64, Model
from dance_deploy.runtime.trt.wire import WireError

CLOCK = "dance:clock"  # output: nanoseconds, on the system's monotonic clock, when the thresholds were there


def joined(controller, body):
    """The graph from clip and budget to what the body gives and CLOCK, as pieces to be laid end to end; None where the
    two are not what an export for our kernels makes.

    controller, body: bytes of controller_kernels.onnx and of body.onnx.
    """
    try:
        whole, rest = Model(controller), Model(body)
        thresholds = next((node for node in whole.nodes if node.op_type == names.THRESHOLDS), None)
        if thresholds is None or thresholds.outputs != ["tau"] or set(rest.inputs) != {"stem", "tau"}:
            return None
        if not whole.continue_with(rest):
            return None
        _hand_magnitudes_on(whole)
    except WireError:
        return None  # ONNX Runtime says what is wrong
    thresholds.op_type = names.THRESHOLDS_CLOCK
    thresholds.outputs.append(CLOCK)
    whole.output(CLOCK, INT64, (1,))
    return whole.pieces()


def _hand_magnitudes_on(whole):
    """Have gates that read `stem` read its magnitudes too, where what makes it has measured them for the controller."""
    made = next((node for node in whole.nodes if node.outputs[:1] == ["stem"]), None)
    if made is None or made.domain != names.DOMAIN or made.op_type not in names.WITH_MAGNITUDES.values():
        return
    for node in whole.nodes:
        if (node.op_type == names.ACTIVATION_GATE_COUNTS_CL and node.domain == names.DOMAIN
                and node.inputs[:1] == ["stem"]):
            node.op_type = names.ACTIVATION_GATE_MAGNITUDES_CL
            node.inputs.extend(made.outputs[1:])
