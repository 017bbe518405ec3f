"""An ONNX model as nodes that can be read and changed on a board that has no package onnx.

Weights stay where they are in the file's bytes until the changed model is written. Field numbers: onnx/onnx.proto.
"""
import struct
from collections import OrderedDict

from dance_deploy.runtime.trt import wire
from dance_deploy.runtime.trt.wire import Fixed, WireError, message

FLOAT, INT64, BOOL, FLOAT16 = 1, 7, 9, 10  # TensorProto.DataType
_NEW_NAME = "{}:other"  # where one name stands for two things; exported layers have no colon in theirs
_FLOAT_ATTRIBUTE, _INT_ATTRIBUTE, _STRING_ATTRIBUTE, _TENSOR_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 3, 4, 7


class Node(object):
    """One node. attributes: name -> the attribute's bytes; read them with attribute()."""

    def __init__(self, op_type, inputs, outputs, name="", domain="", attributes=()):
        self.op_type = op_type
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.name = name
        self.domain = domain
        self.attributes = OrderedDict(attributes)

    @classmethod
    def from_bytes(cls, data):
        """The NodeProto in `data`."""
        node = cls("", [], [])
        for number, value in wire.fields(data):
            if number in (1, 2):
                (node.inputs if number == 1 else node.outputs).append(wire.text(value))
            elif number == 3:
                node.name = wire.text(value)
            elif number == 4:
                node.op_type = wire.text(value)
            elif number == 5:
                node.attributes[_name_of(value, 1)] = bytes(value)
            elif number == 7:
                node.domain = wire.text(value)
        return node

    def to_bytes(self):
        """The NodeProto."""
        items = [(1, name) for name in self.inputs] + [(2, name) for name in self.outputs]
        items += [(3, self.name), (4, self.op_type)] + [(5, data) for data in self.attributes.values()]
        return message(items + ([(7, self.domain)] if self.domain else []))

    def attribute(self, name, default=None):
        """An int, a list of ints, a float or a string; `default` where it is not there."""
        return attribute_value(self.attributes[name]) if name in self.attributes else default

    def set(self, **values):
        """Set attributes: int, float, or list of ints."""
        for name, value in values.items():
            self.attributes[name] = attribute_bytes(name, value)


class Model(object):
    """nodes: the graph's, in order; weights: name -> TensorProto's bytes; inputs, outputs: name -> ValueInfoProto's."""

    def __init__(self, data):
        """data: bytes of a ModelProto, or of several laid end to end. Raises WireError."""
        self.nodes = []
        self.weights, self.inputs, self.outputs = OrderedDict(), OrderedDict(), OrderedDict()
        self.functions = OrderedDict()
        self._head, self._opsets, self._rest = [], [], []
        try:
            self._read(data)
        except (TypeError, ValueError, IndexError) as error:  # a field of another kind than ONNX says, a bad string
            raise WireError(str(error)) from error

    def _read(self, data):
        for number, value in wire.fields(data):
            if number == 7:
                self._read_graph(value)
            elif number == 8:
                self._opsets.append(value)
            elif number == 25:
                function = Function(value)
                self.functions[(function.domain, function.name)] = function
            else:
                self._head.append((number, value))

    def _read_graph(self, data):
        for number, value in wire.fields(data):
            if number == 1:
                node = Node.from_bytes(value)
                node.name = node.name or node.outputs[0]  # names are how layers are pinned
                self.nodes.append(node)
            elif number in (5, 11, 12):
                {5: self.weights, 11: self.inputs, 12: self.outputs}[number][_name_of(value, 8 if number == 5 else 1)] \
                    = value
            elif number != 13:  # what is known of the tensors between nodes need not hold after a change
                self._rest.append((number, value))

    def to_bytes(self):
        """The ModelProto, as one message."""
        weights = [(5, data) for data in self.weights.values()]
        return message(self._head + [(7, message(self._graph() + weights))] + self._behind())

    def pieces(self):
        """The ModelProto as pieces to be laid end to end. Weights are none of ours, but of what was read: they are not
        copied, and stand in a second graph of the message, which readers merge with the first."""
        found = [message(self._head + [(7, message(self._graph()))] + self._behind())]
        weights = [piece for data in self.weights.values() for piece in (wire.header(5, len(data)), data)]
        if weights:
            found += [wire.header(7, sum(len(piece) for piece in weights))] + weights
        return found

    def _graph(self):
        items = [(1, node.to_bytes()) for node in self.nodes] + self._rest
        items += [(11, data) for data in self.inputs.values()] + [(12, data) for data in self.outputs.values()]
        return items

    def _behind(self):
        used = {node.domain for node in self.nodes} | {"", "ai.onnx"}
        opsets = [(8, data) for data in self._opsets if _name_of(data, 1) in used]
        return opsets + [(25, function.data) for key, function in self.functions.items() if key[0] in used]

    def continue_with(self, other):
        """Append the graph of `other`, whose inputs are tensors of this one, and give what it gives.

        Where a name stands for two things, this graph's node or tensor gets another one, since those of `other` may be
        asked for; but inputs keep theirs. False, and nothing is changed, where the two use different versions of an
        operator set, or an output of `other` is called as an input of this one.
        """
        versions, others = (dict(_opset(data) for data in model._opsets) for model in (self, other))
        if any(versions.get(domain, version) != version for domain, version in others.items()) or set(
                self.inputs) & set(other.outputs):
            return False
        made = other.made()
        other.rename({name: _NEW_NAME.format(name) for name in made & set(self.inputs)})
        self.rename({name: _NEW_NAME.format(name) for name in made & self.made()})
        names = {node.name for node in other.nodes}
        for node in self.nodes:
            if node.name in names:
                node.name = _NEW_NAME.format(node.name)
        self.nodes += other.nodes
        self.weights.update(other.weights)
        self._opsets += [data for data in other._opsets if _opset(data)[0] not in versions]
        self.functions.update(other.functions)
        self.outputs = OrderedDict(other.outputs)
        return True

    def made(self):
        """The names of all tensors but the inputs."""
        return set(self.weights) | {name for node in self.nodes for name in node.outputs if name}

    def rename(self, new):
        """Give tensors other names; new: old name -> new name."""
        for node in self.nodes:
            node.inputs = [new.get(name, name) for name in node.inputs]
            node.outputs = [new.get(name, name) for name in node.outputs]
        self.weights = OrderedDict((new[name], renamed_tensor(data, new[name])) if name in new else (name, data)
                                   for name, data in self.weights.items())

    def producers(self):
        """{tensor: the Node that makes it}."""
        return {name: node for node in self.nodes for name in node.outputs}

    def shapes(self, values=None):
        """{name: (element type, shape)} of the inputs and outputs; an axis without a number is -1."""
        values = list(self.inputs.items()) + list(self.outputs.items()) if values is None else values
        return {name: _type_of(data) for name, data in values}

    def output(self, name, element_type, shape):
        """Declare the tensor `name` a graph output."""
        self.outputs[name] = value_info(name, element_type, shape)


