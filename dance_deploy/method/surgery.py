"""Surgery: put a controller and gates into any torch module with Conv3d layers.

The module is traced (torch.fx). One gate is placed in front of each tensor that gated convolutions read, so a 1x1x1
shortcut shares the gate of its block's first convolution; only what enters a convolution is gated, so a residual path
carries the ungated tensor. The first convolution is never gated: what it computes feeds the controller.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from dance_deploy.cost import ConvCost, Cost
from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry, Size3
from dance_deploy.method.controller import TAU_MAX, Controller
from dance_deploy.method.gate import Gate
from dance_deploy.method.saliency import KINDS

PREFIX = "dance"  # of the modules that surgery adds; no backbone may use it
CONTROLLER = f"{PREFIX}.controller"
DROPOUTS = {F.dropout: nn.Dropout, F.dropout3d: nn.Dropout3d}


@dataclass(frozen=True)
class GateSite:
    """One gate: name (of its convolution with the most MACs), names of all its convolutions, its input (C, T, H, W)."""

    name: str
    convs: tuple[str, ...]
    input_shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Plan:
    """What surgery found: the gates in order, the geometry of every convolution, MACs of the linear layers."""

    sites: tuple[GateSite, ...]
    geometries: dict[str, Conv3dGeometry]
    linear: Cost
    stem_shape: tuple[int, ...]

    @property
    def gated(self) -> set[str]:
        """Names of the convolutions behind a gate."""
        return {name for site in self.sites for name in site.convs}

    @property
    def ungated(self) -> Cost:
        """Cost of all layers that no gate can reduce."""
        total = self.linear
        for name, geometry in self.geometries.items():
            if name not in self.gated:
                total = total + ConvCost(geometry).dense()
        return total

    @property
    def dense_macs(self) -> int:
        """MACs of the network without gates for one clip."""
        return self.linear.macs + sum(ConvCost(g).dense().macs for g in self.geometries.values())


def trace(model: nn.Module, clip_shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace `model`, note every tensor's shape for one clip (`node.meta['tensor_meta']`), and try it on one.

    Raises InputError where the module cannot be traced, does not accept the clip, or computes something else than
    what was traced.
    """
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        raise InputError(f"model {type(model).__name__} has lazy layers that were never run; give it one clip first")
    other = next((t.dtype for t in (*model.parameters(), *model.buffers())
                  if t.is_floating_point() and t.dtype != torch.float32), None)
    if other is not None:
        raise InputError(f"model {type(model).__name__} is in {str(other).removeprefix('torch.')}; gates are trained, "
                         "and networks exported, in float32: give model.float()")
    modes = {module: module.training for module in model.modules()}
    try:
        traced = _traced_in_eval_mode(model, clip_shape)
    finally:
        for module, training in modes.items():
            module.training = training
    for module in traced.modules():
        module.training = modes.get(module, model.training)  # layers are shared with the model, containers are not
    return traced


def _traced_in_eval_mode(model: nn.Module, clip_shape: tuple[int, ...]) -> fx.GraphModule:
    try:
        traced = fx.symbolic_trace(model.eval())
    except Exception as error:  # tracing runs the user's own forward: anything can come out of it
        raise InputError(f"model {type(model).__name__} cannot be traced by torch.fx ({_first_line(error)}); "
                         "its forward must not branch on tensor values") from error
    _dropouts_as_modules(traced)
    shapes = copy.deepcopy(traced).to("meta").eval()
    try:
        # ShapeProp prints a traceback of its own, and hides the reason behind an error of its own
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            ShapeProp(shapes).propagate(torch.empty(clip_shape, device="meta"))
    except Exception as error:
        raise InputError(f"model {type(model).__name__} does not accept a clip of shape {list(clip_shape)}: "
                         f"{_first_line(error.__cause__ or error)}") from error
    for node, measured in zip(traced.graph.nodes, shapes.graph.nodes):
        if node.op == "call_module" and not node.args and len(node.kwargs) == 1:
            node.args, node.kwargs = tuple(node.kwargs.values()), {}  # self.conv(input=x) is self.conv(x)
        if "tensor_meta" in measured.meta:
            node.meta["tensor_meta"] = measured.meta["tensor_meta"]
    _check_same_result(model, traced, clip_shape)
    return traced


