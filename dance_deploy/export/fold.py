"""Folding: the weights of a convolution with the batch norm behind it, and what else one op can absorb.

    BatchNorm(Conv(x, W, b)) = Conv(x, W * s, (b - mean) * s + beta),    s = gamma / sqrt(var + eps)
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from dance_deploy.method.surgery import geometry_of

_ADD = (operator.add, operator.iadd, torch.add)


@dataclass
class FusedConv:
    """One convolution with all that was folded into it.

    weight [M, C/group, kT, kH, kW], bias [M] float32; bias_scale [M]: size of the terms that cancel in bias, for error
    bounds; last: the node whose value the fused op computes; residual: node added before the clamp; relu: clamped at 0.
    """

    conv: fx.Node
    module: nn.Conv3d
    weight: np.ndarray
    bias: np.ndarray
    bias_scale: np.ndarray
    last: fx.Node
    residual: fx.Node | None = None
    relu: bool = False

    @property
    def name(self) -> str:
        """Name of the convolution in the model."""
        return str(self.conv.target)


@dataclass
class Expansion:
    """A 1x1x1 convolution that becomes one op with the depthwise one that alone reads it.

    last: the node whose value the op computes; swish: the depthwise one's, with which it then ends.
    """

    conv: FusedConv
    depthwise: FusedConv
    last: fx.Node
    swish: bool = False


def expansions(convs: dict[fx.Node, FusedConv]) -> dict[fx.Node, Expansion]:
    """All of a graph's, by the depthwise convolution's last node."""
    ends = {fused.last: fused for fused in convs.values()}
    found = {}
    for fused in convs.values():
        source = fused.conv.args[0]
        before = ends.get(source) if isinstance(source, fx.Node) else None
        if before is None or _only_user(before.last) is not fused.conv:
            continue
        if _is_depthwise(fused) and _is_expansion(before):
            found[fused.last] = Expansion(before, fused, fused.last)
    return found


def _is_depthwise(fused: FusedConv) -> bool:
    m = fused.module
    return m.groups > 1 and m.groups == m.in_channels == m.out_channels and fused.residual is None


def _is_expansion(fused: FusedConv) -> bool:
    g = geometry_of(fused.name, fused.module, (1, 1, 1))
    plain = g.group == 1 and tuple(g.kernel) == tuple(g.strides) == (1, 1, 1) and not any(g.pads)
    return plain and fused.residual is None


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _module(traced: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    if node is None or node.op != "call_module":
        return None
    return traced.get_submodule(str(node.target))


def is_relu(traced: fx.GraphModule, node: fx.Node | None) -> bool:
    """Whether a node is a ReLU, as a module, function or method."""
    if node is None:
        return False
    if node.op == "call_module":
        return isinstance(_module(traced, node), nn.ReLU)
    return (node.op == "call_function" and node.target in (torch.relu, nn.functional.relu)) or (
        node.op == "call_method" and node.target in ("relu", "relu_"))


def fused_conv(traced: fx.GraphModule, conv: fx.Node, *, gated: bool) -> FusedConv:
    """Fold the batch norm behind `conv`; for a gated convolution also the residual add and the ReLU behind that."""
    module = traced.get_submodule(str(conv.target))
    assert isinstance(module, nn.Conv3d)
    weight = module.weight.detach().double().cpu().numpy()
    channels = weight.shape[0]
    bias = np.zeros(channels) if module.bias is None else module.bias.detach().double().cpu().numpy()
    scale_of_bias, last = np.abs(bias), conv
    norm = _module(traced, _only_user(conv))
    if isinstance(norm, nn.BatchNorm3d) and norm.running_mean is not None:
        s, mean, beta = _norm_terms(norm, channels)
        weight = weight * s[:, None, None, None, None]
        scale_of_bias = (np.abs(bias) + np.abs(mean)) * np.abs(s) + np.abs(beta)
        bias = (bias - mean) * s + beta
        last = next(iter(conv.users))
    fused = FusedConv(conv, module, weight.astype(np.float32), bias.astype(np.float32),
                      scale_of_bias.astype(np.float32), last)
    if gated:
        _absorb_add(fused)
        if is_relu(traced, _only_user(fused.last)):
            fused.relu = True
            fused.last = next(iter(fused.last.users))
    return fused


def _norm_terms(norm: nn.BatchNorm3d, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = norm.running_mean.detach().double().cpu().numpy()  # type: ignore[union-attr]
    variance = norm.running_var.detach().double().cpu().numpy()  # type: ignore[union-attr]
    gamma = np.ones(channels) if norm.weight is None else norm.weight.detach().double().cpu().numpy()
    beta = np.zeros(channels) if norm.bias is None else norm.bias.detach().double().cpu().numpy()
    return gamma / np.sqrt(variance + norm.eps), mean, beta


def _absorb_add(fused: FusedConv) -> None:
    add = _only_user(fused.last)
    if add is None or add.op != "call_function" or add.target not in _ADD or add.kwargs or len(add.args) != 2:
        return
    others = [a for a in add.args if a is not fused.last]
    if len(others) == 1 and isinstance(others[0], fx.Node) and _same_shape(others[0], add):
        fused.residual = others[0]
        fused.last = add


def _same_shape(a: fx.Node, b: fx.Node) -> bool:
    # broadcasting is Add's, not GatedConv3dAdd's
    shapes = [getattr(n.meta.get("tensor_meta"), "shape", None) for n in (a, b)]
    return shapes[0] is not None and shapes[0] == shapes[1]


def fused_convs(traced: fx.GraphModule, gated: set[str]) -> dict[fx.Node, FusedConv]:
    """All convolutions of a graph, fused, by their conv node; names in `gated` may absorb an add and a ReLU.

    Where both sides of a residual add are gated convolutions, the first in the graph takes the add.
    """
    found: dict[fx.Node, FusedConv] = {}
    ends: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if isinstance(_module(traced, node), nn.Conv3d):
            fused = fused_conv(traced, node, gated=str(node.target) in gated)
            if fused.residual is not None and fused.last in ends:
                fused = fused_conv(traced, node, gated=False)
            ends.add(fused.last)
            found[node] = fused
    return found