class Function(object):
    """A model-local function. defaults: attribute name -> bytes."""

    def __init__(self, data):
        self.data = data
        self.name = self.domain = ""
        self.inputs, self.outputs, self.nodes, self.defaults = [], [], [], {}
        for number, value in wire.fields(data):
            if number in (4, 5):
                (self.inputs if number == 4 else self.outputs).append(wire.text(value))
            elif number == 7:
                self.nodes.append(value)
            elif number == 11:
                self.defaults[_name_of(value, 1)] = bytes(value)
            elif number == 1:
                self.name = wire.text(value)
            elif number == 10:
                self.domain = wire.text(value)


def attribute_bytes(name, value):
    """An AttributeProto from an int, a float, a string, a list of ints, or the bytes of a TensorProto."""
    if isinstance(value, int):
        return message([(1, name), (3, value), (20, _INT_ATTRIBUTE)])
    if isinstance(value, float):
        return message([(1, name), (2, Fixed.from_float(value)), (20, _FLOAT_ATTRIBUTE)])
    if isinstance(value, str):
        return message([(1, name), (4, value), (20, _STRING_ATTRIBUTE)])
    if isinstance(value, bytes):
        return message([(1, name), (5, value), (20, _TENSOR_ATTRIBUTE)])
    return message([(1, name)] + [(8, int(v)) for v in value] + [(20, _INTS_ATTRIBUTE)])


def attribute_value(data):
    """What an AttributeProto says, where it is an int, a list of ints, a float or a string; else None."""
    kind, value, ints = 0, None, []
    for number, field in wire.fields(data):
        if number == 20:
            kind = field
        elif number == 2:
            value = struct.unpack("<f", field)[0]
        elif number == 3:
            value = wire.signed(field)
        elif number == 4:
            value = wire.text(field)
        elif number == 8:
            ints += wire.integers(field)
    return ints if kind == _INTS_ATTRIBUTE else value


def referred_attribute(data):
    """(own name, name of the function's attribute that it takes its value from, or "")."""
    return _name_of(data, 1), _name_of(data, 21)


def renamed_attribute(data, name):
    """The AttributeProto under another name."""
    return message([(1, name)] + [(n, v) for n, v in wire.fields(data) if n != 1])


def renamed_tensor(data, name):
    """The TensorProto under another name."""
    return message([(n, v) for n, v in wire.fields(data) if n != 8] + [(8, name)])


def tensor_bytes(name, array, element_type):
    """A TensorProto of a contiguous little-endian numpy array."""
    return message([(1, int(extent)) for extent in array.shape] + [(2, element_type), (8, name), (9, array.tobytes())])


def tensor_parts(data):
    """(element type, shape, raw bytes or None where the numbers are stored otherwise) of a TensorProto."""
    element_type, shape, raw = 0, [], None
    for number, value in wire.fields(data):
        if number == 1:
            shape += wire.integers(value)
        elif number == 2:
            element_type = value
        elif number == 9:
            raw = value
    return element_type, tuple(shape), raw


def value_info(name, element_type, shape):
    """A ValueInfoProto of a tensor with a static shape; shape None: not stated."""
    if shape is None:
        return message([(1, name), (2, message([(1, message([(1, element_type)]))]))])
    axes = message([(1, message([(1, int(extent))])) for extent in shape])
    return message([(1, name), (2, message([(1, message([(1, element_type), (2, axes)]))]))])


def _type_of(data):
    tensor = _field(_field(data, 2), 1)
    element_type = next((v for n, v in wire.fields(tensor) if n == 1), 0)
    axes = [v for n, v in wire.fields(_field(tensor, 2)) if n == 1]
    extents = [next((wire.signed(v) for n, v in wire.fields(axis) if n == 1), -1) for axis in axes]
    return element_type, tuple(extents)


def _opset(data):
    """(domain, version) of an OperatorSetIdProto; the standard domain has two names."""
    domain = _name_of(data, 1)
    return "" if domain == "ai.onnx" else domain, next((v for n, v in wire.fields(data) if n == 2), 0)


def _field(data, wanted):
    return next((value for number, value in wire.fields(data) if number == wanted), b"")


def _name_of(data, number):
    return wire.text(_field(data, number))
