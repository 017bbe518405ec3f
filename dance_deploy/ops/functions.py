"""The dance ops as ONNX model-local functions of standard ops, for runtimes without our library.

They are valid from opset 13 and IR version 8 on. One set serves one float type and one mask type; put it into the
model's `functions` and import the domain `dance`, version 1. Source: docs/ops.md, 'As ONNX functions'.
"""
from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from dance_deploy.errors import InputError
from dance_deploy.ops import names

OLDEST_OPSET = 13
FIRST_OPSET_WITH_AXES_INPUT = 18    # of ReduceMean and ReduceMax
FLOAT_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
MASK_TYPES = {"bool": TensorProto.BOOL, "float32": TensorProto.FLOAT}

TO_CHANNELS_FIRST = [0, 4, 1, 2, 3]
TO_CHANNELS_LAST = [0, 2, 3, 4, 1]
CONV_ATTRIBUTE_DEFAULTS = {
    names.STRIDES: names.STRIDES_DEFAULT,
    names.PADS: names.PADS_DEFAULT,
    names.DILATIONS: names.DILATIONS_DEFAULT,
    names.GROUP: names.GROUP_DEFAULT,
}
ATTRIBUTE_DEFAULTS = {**CONV_ATTRIBUTE_DEFAULTS, names.MIN: names.MIN_DEFAULT}
EXPAND_DEFAULTS = {**ATTRIBUTE_DEFAULTS, names.DEPTHWISE_MIN: names.MIN_DEFAULT}


def dance_functions(opset: int, mask_dtype: str = "bool", float_type: str = "float32") -> list[FunctionProto]:
    """Function bodies of all dance ops.

    opset: of the standard ops, 13 or newer, the model's own; mask_dtype: "bool" or "float32" (nonzero = keep);
    float_type: of X, W, B, Z and Y, "float32" or "float16". Raises InputError where one of them is not possible.
    """
    if opset < OLDEST_OPSET:
        raise InputError(f"dance functions: opset {opset} | expected {OLDEST_OPSET} or newer")
    for what, came, possible in (("mask_dtype", mask_dtype, MASK_TYPES), ("float_type", float_type, FLOAT_TYPES)):
        if came not in possible:
            raise InputError(f"dance functions: {what} is {came!r} | expected one of {', '.join(possible)}")
    makers = {names.ACTIVATION_GATE: _activation_gate, names.GATED_CONV3D: _gated_conv3d,
              names.GATED_CONV3D_ADD: _gated_conv3d}
    makers.update({names.CHANNELS_LAST[op_type]: make for op_type, make in list(makers.items())})
    makers.update({names.TO_CHANNELS_LAST: _to_channels_last, names.MAX_POOL3D_CL: _max_pool3d_cl,
                   names.SCALED_SWISH_CL: _scaled_swish_cl})
    makers.update(dict.fromkeys(names.COUNTING_GATES, _activation_gate))
    makers.update(dict.fromkeys(names.EXPANDING, _expand_depthwise))
    kind = (opset, mask_dtype, float_type)
    functions = {op_type: make(op_type, _Body(*kind)) for op_type, make in makers.items()}
    writing = [_with_magnitudes(functions[op_type], _Body(*kind)) for op_type in names.WITH_MAGNITUDES]
    return [*functions.values(), *writing]


def gate_node(inputs: list[str], outputs: Sequence[str], name: str, *, channels_last: bool = False) -> NodeProto:
    """A node of the gate: inputs X, tau; outputs frame_keep, channel_keep, feature_keep; with TensorRT's attributes.

    Channels last, a fourth output is how many of each are kept, [N, 3], and X's magnitudes may be two more inputs then.
    """
    op_type = names.ACTIVATION_GATE_CL if channels_last else names.ACTIVATION_GATE
    if len(outputs) > len(names.MASK_NAMES):
        given = len(inputs) == len(names.GATE_MAGNITUDES_INPUTS)
        op_type = names.ACTIVATION_GATE_MAGNITUDES_CL if given else names.ACTIVATION_GATE_COUNTS_CL
    return helper.make_node(op_type, inputs, outputs, name=name, domain=names.DOMAIN, **names.PLUGIN_ATTRIBUTES)


