"""The three ONNX graphs of a bundle, from one gated model: controller, body, dense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import onnx
from torch import fx

from dance_deploy.errors import InputError
from dance_deploy.export.controller_graph import emit_controller, emit_thresholds, thresholds_function
from dance_deploy.export.emitter import Emitter
from dance_deploy.export.fold import Expansion, FusedConv, fused_convs
from dance_deploy.export.lowering import works_in_place
from dance_deploy.export.onnx_builder import OnnxBuilder, tensor_info
from dance_deploy.method.surgery import CONTROLLER, GatedModel, shape_of, stem_nodes
from dance_deploy.ops import names
from dance_deploy.ops.functions import TO_CHANNELS_LAST, dance_functions
from dance_deploy.profiles import Profile

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


@dataclass
class GatedLayer:
    """One gated convolution of the body: its gate's number, its tensors' names in body.onnx, its fused weights.

    channels_last: whether X and Y (and Z) are [N, T, H, W, C] there; expansion: where it is one op with the depthwise
    convolution behind it, which makes Y then.
    """

    gate: int
    x: str
    masks: tuple[str, str, str]
    y: str
    fused: FusedConv
    channels_last: bool
    expansion: Expansion | None = None

    @property
    def last(self) -> fx.Node:
        """The node whose value Y is."""
        return self.expansion.last if self.expansion else self.fused.last


@dataclass
class Graphs:
    """The graphs and what is needed to look inside them.

    controller_kernels: the controller with its convolutions as dance ops, in a channels-last bundle.
    """

    controller: onnx.ModelProto
    controller_kernels: onnx.ModelProto | None
    body: onnx.ModelProto
    dense: onnx.ModelProto
    layers: list[GatedLayer]
    masks: list[onnx.ValueInfoProto]
    stem: fx.Node

    def mask_outputs(self) -> onnx.ModelProto:
        """A ModelProto that holds nothing but the masks as graph outputs (docs/bundle.md, body_masks.onnxpart)."""
        part = onnx.ModelProto()
        part.graph.output.extend(self.masks)
        return part


def graphs_from_model(model: GatedModel, profile: Profile) -> Graphs:
    """Emit the graphs of a gated model in eval mode; raises InputError where a layer cannot be exported exactly."""
    traced = model.graph
    nodes = list(traced.graph.nodes)
    controller_node = next(n for n in nodes if n.op == "call_module" and n.target == CONTROLLER)
    stem = controller_node.args[0]
    _check_exportable(traced)
    inside = stem_nodes(traced, stem) | {controller_node}
    clip = next(n for n in nodes if n.op == "placeholder")
    result = next(n for n in nodes if n.op == "output").args[0]
    if not isinstance(result, fx.Node) or len(shape_of(result)) != 2:
        raise InputError("the model must return one tensor of logits [N, classes]")
    cutter = _Cutter(model, profile, clip, stem, result)
    head = [n for n in nodes if n in inside]
    tail = [n for n in nodes if n not in inside]
    body, layers, infos = cutter.body(tail)
    kernels = cutter.controller(head, ours=True) if profile.channels_last else None
    return Graphs(cutter.controller(head, ours=False), kernels, body, cutter.dense(nodes), layers, infos, stem)


def _check_exportable(traced: fx.GraphModule) -> None:
    """Raise InputError for what ONNX has no word for: more inputs, and tensors that change under their readers."""
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    inputs = [node for node in order if node.op == "placeholder"]
    for node in inputs[2:]:  # clip, budget
        if node.users:
            raise InputError(f"the model reads an input '{node.target}' besides the clip; fix its value in the model")
    for node in order:
        for source in node.all_input_nodes if works_in_place(traced, node) else []:
            late = [user for user in source.users if order[user] > order[node]]
            if late:
                raise InputError(f"layer '{node.target if node.op == 'call_module' else node.name}' changes the output "
                                 f"of '{source.name}' in place, and '{late[0].name}' reads that later; write it with "
                                 "inplace=False")


class _Cutter:
    def __init__(self, model: GatedModel, profile: Profile, clip: fx.Node, stem: fx.Node, result: fx.Node) -> None:
        self.model, self.profile = model, profile
        self.clip, self.stem, self.result = clip, stem, result
        self.plain = fused_convs(model.graph, set())
        ours = set(model.plan.geometries) if profile.channels_last else model.plan.gated
        self.fused = fused_convs(model.graph, ours)
        self.channels_last = profile.mask_dtype if profile.channels_last else ""
        # `stem` crosses from graph to graph in the layout that the body works in
        self.stem_last = profile.channels_last and len(shape_of(stem)) == 5

    def _start(self, name: str, *, gated: bool, ours: bool) -> tuple[OnnxBuilder, Emitter]:
        # a layer of the model may have any name, these too
        builder = OnnxBuilder(name, self.profile.opset, reserved=("clip", "budget", "stem", "tau", "logits", "kept"))
        return builder, Emitter(self.model.graph, builder, self.fused if ours else self.plain, gated=gated,
                                channels_last=self.channels_last if ours else "")

    def _model(self, builder: OnnxBuilder) -> onnx.ModelProto:
        used = {node.op_type for node in builder.nodes if node.domain == names.DOMAIN}
        functions = dance_functions(self.profile.opset, mask_dtype=self.profile.mask_dtype) if used else []
        functions += [thresholds_function(self.profile.opset)]
        return builder.model(self.profile.ir_version, [f for f in functions if f.name in used])

    def controller(self, head: list[fx.Node], *, ours: bool) -> onnx.ModelProto:
        """clip, budget -> stem, tau; standard ops, or (ours) dance ops, the convolutions keeping everything."""
        builder, emitter = self._start("controller", gated=False, ours=ours)
        emitter.bind(self.clip, builder.input("clip", shape_of(self.clip)))
        budget = builder.input("budget", [1])
        emitter.emit(head)
        last = self.stem_last
        builder.rename(emitter.tensors.name(self.stem, last=last, plain=not ours), "stem")
        module = self.model.controller
        magnitudes = emitter.magnitudes_of("stem") if ours else None
        if magnitudes is None:
            tau = emit_controller(builder, module, "stem", shape_of(self.stem), budget, last=last)
        else:
            tau = emit_thresholds(builder, module, shape_of(self.stem), budget, magnitudes)
        builder.rename(tau, "tau")
        builder.output("stem", self._stem_shape())
        builder.output("tau", [module.gates, 3])
        return self._model(builder)

    def body(self, tail: list[fx.Node]) -> tuple[onnx.ModelProto, list[GatedLayer], list[onnx.ValueInfoProto]]:
        """stem, tau -> logits, kept; the dance ops, each also as a function."""
        builder, emitter = self._start("body", gated=True, ours=True)
        gates = self.model.controller.gates
        emitter.tensors.bind(self.stem, builder.input("stem", self._stem_shape()), last=self.stem_last)
        builder.input("tau", [gates, 3])
        sizes = builder.ints(*[1] * gates)
        emitter.tau = builder.node("Split", ["tau", sizes], [f"tau.{i}" for i in range(gates)], axis=0, name="tau.rows")
        emitter.emit(tail)
        builder.rename(emitter.value(self.result), "logits")
        builder.output("logits", shape_of(self.result))
        sizes_of_gates = [site.input_shape for site in self.model.plan.sites]
        builder.rename(_emit_kept(builder, emitter, sizes_of_gates, self.profile.mask_dtype), "kept")
        builder.output("kept", [gates, 3], np.int64)
        return self._model(builder), self._layers(emitter), self._mask_infos(emitter)

    def _stem_shape(self) -> list[int]:
        shape = shape_of(self.stem)
        return [shape[axis] for axis in TO_CHANNELS_LAST] if self.stem_last else list(shape)

    def _layers(self, emitter: Emitter) -> list[GatedLayer]:
        by_name = {fused.name: fused for fused in self.fused.values()}
        expanding = {expansion.conv.name: expansion for expansion in emitter.expansions.values()}
        return [GatedLayer(i, emitter.gate_inputs[i], emitter.masks[i], emitter.conv_outputs[name], by_name[name],
                           self.profile.channels_last, expanding.get(name))
                for i, site in enumerate(self.model.plan.sites) for name in site.convs]

    def _mask_infos(self, emitter: Emitter) -> list[onnx.ValueInfoProto]:
        infos = []
        for i, site in enumerate(self.model.plan.sites):
            c, t, h, w = site.input_shape
            for name, shape in zip(emitter.masks[i], ([1, t], [1, c], [1, h, w])):
                infos.append(tensor_info(name, shape, np.bool_ if self.profile.mask_dtype == "bool" else np.float32))
        return infos

    def dense(self, nodes: list[fx.Node]) -> onnx.ModelProto:
        """clip -> logits: the same network without gates, standard ops."""
        builder, emitter = self._start("dense", gated=False, ours=False)
        emitter.bind(self.clip, builder.input("clip", shape_of(self.clip)))
        emitter.emit(nodes)
        builder.rename(emitter.value(self.result), "logits")
        builder.output("logits", shape_of(self.result))
        return builder.model(self.profile.ir_version)


def _emit_kept(builder: OnnxBuilder, emitter: Emitter, sizes: Sequence[tuple[int, ...]], mask_dtype: str) -> str:
    """kept [L, 3] int64: how many frames, channels and features each gate keeps; sizes: (C, T, H, W) of each gate."""
    if not emitter.counts:
        return _count_masks(builder, emitter.masks, sizes, mask_dtype)
    rows = [emitter.counts[i] for i in sorted(emitter.counts)]
    return builder.node("Concat", rows, "kept.rows", axis=0) if len(rows) > 1 else rows[0]


def _count_masks(builder: OnnxBuilder, masks: dict[int, tuple[str, str, str]], sizes: Sequence[tuple[int, ...]],
                 mask_dtype: str) -> str:
    """[L, 3] int64, where gates do not count; masks: by gate.

    Masks of one shape are counted together: an X3D has 159 of them, and a node for each takes 3 % of its time. Sums are
    floats, TensorRT 8 sums nothing else, where they are exact.
    """
    alike: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # shape of a mask -> (gate, kind)
    for i in masks:
        c, t, h, w = sizes[i]
        for kind, shape in enumerate(((t,), (c,), (h, w))):
            alike.setdefault((kind, *shape), []).append((i, kind))
    floats = mask_dtype == "float32" or max(math.prod(shape[1:]) for shape in alike) <= 2 ** 24
    counts = []
    for shape, places in alike.items():
        name = f"kept.{names.KINDS[shape[0]]}." + "x".join(map(str, shape[1:]))
        same = [masks[gate][kind] for gate, kind in places]
        together = builder.node("Concat", same, name, axis=0) if len(same) > 1 else same[0]
        numbers = builder.node("Cast", [together], name + ".number", to=int(_FLOAT if floats else _INT64))
        counts.append(builder.reduce("ReduceSum", numbers, list(range(1, len(shape))), name + ".count"))
    flat = builder.node("Concat", counts, "kept.flat", axis=0)
    found = [place for same in alike.values() for place in same]
    order = sorted(range(len(found)), key=lambda i: found[i])
    ordered = builder.node("Gather", [flat, builder.constant("kept.places", np.array(order, np.int64))], "kept.order",
                           axis=0)
    rows = builder.node("Reshape", [ordered, builder.ints(len(masks), 3)], "kept.counted")
    return builder.node("Cast", [rows], "kept.count", to=int(_INT64)) if floats else rows
