"""Static channel pruning: which channels belong together, which go, and the smaller network that is left.

A channel can go where nothing but convolutions and linear layers reads it in the end: the batch norms, activations and
pools in between shrink with it, and so does what reads it. Channels that an addition joins form one group and go
together. What is saved on the output side is counted too: a channel that is gone is not computed either.
Scores: |gamma| of the batch norms (Liu et al., "Network Slimming", arXiv 1708.06519) or the L1 norm of the filters
(Li et al., "Pruning Filters for Efficient ConvNets", arXiv 1608.08710).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.method.surgery import conv_nodes, geometry_of, is_tensor, shape_of, source_of, trace

SCORES = ("bn", "magnitude")
ALLOCATIONS = ("global", "uniform")
SCOPES = ("inner", "all")
FEWEST = 16  # a group keeps at least one in so many of its channels
SAME_CHANNELS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid,
                 nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d,
                 nn.AdaptiveMaxPool3d)
SAME_CHANNELS_CALLS = {torch.relu, torch.sigmoid, torch.tanh, F.relu, F.silu, F.gelu, F.dropout, F.max_pool3d,
                       F.avg_pool3d, F.adaptive_avg_pool3d, "relu", "relu_", "sigmoid", "contiguous"}
REDUCING_CALLS = {torch.mean, torch.amax, torch.squeeze, "mean", "amax", "squeeze"}
JOINING_CALLS = {operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add", "add_", "mul"}


@dataclass
class ChannelGroup:
    """Channels that go together. name: the first convolution that makes them; norms: batch norms over them;
    depthwise: convolutions that keep them apart; readers: (layer, its inputs per channel); joined: whether an addition
    or a product made one group of several."""

    name: str
    channels: int
    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    depthwise: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)
    joined: bool = False

    @property
    def fewest(self) -> int:
        """The least number of channels that pruning leaves."""
        return -(-self.channels // FEWEST)


class ChannelGroups:
    """The groups of a network, and what its convolutions cost with fewer channels.

    model: any module that torch.fx can trace; clip_shape [1, 3, T, H, W]. groups: those that can be pruned, by name, in
    the order in which they are computed; every other channel is read by something that pruning does not understand.
    """

    def __init__(self, model: nn.Module, clip_shape: tuple[int, ...], scope: str = "all") -> None:
        """Raises InputError where the model cannot be traced, or for an unknown scope."""
        if scope not in SCOPES:
            raise InputError(f"scope '{scope}' is unknown; choose one of {', '.join(SCOPES)}")
        traced = trace(model, clip_shape)
        walk = _Walk(traced)
        self.groups = {g.name: g for g in walk.prunable() if scope == "all" or not g.joined}
        self._geometries = {str(n.target): geometry_of(str(n.target), c, shape_of(source_of(n))[2:])
                            for n, c in conv_nodes(traced)}
        self._linear = {name: macs for name, macs in walk.linear.items()}

    def macs(self, channels: Mapping[str, int]) -> int:
        """MACs of one clip with `channels` left in each group; a group that is not named keeps all."""
        made = {p: channels.get(g.name, g.channels) for g in self.groups.values() for p in g.producers}
        apart = {d: channels.get(g.name, g.channels) for g in self.groups.values() for d in g.depthwise}
        read = {r: channels.get(g.name, g.channels) * per for g in self.groups.values() for r, per in g.readers}
        total = sum(macs * read.get(name, inputs) // inputs for name, (macs, inputs) in self._linear.items())
        for name, geometry in self._geometries.items():
            total += ConvCost(_resized(geometry, made.get(name), read.get(name), apart.get(name))).dense().macs
        return int(total)

    def check_share(self, share: float) -> None:
        """Raise InputError where pruning cannot get down to `share` of the MACs."""
        if not self.groups:
            raise InputError("the network has no channels that can be pruned statically; leave out --static-share")
        least = self.macs({name: g.fewest for name, g in self.groups.items()}) / self.macs({})
        if least > share:
            raise InputError(f"--static-share {share:g} is not possible here: with the fewest channels the network "
                             f"still costs {least:.3f} of its MACs")


def _resized(g: Conv3dGeometry, made: int | None, read: int | None, apart: int | None) -> Conv3dGeometry:
    if apart is not None:
        return g._replace(in_channels=apart, out_channels=apart, group=apart)
    return g._replace(in_channels=g.in_channels if read is None else read,
                      out_channels=g.out_channels if made is None else made)


class _Walk:
    """One pass over a traced graph: follows the channel axis of every tensor, and joins axes that must agree."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.parent: list[int] = []
        self.parts: list[ChannelGroup] = []
        self.pinned: set[int] = set()
        self.axis: dict[fx.Node, tuple[int, int]] = {}  # axis, entries of dimension 1 per channel
        self.linear: dict[str, tuple[int, int]] = {}
        seen: set[str] = set()
        for node in traced.graph.nodes:
            if node.op == "call_module":
                if str(node.target) in seen and list(traced.get_submodule(str(node.target)).parameters()):
                    self._pin_inputs(node)  # weights used twice
                    self._new(node, None)
                    continue
                seen.add(str(node.target))
                self._module(node, traced.get_submodule(str(node.target)))
            elif node.op in ("call_function", "call_method"):
                self._call(node)
            elif node.op == "output":
                self._pin_inputs(node)
            else:
                self._new(node, None)

    def prunable(self) -> list[ChannelGroup]:
        merged: dict[int, ChannelGroup] = {}
        pinned = {self._root(i) for i in self.pinned}
        for index, part in enumerate(self.parts):
            root = self._root(index)
            if root in pinned:
                continue
            group = merged.setdefault(root, replace(part, producers=[], norms=[], depthwise=[], readers=[]))
            for kind in ("producers", "norms", "depthwise", "readers"):
                getattr(group, kind).extend(getattr(part, kind))
            group.joined = group.joined or part.joined
        return [g for g in merged.values() if g.producers and g.readers]

    def _root(self, index: int) -> int:
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def _new(self, node: fx.Node, producer: str | None) -> None:
        index = len(self.parent)
        self.parent.append(index)
        meta = node.meta.get("tensor_meta")
        shape: Sequence[int] = getattr(meta, "shape", ())
        channels = int(shape[1]) if len(shape) > 1 else 0
        self.parts.append(ChannelGroup(producer or "", channels, [producer] if producer else []))
        if producer is None:
            self.pinned.add(index)
        self.axis[node] = (index, 1)

    def _pin_inputs(self, node: fx.Node) -> None:
        self.pinned.update(self.axis[a][0] for a in node.all_input_nodes)

    def _give_up(self, node: fx.Node) -> None:
        self._pin_inputs(node)
        self._new(node, None)

    def _module(self, node: fx.Node, layer: nn.Module) -> None:
        name = str(node.target)
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None:
            self._give_up(node)
            return
        index, per = self.axis[source]
        if isinstance(layer, nn.Conv3d) and layer.groups == 1:
            self.parts[index].readers.append((name, per))
            self._new(node, name)
        elif isinstance(layer, nn.Conv3d) and layer.groups == layer.in_channels == layer.out_channels:
            self.parts[index].depthwise.append(name)
            self.axis[node] = (index, per)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm3d)) and per == 1:
            self.parts[index].norms.append(name)
            self.axis[node] = (index, per)
        elif isinstance(layer, nn.Linear) and len(shape_of(source)) == 2:
            self.parts[index].readers.append((name, per))
            self.linear[name] = (layer.weight.numel(), layer.in_features)
            self._new(node, None)
        elif isinstance(layer, SAME_CHANNELS):
            self.axis[node] = (index, per)
        elif isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1:
            self._flatten(node, source)
        else:
            self._give_up(node)

    def _call(self, node: fx.Node) -> None:
        tensors = node.all_input_nodes
        if node.target in JOINING_CALLS and tensors:
            self._join(node, tensors)
        elif node.target in SAME_CHANNELS_CALLS and len(tensors) == 1:
            self.axis[node] = self.axis[tensors[0]]
        elif not is_tensor(node):
            self._new(node, None)  # a size: asking for it does not read the channels
        elif _flattens(node):
            self._flatten(node, source_of(node))
        elif node.target in REDUCING_CALLS and _leaves_channels(node):
            self.axis[node] = self.axis[source_of(node)]
        else:
            self._give_up(node)

    def _flatten(self, node: fx.Node, source: fx.Node) -> None:
        index, per = self.axis[source]
        shape = shape_of(source)
        self.axis[node] = (index, per * (shape_of(node)[1] // shape[1]))

    def _join(self, node: fx.Node, tensors: Sequence[fx.Node]) -> None:
        if len({shape_of(t)[1:2] for t in tensors}) > 1 or len({self.axis[t][1] for t in tensors}) > 1:
            self._give_up(node)
            return
        first, per = self.axis[tensors[0]]
        for other in tensors[1:]:
            one, two = sorted((self._root(first), self._root(self.axis[other][0])))
            self.parent[two] = one
        self.parts[first].joined = True
        self.axis[node] = (first, per)


def _flattens(node: fx.Node) -> bool:
    """Whether a call makes [N, C, ...] to [N, -1], whatever C is: not where a number of channels is written down."""
    given = tuple(node.args[1:])
    if node.target in (torch.flatten, "flatten"):
        named = {**dict(zip(("start_dim", "end_dim"), given)), **node.kwargs}
        return (named.get("start_dim"), named.get("end_dim", -1)) == (1, -1)
    if node.target in (torch.reshape, "view", "reshape") and not node.kwargs:
        shape = tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        return shape[1:] == (-1,) and shape_of(node)[0] == shape_of(source_of(node))[0]
    return False


def _leaves_channels(node: fx.Node) -> bool:
    """Whether a reduction goes over dimensions behind the channels alone."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    rank = len(shape_of(source_of(node)))
    found = [d % rank for d in (dims if isinstance(dims, (tuple, list)) else (dims,)) if isinstance(d, int)]
    return bool(found) and min(found) > 1


def channel_scores(model: nn.Module, group: ChannelGroup, by: str) -> torch.Tensor:
    """How much each channel of a group counts, [C], comparable between groups.

    bn: the sum of |gamma| over the group's batch norms; magnitude: the L1 norm of the filters that make the channel, in
    units of the group's mean, since filters of different size do not compare. A group without batch norm is scored by
    magnitude. Raises InputError for another `by`.
    """
    if by not in SCORES:
        raise InputError(f"channel score '{by}' is unknown; choose one of {', '.join(SCORES)}")
    norms = [model.get_submodule(n) for n in group.norms]
    scales = [n.weight.detach().abs() for n in norms if isinstance(n.weight, torch.Tensor)]
    filters = [model.get_parameter(f"{p}.weight").detach().abs().flatten(1).sum(1) for p in group.producers]
    norm = torch.stack([f / f.mean().clamp_min(1e-12) for f in filters]).sum(0)
    if by == "bn" and scales:
        # equal scales, as before any training, are told apart by the filters
        return torch.stack(scales).sum(0) * (1.0 + 1e-4 * norm / norm.max().clamp_min(1e-12))
    return norm


def choose_channels(model: nn.Module, groups: ChannelGroups, share: float, by: str = "bn",
                    allocation: str = "global") -> dict[str, torch.Tensor]:
    """Which channels of each group to keep, ascending int64 indices, so that the network costs `share` of its MACs.

    Bisection over one number: the score below which channels go (global: layers come out of different widths), or the
    share of channels that every group keeps (uniform). The result costs at most `share`, the next larger one more.
    Raises InputError where no channel can be pruned, or where so few MACs cannot be reached.
    """
    if allocation not in ALLOCATIONS:
        raise InputError(f"allocation '{allocation}' is unknown; choose one of {', '.join(ALLOCATIONS)}")
    groups.check_share(share)
    scores = {name: channel_scores(model, g, by) for name, g in groups.groups.items()}
    counts = _uniform_counts if allocation == "uniform" else _threshold_counts
    levels = _levels(groups, scores, allocation)
    wanted = share * groups.macs({})
    low, high = 0, len(levels) - 1  # levels prune more and more; the first that is cheap enough is looked for
    while low < high:
        middle = (low + high) // 2
        if groups.macs(counts(groups, scores, levels[middle])) <= wanted:
            high = middle
        else:
            low = middle + 1
    left = counts(groups, scores, levels[low])
    return {name: torch.topk(scores[name], left[name]).indices.sort().values for name in groups.groups}


def _levels(groups: ChannelGroups, scores: dict[str, torch.Tensor], allocation: str) -> list[float]:
    if allocation == "uniform":
        steps = max(g.channels for g in groups.groups.values())
        return [1.0 - i / steps for i in range(steps + 1)]
    values = torch.cat(list(scores.values())).unique().tolist()
    return [-1.0, *values, float("inf")]


def _uniform_counts(groups: ChannelGroups, scores: dict[str, torch.Tensor], level: float) -> dict[str, int]:
    return {name: max(g.fewest, round(level * g.channels)) for name, g in groups.groups.items()}


def _threshold_counts(groups: ChannelGroups, scores: dict[str, torch.Tensor], level: float) -> dict[str, int]:
    return {name: max(g.fewest, int((scores[name] > level).sum())) for name, g in groups.groups.items()}


def keep_channels(model: nn.Module, groups: ChannelGroups, kept: Mapping[str, torch.Tensor]) -> None:
    """Cut `model` down, in place, to the channels `kept` [number] of each group that is named."""
    with torch.no_grad():
        for name, index in kept.items():
            group = groups.groups[name]
            for producer in group.producers:
                _cut_outputs(model.get_submodule(producer), index)
            for norm in group.norms:
                _cut_norm(model.get_submodule(norm), index)
            for apart in group.depthwise:
                layer = cast(nn.Conv3d, model.get_submodule(apart))
                _cut_outputs(layer, index)
                layer.in_channels = layer.groups = len(index)
            for reader, per in group.readers:
                _cut_inputs(model.get_submodule(reader), index, per)


def shrink(model: nn.Module, clip_shape: tuple[int, ...], channels: Mapping[str, int]) -> None:
    """Give `model`, in place, the widths `channels` (by group name) of a pruned network, to load its weights into.

    Raises InputError for a group that the model does not have, or a width out of range.
    """
    if not channels:
        return
    groups = ChannelGroups(model, clip_shape)
    for name, count in channels.items():
        group = groups.groups.get(name)
        if group is None or not isinstance(count, int) or not 1 <= count <= group.channels:
            most = "which cannot be pruned" if group is None else f"expected 1 to {group.channels}"
            raise InputError(f"pruned network: '{name}' has {count!r} channels, {most}")
    keep_channels(model, groups, {name: torch.arange(count) for name, count in channels.items()})


def widths_of(model: nn.Module, clip_shape: tuple[int, ...], weights: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The groups in which `weights`, a state dict with the names of `model`, have fewer channels than `model`.

    What the weights do not name or name in another form is left to who loads them.
    """
    found = {}
    for name, group in ChannelGroups(model, clip_shape).groups.items():
        given = weights.get(f"{name}.weight")
        if given is not None and given.dim() == 5 and 1 <= given.shape[0] < group.channels:
            found[name] = int(given.shape[0])
    return found


def _cut_outputs(layer: nn.Module, index: torch.Tensor) -> None:
    _replace(layer, "weight", index, 0)
    _replace(layer, "bias", index, 0)
    layer.out_channels = len(index)  # type: ignore[assignment]


def _cut_inputs(layer: nn.Module, index: torch.Tensor, per: int) -> None:
    columns = (index[:, None] * per + torch.arange(per, device=index.device)).flatten()
    _replace(layer, "weight", columns, 1)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(columns))


def _cut_norm(norm: nn.Module, index: torch.Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        _replace(norm, name, index, 0)
    norm.num_features = len(index)  # type: ignore[assignment]


def _replace(layer: nn.Module, name: str, index: torch.Tensor, dim: int) -> None:
    old = getattr(layer, name)
    if old is None:
        return
    new = old.detach().index_select(dim, index.to(old.device)).clone()
    if name in layer._parameters:
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        layer.register_buffer(name, new)