def conv_node(inputs: list[str], output: str, name: str, *, channels_last: bool = False, **attributes) -> NodeProto:
    """A node of the gated convolution: inputs X, W, B, three masks, and Z for the residual form.

    attributes: strides, pads, dilations, group, min; the missing ones get their defaults. All of them are written,
    always: readers of IR version 8 know no defaults of functions, and ONNX's own inliner fills none in.
    """
    unknown = sorted(set(attributes) - set(ATTRIBUTE_DEFAULTS))
    if unknown:
        raise InputError(f"gated convolution {name!r}: attribute {unknown[0]!r} | "
                         f"expected one of {', '.join(ATTRIBUTE_DEFAULTS)}")
    op_type = names.GATED_CONV3D_ADD if len(inputs) == len(names.CONV_ADD_INPUTS) else names.GATED_CONV3D
    op_type = names.CHANNELS_LAST[op_type] if channels_last else op_type
    return helper.make_node(op_type, inputs, [output], name=name, domain=names.DOMAIN,
                            **{**ATTRIBUTE_DEFAULTS, **attributes}, **names.PLUGIN_ATTRIBUTES)


def expand_depthwise_node(inputs: list[str], output: str, name: str, **attributes) -> NodeProto:
    """A node of a 1x1x1 gated convolution and the depthwise one behind it: inputs as names.EXPAND_INPUTS.

    attributes: strides, pads, dilations and group (M of W) of the latter, min of the former, depthwise_min; the missing
    ones get their defaults.
    """
    return helper.make_node(names.EXPAND_DEPTHWISE_CL, inputs, [output], name=name, domain=names.DOMAIN,
                            **{**EXPAND_DEFAULTS, **attributes})


def to_channels_last_node(x: str, y: str, name: str) -> NodeProto:
    """A node that turns x [N, C, T, H, W] into y [N, T, H, W, C]."""
    return helper.make_node(names.TO_CHANNELS_LAST, [x], [y], name=name, domain=names.DOMAIN)


def max_pool_node(x: str, y: str, name: str, kernel_shape, strides, pads) -> NodeProto:
    """A node of max pooling, x and y [N, T, H, W, C]; attributes as ONNX MaxPool's, all of them written."""
    return helper.make_node(names.MAX_POOL3D_CL, [x], [y], name=name, domain=names.DOMAIN,
                            kernel_shape=list(kernel_shape), strides=list(strides), pads=list(pads))


def hand_on_magnitudes(node: NodeProto, channel: str, pixel: str) -> None:
    """Let a node of an op in names.WITH_MAGNITUDES write the magnitudes of Y to two tensors of these names."""
    node.op_type = names.WITH_MAGNITUDES[node.op_type]
    node.output.extend([channel, pixel])


def scaled_swish_node(x: str, scale: str, y: str, name: str) -> NodeProto:
    """A node of y = swish(x * scale), x and y [N, T, H, W, C], scale [N, 1, 1, 1, C]."""
    return helper.make_node(names.SCALED_SWISH_CL, [x, scale], [y], name=name, domain=names.DOMAIN)


class _Body:
    """Collects the nodes of one function; every method returns the name of the tensor that it made."""

    def __init__(self, opset: int, mask_dtype: str, float_type: str):
        self.opset = opset
        self.mask_dtype = mask_dtype
        self.float_type = float_type
        self.nodes: list[NodeProto] = []

    def op(self, op_type: str, *inputs: str, to: str = "", **attributes) -> str:
        """Append a standard op; `to` names its output."""
        output = to or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def constant(self, value, dtype) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def cast(self, x: str, to_type: int, to: str = "") -> str:
        # Cast's own attribute is called `to`, like the argument of op()
        output = to or f"cast_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [x], [output], to=to_type))
        return output

    def unsqueeze(self, x: str, axes: list[int]) -> str:
        return self.op("Unsqueeze", x, self.constant(axes, np.int64))

    def reduce(self, op_type: str, x: str, axes: list[int], keepdims: int = 0) -> str:
        """ReduceMean or ReduceMax, whose axes became an input in opset 18."""
        if self.opset < FIRST_OPSET_WITH_AXES_INPUT:
            return self.op(op_type, x, axes=axes, keepdims=keepdims)
        return self.op(op_type, x, self.constant(axes, np.int64), keepdims=keepdims)

    def refer(self, attribute: str, of_function: str) -> None:
        """Let `attribute` of the last node take the value of the function's attribute `of_function`."""
        kind = helper.make_attribute(of_function, EXPAND_DEFAULTS.get(of_function, (1, 1, 1))).type
        self.nodes[-1].attribute.append(AttributeProto(name=attribute, ref_attr_name=of_function, type=kind))

    def function(self, op_type: str, inputs, outputs, defaults=None, required=()) -> FunctionProto:
        """Close the body. Defaults of attributes live in `attribute_proto`, which readers before IR version 9 skip."""
        function = helper.make_function(names.DOMAIN, op_type, inputs, outputs, self.nodes,
                                        [helper.make_opsetid("", self.opset)], list(required))
        for attribute, value in (defaults or {}).items():
            function.attribute_proto.append(helper.make_attribute(attribute, value))
        return function