def _dropouts_as_modules(traced: fx.GraphModule) -> None:
    """F.dropout(x, p, self.training) as the module that it is: tracing, in eval mode, has made it never drop out."""
    for index, node in enumerate(list(traced.graph.nodes)):
        kind = DROPOUTS.get(node.target) if node.op == "call_function" else None
        if kind is None:
            continue
        given = {**dict(zip(("p", "training"), node.args[1:])), **node.kwargs}
        if given.get("training") is not False:
            raise InputError(f"'{node.name}' drops out in eval mode too; give it training=self.training")
        name = f"{PREFIX}.dropouts.{index}"
        traced.add_submodule(name, kind(given.get("p", 0.5)))
        with traced.graph.inserting_before(node):
            node.replace_all_uses_with(traced.graph.call_module(name, (source_of(node),)))
        traced.graph.erase_node(node)
    traced.recompile()


def _check_same_result(model: nn.Module, traced: fx.GraphModule, clip_shape: tuple[int, ...]) -> None:
    """What tracing cannot see, such as a tensor changed in place under another name, makes a traced network that
    computes something else; one clip through both tells."""
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(clip_shape, generator=generator)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), clip.device)
    with torch.no_grad():
        ours, theirs = traced.eval()(clip.to(device)), model(clip.to(device))
    if not isinstance(theirs, torch.Tensor) or not isinstance(ours, torch.Tensor) or ours.shape != theirs.shape:
        raise InputError(f"model {type(model).__name__} must return one tensor of logits [N, classes]")
    largest = float(theirs.abs().nan_to_num(0, 0, 0).max())
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * largest, equal_nan=True):
        raise InputError(f"model {type(model).__name__} computes something else once traced by torch.fx: its forward "
                         "changes a tensor in place (x += y) that it reads again; write x = x + y")


def is_tensor(node: fx.Node) -> bool:
    """Whether a node of a traced module is a tensor; others are sizes and what is computed from them."""
    return "tensor_meta" in node.meta


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def conv_nodes(traced: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Conv3d]]:
    """The Conv3d calls of a traced module, in the order in which they run."""
    for node in traced.graph.nodes:
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if isinstance(module, nn.Conv3d):
                yield node, module


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape that `trace` noted for a node's tensor."""
    return tuple(node.meta["tensor_meta"].shape)


def check_classes(model: GatedModel, classes: int) -> None:
    """Raise InputError unless the network returns [N, classes]: a function that builds it may ignore the number."""
    result = next(n for n in model.graph.graph.nodes if n.op == "output").args[0]
    shape = shape_of(result) if isinstance(result, fx.Node) and "tensor_meta" in result.meta else ()
    if len(shape) != 2 or shape[1] != classes:
        raise InputError(f"the network returns {list(shape) or 'no tensor'} for {classes} classes, expected "
                         f"[1, {classes}]; the function that builds it gets their number")


