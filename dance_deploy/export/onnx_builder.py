"""Collects the nodes, constants and tensors of one ONNX graph."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import dance_deploy
from dance_deploy.ops import names

_TENSOR_TYPE = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64,
                np.dtype(np.bool_): TensorProto.BOOL}


class OnnxBuilder:
    """Builds one graph for one opset; every name that it hands out is unique in the graph."""

    def __init__(self, name: str, opset: int, reserved: Sequence[str] = ()) -> None:
        """reserved: names that only input() and rename() give."""
        self.name = name
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._taken: set[str] = set(reserved)

    def input(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> str:
        """Declare a graph input."""
        self._taken.add(name)
        self._inputs.append(tensor_info(name, shape, dtype))
        return name

    def output(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> None:
        """Declare the tensor `name` a graph output."""
        self._outputs.append(tensor_info(name, shape, dtype))

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initializer; the same name with the same value is one initializer. Returns its name."""
        value = np.ascontiguousarray(value)
        known = self._constants.get(name)
        if known is not None and np.array_equal(numpy_helper.to_array(known), value):
            return name
        unique = self.unique(name)
        self._constants[unique] = numpy_helper.from_array(value, unique)
        return unique

    def ints(self, *values: int) -> str:
        """An int64 constant with these values, named after them."""
        return self.constant("int64." + "_".join(map(str, values)), np.array(values, np.int64))

    def node(self, op: str, inputs: Sequence[str], output: str | Sequence[str], *, domain: str = "",
             name: str = "", **attributes: Any) -> Any:
        """Add a node; `output` is the wanted name (or names); returns the name(s) actually given."""
        outputs = [self.unique(o) for o in ([output] if isinstance(output, str) else output)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name or outputs[0], domain=domain,
                                           **attributes))
        return outputs[0] if isinstance(output, str) else outputs

    def reduce(self, op: str, x: str, axes: Sequence[int], output: str, keepdims: int = 0) -> str:
        """ReduceMean or ReduceSum, whose axes moved from an attribute to an input at opset 18 (ReduceSum: 13)."""
        if op == "ReduceSum" or self.opset >= 18:
            return self.node(op, [x, self.ints(*axes)], output, keepdims=keepdims)
        return self.node(op, [x], output, axes=list(axes), keepdims=keepdims)

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node whose first output is `tensor`."""
        return next((node for node in self.nodes if node.output[0] == tensor), None)

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that one of our nodes makes another name, everywhere."""
        for node in self.nodes:
            for field in (node.input, node.output):
                for i, value in enumerate(field):
                    if value == old:
                        field[i] = new
        self._taken.add(new)

    def nodes_with_constants(self) -> list[onnx.NodeProto]:
        """The nodes after one `Constant` for each constant: a function has no initializers."""
        return [helper.make_node("Constant", [], [name], value=value)
                for name, value in self._constants.items()] + self.nodes

    def model(self, ir_version: int, functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
        """The finished, checked model; the dance domain is imported where one of its ops is used."""
        graph = helper.make_graph(self.nodes, self.name, self._inputs, self._outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == names.DOMAIN for node in self.nodes):
            opsets.append(helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions),
                                  producer_name="dance_deploy", producer_version=dance_deploy.__version__)
        onnx.checker.check_model(model)
        return model

    def unique(self, name: str) -> str:
        """`name`, or where a tensor is called so already, `name` with a number; taken from now on."""
        unique, n = name, 1
        while unique in self._taken:
            n += 1
            unique = f"{name}.{n}"
        self._taken.add(unique)
        return unique


def tensor_info(name: str, shape: Sequence[int], dtype: Any = np.float32) -> onnx.ValueInfoProto:
    """ValueInfo of a tensor with a static shape."""
    return helper.make_tensor_value_info(name, _TENSOR_TYPE[np.dtype(dtype)], list(shape))
