"""Changes to a bundle's graphs on the way into an engine; each takes a Model and changes it in place.

The graphs in the bundle stay as they are: what an engine was built from is written in its record.
"""
import numpy as np

from dance_deploy.errors import InputError
from dance_deploy.ops import names
from dance_deploy.runtime.kernels import BUILD_PLUGIN
from dance_deploy.runtime.trt import onnx_file
from dance_deploy.runtime.trt.onnx_file import BOOL, FLOAT, FLOAT16, INT64, Node

# computed in half precision where that is asked for: what moves or multiplies most, and what lies between
HALF_OPS = ("Conv", names.GATED_CONV3D, names.GATED_CONV3D_ADD, "Relu", "MaxPool", "Add")
_WEIGHT_INPUTS = (1, 2)  # W and B of a convolution
_CONV_ATTRIBUTES = (names.STRIDES, names.PADS, names.DILATIONS, names.GROUP)


def gates(model):
    """The ActivationGate nodes, in the graph's order."""
    return [node for node in model.nodes if node.op_type in names.GATES]


def convs_of(model, gate):
    """The gated convolutions that read a gate's masks."""
    return [node for node in model.nodes if node.op_type in names.CONVS and node.inputs[3] == gate.outputs[0]]


def has_dance_ops(model):
    """Whether any node needs the plugin (or a function)."""
    return any(node.domain == names.DOMAIN for node in model.nodes)


