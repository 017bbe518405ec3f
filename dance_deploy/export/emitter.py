"""Walks the traced network and emits a part of it as ONNX nodes: stem, gated body, or the dense whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from dance_deploy.export.fold import FusedConv
from dance_deploy.export.lowering import lowering_for, unsupported
from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.method.controller import Controller
from dance_deploy.method.gate import Gate
from dance_deploy.method.surgery import geometry_of, is_tensor, source_of
from dance_deploy.ops import names
from dance_deploy.ops.functions import conv_node, gate_node


class Emitter:
    """Emits nodes of one fx graph into one OnnxBuilder.

    convs: every convolution, fused; masks: tensor names of each gate's masks once emitted; gated: emit the gates and
    their convolutions as dance ops (else as a dense network).
    """

    def __init__(self, traced: fx.GraphModule, builder: OnnxBuilder, convs: dict[fx.Node, FusedConv], *,
                 gated: bool) -> None:
        self.traced = traced
        self.builder = builder
        self.gated = gated
        self.convs = convs
        self._ends = {fused.last: fused for fused in convs.values()}
        self._values: dict[fx.Node, str] = {}
        self.masks: dict[int, tuple[str, str, str]] = {}
        self.gate_inputs: dict[int, str] = {}
        self.conv_outputs: dict[str, str] = {}
        self.tau: list[str] = []

    unsupported = staticmethod(unsupported)

    def bind(self, node: fx.Node, name: str) -> None:
        """Say that the tensor of `node` is called `name`."""
        self._values[node] = name

    def value(self, node: Any) -> str:
        """Name of a node's tensor."""
        if node not in self._values:
            raise unsupported(node, "arithmetic with a tensor's size")
        return self._values[node]

    def operand(self, argument: Any) -> str:
        """Name of an operand: a node's tensor or a Python number."""
        if isinstance(argument, fx.Node):
            return self.value(argument)
        return self.builder.constant(f"float.{argument:g}", np.array(argument, np.float32))

    def emit(self, nodes: list[fx.Node]) -> None:
        """Emit `nodes` in order; those that a fused convolution absorbs come out with its last node."""
        absorbed = self._absorbed_nodes()
        for node in nodes:
            if node.op in ("placeholder", "output"):
                continue
            if node in self._ends:
                self._emit_conv(self._ends[node])
            elif node not in absorbed and not self._is_size(node):
                self._emit_node(node)

    def _is_size(self, node: fx.Node) -> bool:
        """Sizes (x.size(0)) only ever tell a reshape what its result's noted shape tells it too."""
        return node.op in ("call_function", "call_method") and not is_tensor(node)

    def _absorbed_nodes(self) -> set[fx.Node]:
        inside: set[fx.Node] = set()
        for fused in self.convs.values():
            node = fused.conv
            while node is not fused.last:
                inside.add(node)
                node = next(iter(node.users))
        return inside

    def _emit_node(self, node: fx.Node) -> None:
        layer = self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Controller):
            return
        if isinstance(layer, Gate):
            self._emit_gate(node, layer)
            return
        lower = lowering_for(node, layer)
        if lower is None:
            what = type(layer).__name__ if layer is not None else f"'{getattr(node.target, '__name__', node.target)}'"
            raise unsupported(node, what)
        self.bind(node, lower(self, node, layer))

    def _emit_gate(self, node: fx.Node, gate: Gate) -> None:
        x = self.value(source_of(node))
        self.bind(node, x)  # the op takes the whole tensor and the masks; in the dense network there is no gate
        if self.gated:
            i = gate.index
            self.gate_inputs[i] = x
            outputs = [f"gate{i}.{kind}" for kind in names.MASK_NAMES]
            self.builder.nodes.append(gate_node([x, self.tau[i]], outputs, f"gate{i}"))
            self.masks[i] = tuple(outputs)

    def _emit_conv(self, fused: FusedConv) -> None:
        source = source_of(fused.conv)
        gate = self._gate_of(source)
        g = geometry_of(fused.name, fused.module, (1, 1, 1))
        attributes = {"strides": list(g.strides), "pads": list(g.pads), "dilations": list(g.dilations),
                      "group": g.group}
        inputs = [self.value(source), self.builder.constant(fused.name + ".weight", fused.weight),
                  self.builder.constant(fused.name + ".bias", fused.bias)]
        if gate is None or not self.gated:
            output = self.builder.node("Conv", inputs, fused.last.name, name=fused.name,
                                       kernel_shape=list(g.kernel), **attributes)
        else:
            inputs += self.masks[gate.index]
            if fused.residual is not None:
                inputs.append(self.value(fused.residual))
            output = self.builder.unique(fused.last.name)
            self.builder.nodes.append(conv_node(inputs, output, fused.name, **attributes,
                                                min=0.0 if fused.relu else names.MIN_DEFAULT))
        self.conv_outputs[fused.name] = output
        self.bind(fused.last, output)

    def _gate_of(self, node: Any) -> Gate | None:
        if isinstance(node, fx.Node) and node.op == "call_module":
            layer: nn.Module = self.traced.get_submodule(str(node.target))
            return layer if isinstance(layer, Gate) else None
        return None
