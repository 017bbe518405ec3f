"""The parity ladder: torch -> numpy definition -> ONNX Runtime with functions -> ONNX Runtime with our library.

Every rung is checked at every gated layer against the definition (ops/), on the rung's own inputs: its masks must be
ones that the contract allows, its values within the contract's bound per element. So one borderline bit, which the
contract leaves open, cannot make the layers behind it look wrong. Then the ends are compared: logits, where no
borderline bit went the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable

import numpy as np
import onnx
import onnxruntime
import torch
from torch import fx

from dance_deploy.errors import OperationError
from dance_deploy.export.fold import FusedConv
from dance_deploy.export.graphs import GatedLayer, Graphs
from dance_deploy.method.gate import Gate
from dance_deploy.method.surgery import GatedModel, geometry_of, source_of
from dance_deploy.ops import definition, names
from dance_deploy.ops.functions import TO_CHANNELS_FIRST
from dance_deploy.runtime.onnxruntime_backend import register

FLOAT32_EPS = float(np.finfo(np.float32).eps)
# Logits are compared by norm. Each layer may add a rounding error of a few eps * sqrt(K); 1e-4 leaves room for the
# deepest of our networks (measured: below 1e-5) and is far below any difference that a wrong layer makes.
LOGITS_TOLERANCE = 1e-4


@dataclass
class LayerRun:
    """What one rung computed at one gated convolution; arrays of one clip."""

    x: np.ndarray
    masks: definition.GateMasks
    y: np.ndarray
    z: np.ndarray | None


@dataclass
class RungRun:
    """What one rung computed for one clip."""

    name: str
    stem: np.ndarray
    tau: np.ndarray
    logits: np.ndarray
    layers: list[LayerRun]

    def same_masks(self, other: "RungRun") -> bool:
        """Whether every mask of every layer is equal."""
        return all(np.array_equal(a, b) for mine, its in zip(self.layers, other.layers)
                   for a, b in zip(mine.masks, its.masks))


def torch_rung(model: GatedModel, graphs: Graphs, clip: np.ndarray, budget: float) -> RungRun:
    """Run the torch model and look at every gated layer."""
    wanted = {graphs.stem}
    for layer in graphs.layers:
        wanted |= {_gate_input(layer), layer.last} | ({layer.fused.residual} if layer.fused.residual else set())
    # an in-place ReLU or add would overwrite what was captured before it: keep copies
    recorder = _Recorder(model.graph, wanted)
    with torch.no_grad():
        logits = recorder.run(torch.from_numpy(clip), torch.tensor([budget], dtype=torch.float32))
    gates: list[Gate] = model.gates
    layers = []
    for layer in graphs.layers:
        residual = layer.fused.residual
        masks = definition.GateMasks(*(m.numpy() != 0 for m in gates[layer.gate].masks))  # type: ignore[union-attr]
        layers.append(LayerRun(recorder.seen[_gate_input(layer)], masks,
                               recorder.seen[layer.last], None if residual is None else recorder.seen[residual]))
    return RungRun("torch", recorder.seen[graphs.stem], recorder.tau, logits.numpy(), layers)


def _gate_input(layer: GatedLayer) -> fx.Node:
    return source_of(source_of(layer.fused.conv))


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps copies of the wanted nodes' values and of tau."""

    def __init__(self, graph: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(graph)
        self.wanted = wanted
        self.seen: dict[fx.Node, np.ndarray] = {}
        self.tau = np.zeros((0, 3), np.float32)

    def run_node(self, n: fx.Node):  # type: ignore[no-untyped-def]
        """Run one node, keeping its value where wanted."""
        value = super().run_node(n)
        if n in self.wanted:
            self.seen[n] = value.numpy().copy()
        if n.op == "call_module" and n.target == "dance.controller":
            self.tau = value[0].numpy().copy()
        return value


class OnnxRung:
    """Controller and body in ONNX Runtime, with every gated layer's tensors as outputs."""

    def __init__(self, name: str, graphs: Graphs, library: str | None, residuals: dict[str, str]) -> None:
        self.name, self.graphs = name, graphs
        self._z = residuals
        body = onnx.ModelProto()
        body.CopyFrom(graphs.body)
        declared = {o.name for o in body.graph.output} | {i.name for i in body.graph.input}
        for tensor in dict.fromkeys(self._tensors()):
            if tensor not in declared:
                body.graph.output.append(onnx.ValueInfoProto(name=tensor))
        kernels = graphs.controller_kernels if library is not None else None
        self._controller = session(kernels or graphs.controller, library)
        self._body = session(body, library)

    def _tensors(self) -> Iterable[str]:
        for layer in self.graphs.layers:
            yield from (layer.x, *layer.masks, layer.y)
        yield from self._z.values()

    def run(self, clip: np.ndarray, budget: float) -> RungRun:
        """Run both graphs on one clip."""
        stem, tau = self._controller.run(["stem", "tau"], {"clip": clip, "budget": np.array([budget], np.float32)})
        outputs = [o.name for o in self._body.get_outputs()]
        got = dict(zip(outputs, self._body.run(outputs, {"stem": stem, "tau": tau})), stem=stem)
        return RungRun(self.name, stem, tau, got["logits"], [self._layer(layer, got) for layer in self.graphs.layers])

    def _layer(self, layer: GatedLayer, got: dict[str, np.ndarray]) -> LayerRun:
        def first(name: str) -> np.ndarray:
            return np.transpose(got[name], TO_CHANNELS_FIRST) if layer.channels_last else got[name]

        return LayerRun(first(layer.x), definition.GateMasks(*(got[m] != 0 for m in layer.masks)), first(layer.y),
                        first(self._z[layer.y]) if layer.y in self._z else None)


def session(model: onnx.ModelProto, library: str | None) -> onnxruntime.InferenceSession:
    """A CPU session, with our op library where a path is given."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library is not None:
        register(options, library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def residual_tensors(graphs: Graphs) -> dict[str, str]:
    """For each residual convolution of the body, its output's name -> its Z's name."""
    z = len(names.CONV_INPUTS)
    return {n.output[0]: n.input[z] for n in graphs.body.graph.node
            if n.op_type in names.CONVS and len(n.input) == len(names.CONV_ADD_INPUTS)}


def check_rung(run: RungRun, graphs: Graphs) -> None:
    """Raise OperationError naming the first layer where a rung leaves the definition."""
    judged: set[int] = set()
    for layer, at in zip(graphs.layers, run.layers):
        if layer.gate not in judged:
            judged.add(layer.gate)
            wrong = definition.check_masks(at.x, run.tau[layer.gate][None], at.masks)
            if wrong:
                raise _apart(run.name, layer.fused.name, f"masks: {wrong[0]}")
        over = _excess(layer, at)
        if over is not None:
            raise _apart(run.name, layer.fused.name, over)


def _excess(layer: GatedLayer, at: LayerRun) -> str | None:
    """Why Y is not what the definition says of X, masks and Z; None where it is."""
    fused = layer.fused
    cancelled = _cancelled(fused)
    if layer.expansion is None:
        expected = definition.reference(at.x, fused.weight, fused.bias, *at.masks, at.z, minimum=_minimum(fused),
                                        **_attributes(fused, at))
    else:
        depthwise = layer.expansion.depthwise
        taps = np.abs(depthwise.weight).sum((1, 2, 3, 4))
        cancelled = (cancelled * taps + _cancelled(depthwise)) * definition.SWISH_SLOPE
        expected = definition.expand_depthwise_reference(
            at.x, fused.weight, fused.bias, at.masks, depthwise.weight, depthwise.bias, minimum=_minimum(fused),
            depthwise_minimum=_minimum(depthwise), swish=layer.expansion.swish, **_attributes(depthwise, at))
    expected.bound[...] += cancelled[:, None, None, None]
    wrong = definition.check_output(at.y, expected)
    return wrong[0] if wrong else None


def _attributes(fused: FusedConv, at: LayerRun) -> dict[str, Any]:
    g = geometry_of(fused.name, fused.module, at.x.shape[2:])
    return {"strides": g.strides, "pads": g.pads, "dilations": g.dilations, "group": g.group}


def _minimum(fused: FusedConv) -> float:
    return 0.0 if fused.relu else names.MIN_DEFAULT


def _cancelled(fused: FusedConv) -> np.ndarray:
    """What torch may be off by beyond the bound, for each channel.

    It runs convolution and batch norm one after the other: its rounding scales with the terms that cancel in the
    folded bias, which the bound of the folded convolution does not know of.
    """
    scale = (fused.bias_scale - np.abs(fused.bias)).clip(0)
    return scale * 2 * FLOAT32_EPS * np.sqrt(fused.weight[0].size + 2)


def _apart(rung: str, layer: str, what: str) -> OperationError:
    return OperationError(f"parity: '{rung}' and the definition part at layer '{layer}': {what}; "
                          "nothing was exported, please report this with the model")


def check_ends(reference: RungRun, run: RungRun) -> bool:
    """Compare logits with the reference rung's; False where borderline masks differ, so that they cannot be compared.

    Raises OperationError where the masks are equal and the logits are not.
    """
    if not reference.same_masks(run):
        return False
    _check_logits(run.name, reference.logits, run.logits)
    return True


def _check_logits(name: str, expected: np.ndarray, got: np.ndarray) -> None:
    error = float(np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-30))
    if not error <= LOGITS_TOLERANCE:
        raise OperationError(f"parity: logits of '{name}' differ by {error:.2e} (norm) from torch, allowed "
                             f"{LOGITS_TOLERANCE:.0e}, though every gated layer agrees; a layer between them differs")


def check_dense(model: GatedModel, graphs: Graphs, clip: np.ndarray) -> None:
    """dense.onnx against the torch model with its gates open; raises OperationError."""
    model.open_gates()
    try:
        with torch.no_grad():
            expected = model(torch.from_numpy(clip), torch.ones(1)).numpy()
    finally:
        model.open_gates(False)
    _check_logits("dense.onnx", expected, session(graphs.dense, None).run(["logits"], {"clip": clip})[0])


def check_adaptive(runs: list[RungRun]) -> None:
    """Raise OperationError where all clips get the same masks everywhere: a controller that does not see its input."""
    if all(runs[0].same_masks(run) for run in runs[1:]):
        kept = {True: "everything is kept", False: "the same slices are dropped"}[
            all(m.all() for layer in runs[0].layers for m in layer.masks)]
        raise OperationError(f"frozen controller: {len(runs)} different clips get the same masks at every layer "
                             f"({kept}); train longer or at a lower --target-macs")


def ladder(model: GatedModel, graphs: Graphs, clips: list[np.ndarray], budget: float, library: str | None,
           progress: Callable[[str], None] = lambda step: None) -> list[RungRun]:
    """Climb all rungs with the first clip and check that the clips' masks differ; returns the functions' runs.

    library: path of our ONNX Runtime op library, or None to leave that rung out.
    """
    residuals = residual_tensors(graphs)
    progress("torch against the definition")
    reference = torch_rung(model, graphs, clips[0], budget)
    check_rung(reference, graphs)
    progress("dense.onnx against torch")
    check_dense(model, graphs, clips[0])
    functions = OnnxRung("onnxruntime with functions", graphs, None, residuals)
    progress(f"{functions.name} against the definition")
    runs = [functions.run(clips[0], budget)]
    check_rung(runs[0], graphs)
    check_ends(reference, runs[0])
    progress("masks of different clips")
    runs += [functions.run(clip, budget) for clip in clips[1:]]
    if model.controller.drops:
        check_adaptive(runs)
    if library is not None:
        del functions
        with_library = OnnxRung("onnxruntime with the dance library", graphs, library, residuals)
        progress(f"{with_library.name} against the definition")
        run = with_library.run(clips[0], budget)
        check_rung(run, graphs)
        check_ends(runs[0], run)
    return runs