def behind_stem(model):
    """Names of the controller's nodes that the first layer does not need: statistics and thresholds.

    They stay in float32 always: sums over a million magnitudes, and budgets to three digits.
    """
    producers, needed, wanted = model.producers(), set(), ["stem"]
    while wanted:
        node = producers.get(wanted.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            wanted += node.inputs
    return tuple(node.name for node in model.nodes if id(node) not in needed)


def inline_functions(model):
    """Replace the dance ops by the bodies of their functions, attributes as literals.

    TensorRT's parser takes functions, but ignores strides and dilations that are given by reference, and says nothing.
    Raises InputError where the file carries no function for an op.
    """
    nodes = []
    for node in model.nodes:
        if node.domain != names.DOMAIN:
            nodes.append(node)
            continue
        function = model.functions.get((node.domain, node.op_type))
        if function is None:
            raise InputError("node '{}': {} is in the graph without a function, so only the plugin can run it; run: {} "
                             "(or export with a profile that has functions)".format(
                                 node.name, node.op_type, BUILD_PLUGIN))
        nodes += _inlined(node, function)
    model.nodes = nodes


def _inlined(call, function):
    prefix = (call.name or call.outputs[0]) + "/"
    renamed = dict(zip(function.inputs, call.inputs))
    renamed.update(zip(function.outputs, call.outputs))
    renamed[""] = ""
    nodes = []
    for position, data in enumerate(function.nodes):
        node = Node.from_bytes(data)
        node.inputs = [renamed.get(name, prefix + name) for name in node.inputs]
        while node.inputs and not node.inputs[-1]:
            node.inputs.pop()  # the parser refuses a trailing empty name
        node.outputs = [renamed.get(name, prefix + name) for name in node.outputs]
        node.name = "{}{}_{}".format(prefix, node.op_type, position)
        for name, attribute in list(node.attributes.items()):
            own, referred = onnx_file.referred_attribute(attribute)
            if referred:
                given = call.attributes.get(referred, function.defaults.get(referred))
                if given is None:
                    del node.attributes[name]
                else:
                    node.attributes[name] = onnx_file.renamed_attribute(given, own)
        nodes.append(node)
    return nodes


def leave_dense(model, wanted, sizes):
    """Take the gates with the numbers in `wanted` out: their masks keep all, their convolutions are plain ones.

    sizes: per gate (C, T, H, W), from the manifest. The masks stay in the graph as constants, so that `kept` and the
    costs that are counted from the masks say what is computed.
    """
    convolutions, constants = {}, {}
    for number, gate in enumerate(gates(model)):
        if number in wanted:
            channels, frames, height, width = sizes[number]
            element_type = mask_type(model)
            numpy_type = np.bool_ if element_type == BOOL else np.float32
            constants[id(gate)] = [
                Node("Constant", [], [mask], mask + ".all",
                     attributes={"value": onnx_file.attribute_bytes("value", onnx_file.tensor_bytes(
                         mask, np.ones(shape, numpy_type), element_type))})
                for mask, shape in zip(gate.outputs, ((1, frames), (1, channels), (1, height, width)))]
            convolutions.update((id(conv), conv) for conv in convs_of(model, gate))
    nodes = []
    for node in model.nodes:
        if id(node) in constants:
            nodes += constants[id(node)]
        else:
            nodes += dense_nodes(node) if id(node) in convolutions else [node]
    model.nodes = nodes


def dense_nodes(node):
    """A gated convolution as Conv, then Add and Relu or Clip where it has a residual or a lower bound."""
    if node.op_type not in (names.GATED_CONV3D, names.GATED_CONV3D_ADD):
        raise InputError("node '{}': {} cannot be left dense; export the bundle with channels first".format(
            node.name, node.op_type))
    output = node.outputs[0]
    attributes = {name: node.attributes[name] for name in _CONV_ATTRIBUTES if name in node.attributes}
    made = [Node("Conv", node.inputs[:3], [output], node.name, attributes=attributes)]
    if node.op_type == names.GATED_CONV3D_ADD:
        made.append(Node("Add", [output, node.inputs[6]], [output], node.name + ".add"))
    low = node.attribute(names.MIN, names.MIN_DEFAULT)
    if low == 0.0:
        made.append(Node("Relu", [output], [output], node.name + ".relu"))
    elif low > names.MIN_DEFAULT:
        value = onnx_file.tensor_bytes("", np.float32(low).reshape(()), FLOAT)
        bound = Node("Constant", [], [node.name + ".low"], node.name + ".low", attributes={
            "value": onnx_file.attribute_bytes("value", value)})
        made += [bound, Node("Max", [output, bound.outputs[0]], [output], node.name + ".max")]
    chain = [step for step in made if step.outputs[0] == output]
    for step, after in zip(chain, chain[1:]):
        between = step.name + ".dense"
        step.outputs[0] = between
        after.inputs[0] = between
    return made


def mask_type(model):
    """Element type of the masks, read off the graph's mask outputs; bool where none is declared."""
    declared = model.shapes()
    for gate in gates(model):
        if gate.outputs[0] in declared:
            return declared[gate.outputs[0]][0]
    return BOOL


def set_mask_type(model, element_type):
    """Let the masks be BOOL or FLOAT, whichever the body was exported with, where the plugin makes them.

    As floats they are counted as floats: TensorRT 8 sums nothing else (exact up to 2^24 entries).
    """
    masks = {mask for gate in gates(model) for mask in gate.outputs}
    for name, (_, shape) in model.shapes().items():
        if name in masks:
            model.output(name, element_type, shape)
    if element_type == BOOL:
        return  # what counts floats counts what a Cast makes of bool, too
    nodes, numbers = [], set()
    for node in model.nodes:
        nodes.append(node)
        if node.op_type == "Cast" and node.inputs[0] in masks:
            node.set(to=FLOAT)
            numbers.add(node.outputs[0])
        elif node.op_type == "ReduceSum" and node.inputs[0] in numbers:
            count, node.outputs[0] = node.outputs[0], node.outputs[0] + ".sum"
            nodes.append(_cast(node.outputs[0], count, INT64))
    model.nodes = nodes


def to_half(model, pinned=()):
    """Let HALF_OPS compute in float16, except the nodes named in `pinned`; inputs and outputs stay float32.

    For TensorRT whose networks are strongly typed. A Cast stands wherever the type changes; TensorRT takes those out
    that go down and straight up again.
    """
    chosen = [node for node in model.nodes if node.op_type in HALF_OPS and node.name not in pinned]
    halves = {id(node) for node in chosen}
    lowered, nodes = {}, []

    def half(name):
        if name not in lowered:
            lowered[name] = name + "/half"
            nodes.append(_cast(name, lowered[name], FLOAT16))
        return lowered[name]

    for node in model.nodes:
        if node.op_type in names.GATES and node.inputs[0] in lowered:
            node.inputs[0] = lowered[node.inputs[0]]  # the gate reads what the convolutions behind it read
        if id(node) not in halves:
            nodes.append(node)
            continue
        _half_weights(model, node)
        for place, name in enumerate(node.inputs):
            if not _is_mask(node, place) and not name.endswith("/half"):
                node.inputs[place] = half(name)
        output = node.outputs[0]
        node.outputs[0] = lowered[output] = output + "/half"
        nodes += [node, _cast(node.outputs[0], output, FLOAT)]
    model.nodes = nodes


def beyond_half(model):
    """Names of the convolutions with weights that float16 cannot hold."""
    largest = np.finfo(np.float16).max
    return tuple(node.name for node in model.nodes if node.op_type in ("Conv",) + names.CONVS and any(
        np.abs(numpy_from_weight(model.weights[name], name)).max() > largest
        for name in node.inputs[1:3] if name in model.weights))


def _is_mask(node, place):
    return node.op_type in names.CONVS and 3 <= place <= 5


def _half_weights(model, node):
    """Point a convolution at float16 copies of its weights; the float32 ones go where nobody reads them."""
    if node.op_type != "Conv" and node.op_type not in names.CONVS:
        return
    for place in _WEIGHT_INPUTS:
        if place >= len(node.inputs) or node.inputs[place] not in model.weights:
            continue
        name = node.inputs[place]
        made = name + "/half"
        if made not in model.weights:
            values = numpy_from_weight(model.weights[name], name)
            model.weights[made] = onnx_file.tensor_bytes(made, values.astype("<f2"), FLOAT16)
        node.inputs[place] = made


def drop_unused_weights(model):
    """Forget weights that no node reads."""
    used = {name for node in model.nodes for name in node.inputs} | set(model.outputs)
    for name in [name for name in model.weights if name not in used]:
        del model.weights[name]


def numpy_from_weight(data, name):
    """The float32 array of a TensorProto with raw data; raises InputError for any other."""
    element_type, shape, raw = onnx_file.tensor_parts(data)
    if element_type != FLOAT or raw is None:
        raise InputError("weight '{}' is not stored as raw float32; export the bundle again".format(name))
    return np.frombuffer(raw, "<f4").reshape(shape)


def _cast(source, target, element_type):
    node = Node("Cast", [source], [target], target + ".cast")
    node.set(to=element_type)
    return node


def only_one_gate(model, number, size, gated):
    """Reduce a body to one gate and its convolutions, fed from outside: what is timed when choosing dense or gated.

    The convolutions read masks that are graph inputs, so that both forms work on chosen masks; the gate itself runs
    beside them. size: (C, T, H, W). Returns {input: shape}.
    """
    gate = gates(model)[number]
    convs = convs_of(model, gate)
    channels, frames, height, width = size
    kind, x = mask_type(model), gate.inputs[0]
    given = [mask + ".given" for mask in gate.outputs]
    inputs = {x: (FLOAT, (1,) + tuple(size))}
    if gated:
        inputs["tau.row"] = (FLOAT, (1, 3))
        inputs.update(zip(given, [(kind, (1, frames)), (kind, (1, channels)), (kind, (1, height, width))]))
        gate.inputs[1] = "tau.row"
    nodes, outputs = ([gate] if gated else []), {}
    for conv in convs:
        shape = _conv_output(model, conv, size)
        outputs[conv.outputs[0]] = shape
        if len(conv.inputs) > 6:
            conv.inputs[6] = conv.name + ".z"
            inputs[conv.inputs[6]] = (FLOAT, shape)
        conv.inputs[3:6] = given
        nodes += [conv] if gated else dense_nodes(conv)
    model.nodes = nodes
    model.inputs.clear()
    model.outputs.clear()
    for name, (element_type, shape) in inputs.items():
        model.inputs[name] = onnx_file.value_info(name, element_type, shape)
    for name, shape in outputs.items():
        model.output(name, FLOAT, shape)
    if gated:
        for mask, source in zip(gate.outputs, given):
            model.output(mask, *inputs[source])
    drop_unused_weights(model)
    return {name: shape for name, (_, shape) in inputs.items()}


def _conv_output(model, conv, size):
    """(1, M, T', H', W') of a gated convolution."""
    _, weight, _ = onnx_file.tensor_parts(model.weights[conv.inputs[1]])
    strides, pads = conv.attribute(names.STRIDES), conv.attribute(names.PADS)
    dilations = conv.attribute(names.DILATIONS)
    extents = [(size[1 + i] + pads[i] + pads[i + 3] - dilations[i] * (weight[2 + i] - 1) - 1) // strides[i] + 1
               for i in range(3)]
    return (1, weight[0]) + tuple(extents)