def source_of(node: fx.Node) -> fx.Node:
    """The node whose tensor a layer's call reads first; raises InputError where the call is given something else."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        raise InputError(f"'{node.name}' must be called with its input as the first, positional argument")
    return source


def geometry_of(name: str, conv: nn.Conv3d, in_size: tuple[int, ...]) -> Conv3dGeometry:
    """The geometry of a torch convolution in ONNX's terms; raises InputError for padding that ONNX Conv has not."""
    if conv.padding_mode != "zeros":
        raise InputError(f"convolution '{name}': padding_mode '{conv.padding_mode}' is not supported, only 'zeros'")
    if conv.padding == "valid":
        begins = ends = [0, 0, 0]
    elif conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        begins = [n // 2 for n in total]
        ends = [n - n // 2 for n in total]
    else:
        begins = ends = [int(n) for n in conv.padding]
    return Conv3dGeometry(name, conv.in_channels, conv.out_channels, _size3(in_size), _size3(conv.kernel_size),
                          _size3(conv.stride), (begins[0], begins[1], begins[2], ends[0], ends[1], ends[2]),
                          _size3(conv.dilation), conv.groups)


def _size3(values: Sequence[int]) -> Size3:
    t, h, w = values
    return int(t), int(h), int(w)


def _may_gate(conv: nn.Conv3d, in_shape: tuple[int, ...]) -> bool:
    # A depthwise convolution is bound by memory, not by MACs, and one on a pooled 1x1x1 volume (squeeze and
    # excitation) has nothing to drop: gating them cannot pay.
    depthwise = conv.groups == conv.in_channels and conv.in_channels > 1
    return not depthwise and in_shape[2] * in_shape[3] * in_shape[4] > 1


def _unique_geometries(traced: fx.GraphModule) -> dict[str, Conv3dGeometry]:
    found: dict[str, Conv3dGeometry] = {}
    for node, conv in conv_nodes(traced):
        name = str(node.target)
        if name in found:
            raise InputError(f"convolution '{name}' is called more than once in one forward; "
                             "give each call a module of its own")
        found[name] = geometry_of(name, conv, shape_of(source_of(node))[2:])
    return found


def _linear_cost(traced: fx.GraphModule) -> Cost:
    total = Cost(0, 0)
    for node in traced.graph.nodes:
        layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            rows = 1
            for extent in shape_of(node)[:-1]:
                rows *= extent
            numbers = layer.weight.numel() + rows * (layer.in_features + layer.out_features)
            total = total + Cost(rows * layer.weight.numel(), 4 * numbers)
    return total


def _gate_groups(traced: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    """The convolutions to gate, by the node whose tensor they read, in the order in which they run."""
    convs = list(conv_nodes(traced))
    if len(convs) < 2:
        raise InputError(f"the model has {len(convs)} Conv3d layers; the method needs at least 2, "
                         "since the first is never gated")
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node, conv in convs[1:]:
        source = source_of(node)
        if _may_gate(conv, shape_of(source)):
            groups.setdefault(source, []).append(node)
    if not groups:
        raise InputError("the model has no convolution that can be gated (all are depthwise or on a 1x1x1 volume)")
    return groups


def stem_nodes(traced: fx.GraphModule, stem: fx.Node) -> set[fx.Node]:
    """All nodes that compute `stem`, itself included; raises InputError where others read something else of them."""
    if stem.op == "placeholder":
        raise InputError("the model has no single stem: several convolutions read the clip itself")
    inside: set[fx.Node] = set()
    todo = [stem]
    while todo:
        node = todo.pop()
        if node not in inside:
            inside.add(node)
            todo.extend(node.all_input_nodes)
    for node in traced.graph.nodes:
        if node not in inside and (is_tensor(node) or node.op == "output"):
            leaks = [a for a in node.all_input_nodes if a in inside and a is not stem and a.op != "get_attr"]
            if leaks:
                raise InputError(f"the model has no single stem: '{node.name}' reads '{leaks[0].name}', which lies "
                                 f"before the first gate (at '{stem.name}')")
    return inside


class GatedModel(nn.Module):
    """A backbone with gates and a controller in its graph.

    forward(clip [N, 3, T, H, W], budget [N] in (0, 1]) -> logits [N, K]. The backbone's parameters keep their names
    below `graph`; the controller is `controller`. After a forward, `macs_share()` says what the masks cost.
    """

    def __init__(self, graph: fx.GraphModule, plan: Plan) -> None:
        super().__init__()
        self.graph = graph
        self.plan = plan
        self.counters = nn.ModuleList(_ShareCounter(plan, site) for site in plan.sites)
        self._fixed_macs = plan.ungated.macs + self.controller.macs(plan.stem_shape)

    @property
    def controller(self) -> Controller:
        """The controller inside the graph."""
        return self.graph.get_submodule(CONTROLLER)  # type: ignore[return-value]

    @property
    def gates(self) -> list[Gate]:
        """The gates in the order of tau's rows."""
        return [self.graph.get_submodule(_gate_name(i)) for i in range(len(self.plan.sites))]  # type: ignore[misc]

    def forward(self, clip: torch.Tensor, budget: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of clip [N, 3, T, H, W] at budget [N]."""
        return self.graph(clip, budget)

    def open_gates(self, is_open: bool = True) -> None:
        """Open (dense network) or close (gated network) all gates."""
        for gate in self.gates:
            gate.open = is_open

    def measure(self, on: bool = True) -> None:
        """Keep each gate's input magnitudes of the last forward in its `measured`."""
        for gate in self.gates:
            gate.measure = on

    def macs_share(self) -> torch.Tensor:
        """MACs of the last forward as a share of the dense ones, [N], exact in value and differentiable.

        Controller and statistics of the stem are included; an open gate counts as all kept.
        """
        parts = [counter(gate.masks) for counter, gate in zip(self.counters, self.gates)]
        gated = torch.stack([p.expand(max(q.shape[0] for q in parts)) for p in parts]).sum(0)
        return (gated + self._fixed_macs) / self.plan.dense_macs

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """State dict of the backbone alone, with the names of the model that surgery was given."""
        return {k: v for k, v in self.graph.state_dict().items() if not k.startswith(PREFIX + ".")}

    def load_backbone_state(self, state: dict[str, torch.Tensor]) -> None:
        """Load a state dict as `backbone_state` gives it; names and shapes must match."""
        own = {k: v for k, v in self.graph.state_dict().items() if k.startswith(PREFIX + ".")}
        self.graph.load_state_dict({**state, **own})


class _ShareCounter(nn.Module):
    """MACs behind one gate from its masks: the rule of cost.ConvCost in torch and differentiable."""

    def __init__(self, plan: Plan, site: GateSite) -> None:
        super().__init__()
        self.dense_macs = 0
        self.weights: list[float] = []
        for i, name in enumerate(site.convs):
            geometry = plan.geometries[name]
            cost = ConvCost(geometry)
            self.dense_macs += cost.dense().macs
            self.weights.append(geometry.out_channels / geometry.group)
            self.register_buffer(f"uses_t{i}", torch.as_tensor(cost.uses_t, dtype=torch.float32), persistent=False)
            self.register_buffer(f"uses_hw{i}", torch.as_tensor(cost.uses_hw, dtype=torch.float32), persistent=False)

    def forward(self, masks) -> torch.Tensor:  # type: ignore[no-untyped-def]
        """masks: Masks of the gate or None (open) -> MACs, [N] or [1]."""
        if masks is None:
            return torch.full((1,), float(self.dense_macs), device=self.get_buffer("uses_t0").device)
        channels = masks.channels.sum(1)
        total = torch.zeros_like(channels)
        for i, weight in enumerate(self.weights):
            t = masks.frames @ getattr(self, f"uses_t{i}")
            hw = (masks.features * getattr(self, f"uses_hw{i}")).sum((1, 2))
            total = total + weight * channels * t * hw
        return total


def _is_positive(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a ReLU's output; more exist that are never negative, but they need not be known."""
    return node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), nn.ReLU)


def _gate_name(index: int) -> str:
    return f"{PREFIX}.gates.{index}"


def _site(convs: list[str], input_shape: tuple[int, ...], geometries: dict[str, Conv3dGeometry]) -> GateSite:
    largest = max(convs, key=lambda name: ConvCost(geometries[name]).dense().macs)
    return GateSite(largest, tuple(convs), input_shape[1:])  # type: ignore[arg-type]


def gate_model(model: nn.Module, clip_shape: tuple[int, ...], kinds: tuple[str, ...] = KINDS,
               tau_max: tuple[float, float, float] = TAU_MAX) -> GatedModel:
    """Gate a copy of `model`; clip_shape [1, 3, T, H, W]; kinds: what may be pruned; tau_max: see Controller.

    Raises InputError where the model cannot be traced, has too few Conv3d layers, or has no single stem.
    """
    traced = trace(copy.deepcopy(model), clip_shape)
    groups = _gate_groups(traced)
    stem = next(iter(groups))
    stem_nodes(traced, stem)
    geometries = _unique_geometries(traced)
    sites = tuple(_site([str(c.target) for c in convs], shape_of(source), geometries)
                  for source, convs in groups.items())
    plan = Plan(sites, geometries, _linear_cost(traced), shape_of(stem))
    traced.add_submodule(CONTROLLER, Controller(shape_of(stem)[1], len(sites), kinds, tau_max=tau_max))
    graph = traced.graph
    clip = next(n for n in graph.nodes if n.op == "placeholder")
    with graph.inserting_after(clip):
        budget = graph.placeholder("budget")
    with graph.inserting_after(stem):
        tau = graph.call_module(CONTROLLER, (stem, budget))
    for index, (source, convs) in enumerate(groups.items()):
        traced.add_submodule(_gate_name(index), Gate(index, _is_positive(traced, source)))
        with graph.inserting_before(convs[0]):
            gated = graph.call_module(_gate_name(index), (source, tau))
        gated.meta["tensor_meta"] = source.meta["tensor_meta"]
        for conv in convs:
            conv.replace_input_with(source, gated)
    traced.recompile()
    return GatedModel(traced, plan)