def _activation_gate(op_type: str, body: _Body) -> FunctionProto:
    """Three steps of 'keep unless less than'; means are taken in stages, which keeps float32 sums short.

    A mean over all with zeros for what is dropped is the mean over the kept times one factor for the whole step, and
    so leads to the same decisions.
    """
    given = op_type == names.ACTIVATION_GATE_MAGNITUDES_CL
    x = "X" if op_type == names.ACTIVATION_GATE else body.op("Transpose", "X", perm=TO_CHANNELS_FIRST)
    if body.float_type == "float16":
        x = body.cast(x, TensorProto.FLOAT)
    magnitude = body.op("Abs", x)
    zero = body.constant(0, np.float32)

    if given:
        per_frame_and_channel = body.op("Transpose", names.MAGNITUDES[0], perm=[0, 2, 1])
    else:
        per_frame_and_channel = body.reduce("ReduceMean", magnitude, [3, 4])            # [N, C, T]
    frames = _keep(body, body.reduce("ReduceMean", per_frame_and_channel, [1]), step=0)
    frames_at = body.unsqueeze(frames, [1])                                             # [N, 1, T]
    on_kept = body.op("Where", frames_at, per_frame_and_channel, zero)
    channels = _keep(body, body.reduce("ReduceMean", on_kept, [2]), step=1)
    both = body.op("And", frames_at, body.unsqueeze(channels, [2]))                     # [N, C, T]
    on_kept = body.op("Where", body.unsqueeze(both, [3, 4]), magnitude, zero)
    per_frame_and_feature = body.reduce("ReduceMean", on_kept, [1])                     # [N, T, H, W]
    _keep(body, body.reduce("ReduceMean", per_frame_and_feature, [1]), step=2)
    inputs = names.GATE_MAGNITUDES_INPUTS if given else names.GATE_INPUTS
    if op_type not in names.COUNTING_GATES:
        return body.function(op_type, inputs, names.MASK_NAMES)
    counts = [body.op("ReduceSum", body.cast(mask, TensorProto.INT64), body.constant(axes, np.int64), keepdims=0)
              for mask, axes in zip(names.MASK_NAMES, ([1], [1], [1, 2]))]
    body.op("Concat", *(body.unsqueeze(count, [1]) for count in counts), axis=1, to=names.KEPT)
    return body.function(op_type, inputs, names.MASK_NAMES + (names.KEPT,))


def _keep(body: _Body, means: str, step: int) -> str:
    """bool: not (m < tau * mean m and m < max m), also made the function's output of this step.

    Less than the largest: by more than float32 sums of equal magnitudes differ (names.GATE_TIE). A comparison with NaN
    is false, so a NaN drops nothing.
    """
    axes = [1, 2] if step == 2 else [1]
    tau = body.op("Gather", "tau", body.constant([step], np.int64), axis=1)             # [N, 1]
    if step == 2:
        tau = body.unsqueeze(tau, [2])                                                  # [N, 1, 1]
    threshold = body.op("Mul", tau, body.reduce("ReduceMean", means, axes, keepdims=1))
    below = body.op("Less", means, threshold)
    tied = body.op("Mul", body.reduce("ReduceMax", means, axes, keepdims=1),
                   body.constant(1.0 - names.GATE_TIE, np.float32))
    below_largest = body.op("Less", means, tied)
    dropped = body.op("And", below, below_largest)
    if body.mask_dtype == "bool":
        return body.op("Not", dropped, to=names.MASK_NAMES[step])
    keep = body.op("Not", dropped)
    body.cast(keep, MASK_TYPES[body.mask_dtype], to=names.MASK_NAMES[step])
    return keep


