"""The layers of a bundle with their cost at chosen masks; cost.py is the truth for MACs and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dance_deploy.cost import FLOAT32_BYTES, ConvCost, Cost
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.manifest import Manifest
from dance_deploy.runtime.backends import LayerMasks


@dataclass(frozen=True)
class Layer:
    """One convolution, or a part whose cost is fixed (conv is None: linear layers, controller)."""

    name: str
    gate: int | None = None
    conv: ConvCost | None = None
    fixed: Cost | None = None

    def dense(self, element_bytes: int) -> Cost:
        """Cost with everything kept."""
        if self.conv is None:
            assert self.fixed is not None
            return Cost(self.fixed.macs, self.fixed.bytes * element_bytes // FLOAT32_BYTES)
        return self.conv.gated(*all_kept(self.conv.geometry), element_bytes)

    def gated(self, masks: LayerMasks | None, element_bytes: int) -> Cost:
        """Cost at its gate's masks; dense where it has no gate."""
        if masks is None or self.conv is None:
            return self.dense(element_bytes)
        return self.conv.gated(*masks, element_bytes)

    @property
    def nominal_macs(self) -> int:
        """MACs with the zero padding counted, as an implicit GEMM computes them."""
        if self.conv is None:
            return self.dense(FLOAT32_BYTES).macs
        g = self.conv.geometry
        return g.out_channels * (g.in_channels // g.group) * g.taps * int(np.prod(g.out_size))


def all_kept(geometry: Conv3dGeometry) -> LayerMasks:
    """Masks that keep everything."""
    return LayerMasks(np.ones(geometry.in_size[0], bool), np.ones(geometry.in_channels, bool),
                      np.ones(geometry.in_size[1:], bool))


def layers_of(manifest: Manifest) -> list[Layer]:
    """Gated convolutions in the order of the gates, ungated ones before them, then linear layers and controller."""
    layers = [Layer(conv.name, None, ConvCost(conv)) for conv in manifest.ungated.convs]
    layers += [Layer(conv.name, i, ConvCost(conv)) for i, gate in enumerate(manifest.gates) for conv in gate.convs]
    linear = Cost(manifest.ungated.linear_macs, manifest.ungated.linear_bytes)
    if linear.macs:
        layers.append(Layer("linear layers", fixed=linear))
    return layers


def controller_of(manifest: Manifest) -> Layer:
    """The controller, which only our network has."""
    return Layer("controller", fixed=Cost(manifest.controller.macs, manifest.controller.bytes))
