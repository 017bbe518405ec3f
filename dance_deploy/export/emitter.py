"""Walks the traced network and emits a part of it as ONNX nodes: stem, gated body, or the dense whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from dance_deploy.export.fold import Expansion, FusedConv, expansions
from dance_deploy.export.layouts import Tensors
from dance_deploy.export.lowering import last_lowering_for, lowering_for, unsupported
from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.method.controller import Controller
from dance_deploy.method.gate import Gate
from dance_deploy.method.surgery import geometry_of, is_tensor, shape_of, source_of
from dance_deploy.ops import names
from dance_deploy.ops.functions import conv_node, expand_depthwise_node, gate_node, hand_on_magnitudes


class Emitter:
    """Emits nodes of one fx graph into one OnnxBuilder.

    convs: every convolution, fused; masks: tensor names of each gate's masks once emitted; counts: and of how many they
    keep, channels last; gated: emit the gates and their convolutions as dance ops (else as a dense network);
    channels_last: the type of masks ("bool", "float32") where every convolution is to be a dance op, those without a
    gate keeping everything, and activations are to lie in [N, T, H, W, C]; else "".
    """

    def __init__(self, traced: fx.GraphModule, builder: OnnxBuilder, convs: dict[fx.Node, FusedConv], *,
                 gated: bool, channels_last: str = "") -> None:
        self.traced = traced
        self.builder = builder
        self.gated = gated
        self.channels_last = channels_last
        self.convs = convs
        self.tensors = Tensors(builder)
        self.reads_last = False
        self._ends = {fused.last: fused for fused in convs.values()}
        # by the last node of their depthwise convolutions
        self.expansions: dict[fx.Node, Expansion] = expansions(convs) if channels_last else {}
        self._expanding = {expansion.conv.last for expansion in self.expansions.values()}
        self.masks: dict[int, tuple[str, str, str]] = {}
        self.counts: dict[int, str] = {}
        self.gate_inputs: dict[int, str] = {}
        self.conv_outputs: dict[str, str] = {}
        self.tau: list[str] = []

    unsupported = staticmethod(unsupported)

    def bind(self, node: fx.Node, name: str) -> None:
        """Say that the tensor of `node`, in torch's layout, is called `name`."""
        self.tensors.bind(node, name)

    def value(self, node: Any) -> str:
        """Name of a node's tensor, in the layout that is being worked in."""
        if not self.tensors.knows(node):
            raise unsupported(node, "arithmetic with a tensor's size")
        return self.tensors.name(node, last=self.reads_last)

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
            if node in self._expanding:
                continue  # with the depthwise convolution behind it
            if node in self.expansions:
                self._emit_expansion(self.expansions[node])
            elif node in self._ends:
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
        if self._works_last(node) and self._emit_last(node, layer):
            return
        lower = lowering_for(node, layer)
        if lower is None:
            what = type(layer).__name__ if layer is not None else f"'{getattr(node.target, '__name__', node.target)}'"
            raise unsupported(node, what)
        self.bind(node, lower(self, node, layer))

    def _works_last(self, node: fx.Node) -> bool:
        """Whether an operand lies in channels last and all of them could."""
        operands = node.all_input_nodes
        return any(self.tensors.is_last(a) for a in operands) and all(
            "tensor_meta" in a.meta and len(shape_of(a)) == 5 for a in operands)

    def _emit_last(self, node: fx.Node, layer: nn.Module | None) -> bool:
        lower = last_lowering_for(node, layer)
        if lower is None:
            return False
        self.reads_last = True
        name = lower(self, node, layer)
        self.reads_last = False
        if name is None:
            return False
        self.tensors.bind(node, name, last=len(shape_of(node)) == 5)
        return True

    def _emit_gate(self, node: fx.Node, gate: Gate) -> None:
        last = bool(self.channels_last)
        x = self.tensors.name(source_of(node), last=last)
        # the op takes the whole tensor and the masks; in the dense network there is no gate
        self.tensors.same(node, source_of(node))
        if self.gated:
            i = gate.index
            self.gate_inputs[i] = x
            frames, channels, features = (f"gate{i}.{kind}" for kind in names.MASK_NAMES)
            self.masks[i] = frames, channels, features
            inputs, outputs = [x, self.tau[i]], list(self.masks[i])
            if last:
                self.counts[i] = self.builder.unique(f"gate{i}.{names.KEPT}")
                inputs += self.magnitudes_of(x) or ()
                outputs.append(self.counts[i])
            self.builder.nodes.append(gate_node(inputs, outputs, f"gate{i}", channels_last=last))

    def magnitudes_of(self, tensor: str) -> tuple[str, str] | None:
        """Names of the tensor's magnitudes (names.MAGNITUDES), if a dance op makes it: it is told to write them."""
        node = self.builder.maker(tensor)
        if node is None or node.domain != names.DOMAIN:
            return None
        if node.op_type in names.WITH_MAGNITUDES:
            channel, pixel = (self.builder.unique(f"{tensor}.{name}") for name in names.MAGNITUDES)
            hand_on_magnitudes(node, channel, pixel)
        return (node.output[1], node.output[2]) if node.op_type in names.WITH_MAGNITUDES.values() else None

    def _emit_conv(self, fused: FusedConv) -> None:
        source = source_of(fused.conv)
        gate = self._gate_of(source)
        g = geometry_of(fused.name, fused.module, (1, 1, 1))
        attributes: dict[str, Any] = {"strides": list(g.strides), "pads": list(g.pads), "dilations": list(g.dilations),
                      "group": g.group}
        last = bool(self.channels_last)
        inputs = [self.tensors.name(source, last=last), self.builder.constant(fused.name + ".weight", fused.weight),
                  self.builder.constant(fused.name + ".bias", fused.bias)]
        if (gate is None or not self.gated) and not self.channels_last:
            output = self.builder.node("Conv", inputs, fused.last.name, name=fused.name,
                                       kernel_shape=list(g.kernel), **attributes)
        else:
            inputs += self._all_kept(source) if gate is None else self.masks[gate.index]
            if fused.residual is not None:
                inputs.append(self.tensors.name(fused.residual, last=last))
            output = self.builder.unique(fused.last.name)
            self.builder.nodes.append(conv_node(inputs, output, fused.name, channels_last=last, **attributes,
                                                min=0.0 if fused.relu else names.MIN_DEFAULT))
        self.conv_outputs[fused.name] = output
        self.tensors.bind(fused.last, output, last=last)

    def _emit_expansion(self, expansion: Expansion) -> None:
        conv, depthwise = expansion.conv, expansion.depthwise
        source = source_of(conv.conv)
        gate = self._gate_of(source)
        g = geometry_of(depthwise.name, depthwise.module, (1, 1, 1))
        (w, b), (depthwise_w, depthwise_b) = (
            [self.builder.constant(f"{fused.name}.{kind}", value)
             for kind, value in (("weight", fused.weight), ("bias", fused.bias))] for fused in (conv, depthwise))
        masks = self._all_kept(source) if gate is None or not self.gated else self.masks[gate.index]
        output = self.builder.unique(depthwise.last.name)
        self.builder.nodes.append(expand_depthwise_node(
            [self.tensors.name(source, last=True), w, b, *masks, depthwise_w, depthwise_b], output, depthwise.name,
            strides=list(g.strides), pads=list(g.pads), dilations=list(g.dilations), group=g.group, **{
                names.MIN: 0.0 if conv.relu else names.MIN_DEFAULT,
                names.DEPTHWISE_MIN: 0.0 if depthwise.relu else names.MIN_DEFAULT}))
        self.conv_outputs[conv.name] = self.conv_outputs[depthwise.name] = output
        self.tensors.bind(depthwise.last, output, last=True)

    def _all_kept(self, source: fx.Node) -> list[str]:
        n, c, t, h, w = shape_of(source)
        dtype = np.bool_ if self.channels_last == "bool" else np.float32
        return [self.builder.constant("kept." + "x".join(map(str, shape)), np.ones(shape, dtype))
                for shape in ((n, t), (n, c), (n, h, w))]

    def _gate_of(self, node: Any) -> Gate | None:
        if isinstance(node, fx.Node) and node.op == "call_module":
            layer: nn.Module = self.traced.get_submodule(str(node.target))
            return layer if isinstance(layer, Gate) else None
        return None