def _gated_conv3d(op_type: str, body: _Body) -> FunctionProto:
    """Y = Max(Conv(X where kept, else 0) + B (+ Z), min). Where, not Mul: 0 * NaN would be NaN."""
    with_z = op_type in (names.GATED_CONV3D_ADD, names.GATED_CONV3D_ADD_CL)
    channels_last = op_type in names.CHANNELS_LAST.values()
    x, z = "X", "Z"
    if channels_last:
        x = body.op("Transpose", x, perm=TO_CHANNELS_FIRST)
        z = body.op("Transpose", z, perm=TO_CHANNELS_FIRST) if with_z else z
    y = body.op("Conv", _where_kept(body, x), "W", "B")
    for attribute in CONV_ATTRIBUTE_DEFAULTS:
        body.refer(attribute, attribute)
    if with_z:
        y = body.op("Add", y, z)
    minimum = _minimum(body, names.MIN)
    if channels_last:
        body.op("Transpose", body.op("Max", y, minimum), to="Y", perm=TO_CHANNELS_LAST)
    else:
        body.op("Max", y, minimum, to="Y")
    return body.function(op_type, names.CONV_ADD_INPUTS if with_z else names.CONV_INPUTS, ["Y"], ATTRIBUTE_DEFAULTS)


def _where_kept(body: _Body, x: str) -> str:
    zero = body.constant(0, helper.tensor_dtype_to_np_dtype(FLOAT_TYPES[body.float_type]))
    for mask, axes in zip(names.MASK_NAMES, ([1, 3, 4], [2, 3, 4], [1, 2])):
        keep = mask if body.mask_dtype == "bool" else body.cast(mask, TensorProto.BOOL)
        x = body.op("Where", body.unsqueeze(keep, axes), x, zero)
    return x


def _minimum(body: _Body, attribute: str) -> str:
    minimum = body.op("Constant")
    body.refer("value_float", attribute)
    return body.cast(minimum, TensorProto.FLOAT16) if body.float_type == "float16" else minimum


def _expand_depthwise(op_type: str, body: _Body) -> FunctionProto:
    x = _where_kept(body, body.op("Transpose", "X", perm=TO_CHANNELS_FIRST))
    expanded = body.op("Max", body.op("Conv", x, "W", "B"), _minimum(body, names.MIN))
    y = body.op("Conv", expanded, "depthwise_W", "depthwise_B")
    for attribute in CONV_ATTRIBUTE_DEFAULTS:
        body.refer(attribute, attribute)
    y = body.op("Max", y, _minimum(body, names.DEPTHWISE_MIN))
    if op_type == names.EXPAND_DEPTHWISE_SWISH_CL:
        y = body.op("Mul", y, body.op("Sigmoid", y))
    body.op("Transpose", y, to="Y", perm=TO_CHANNELS_LAST)
    return body.function(op_type, names.EXPAND_INPUTS, ["Y"], EXPAND_DEFAULTS)


def _with_magnitudes(plain: FunctionProto, body: _Body) -> FunctionProto:
    """The function `plain` with the magnitudes of Y as two more outputs."""
    last = plain.name != names.GATED_CONV3D
    body.nodes = list(plain.node)
    magnitude = body.op("Abs", body.cast("Y", TensorProto.FLOAT) if body.float_type == "float16" else "Y")
    channel = body.reduce("ReduceMean", magnitude, [2, 3] if last else [3, 4])
    body.op("Transpose", channel, to=names.MAGNITUDES[0], perm=[0, 1, 2] if last else [0, 2, 1])
    body.op("Identity", body.reduce("ReduceMean", magnitude, [4] if last else [1]), to=names.MAGNITUDES[1])
    function = body.function(names.WITH_MAGNITUDES[plain.name], plain.input, [*plain.output, *names.MAGNITUDES],
                             required=plain.attribute)
    function.attribute_proto.extend(plain.attribute_proto)
    return function


def _to_channels_last(op_type: str, body: _Body) -> FunctionProto:
    body.op("Transpose", "X", to="Y", perm=TO_CHANNELS_LAST)
    return body.function(op_type, ["X"], ["Y"])


def _max_pool3d_cl(op_type: str, body: _Body) -> FunctionProto:
    attributes = (names.KERNEL_SHAPE, names.STRIDES, names.PADS)
    y = body.op("MaxPool", body.op("Transpose", "X", perm=TO_CHANNELS_FIRST))
    for attribute in attributes:
        body.refer(attribute, attribute)
    body.op("Transpose", y, to="Y", perm=TO_CHANNELS_LAST)
    return body.function(op_type, ["X"], ["Y"], required=attributes)


def _scaled_swish_cl(op_type: str, body: _Body) -> FunctionProto:
    scaled = body.op("Mul", "X", "S")
    body.op("Mul", scaled, body.op("Sigmoid", scaled), to="Y")
    return body.function(op_type, ["X", "S"], ["Y"])
