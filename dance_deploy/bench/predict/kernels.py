"""How long a layer takes by an estimate: our kernels and gates, and the dense kernels of a library."""

from __future__ import annotations

import numpy as np

from dance_deploy.bench.predict import winograd
from dance_deploy.bench.predict.assumptions import Assumptions
from dance_deploy.bench.predict.layers import Layer, all_kept
from dance_deploy.bench.predict.roofline import Roof
from dance_deploy.bench.predict.tiles import executed_macs
from dance_deploy.cost import Cost
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

# sums per frame and channel, their selection, sums per position, their selection, the plan of the convolution
GATE_KERNELS, FEATURE_KERNELS = 3, 2


class Estimator:
    """Milliseconds of layers on one device at one precision, batch 1."""

    def __init__(self, roof: Roof, precision: str, assumed: Assumptions) -> None:
        self.roof, self.precision, self.assumed = roof, precision, assumed
        self._ours = roof.reached(assumed.ours[precision], assumed.bandwidth)
        self._rival = roof.reached(assumed.rival, assumed.bandwidth)

    def direct_ms(self, layer: Layer, masks: LayerMasks | None = None) -> float:
        """Our direct kernel: what its tiles execute, and a packed copy of the input where channels are dropped."""
        cost = layer.gated(masks, self.roof.element_bytes)
        packed_ms = 0.0
        if layer.conv is not None:
            g = layer.conv.geometry
            kept = masks or all_kept(g)
            if g.group == 1:
                macs = executed_macs(g, kept, rows=self.assumed.warp_rows,
                                     channel_group=self.assumed.channel_group[self.precision])
                cost = cost._replace(macs=max(macs, cost.macs))
            packed_ms = self._pack_ms(g, kept)
        return self._ours.ms(cost) + packed_ms + self._launch_ms(1)

    def ours_ms(self, layer: Layer, masks: LayerMasks | None = None) -> float:
        """The kernels that ours choose: Winograd, whose arithmetic and transforms do not overlap, or direct."""
        if layer.conv is None or not winograd.chosen(layer.conv.geometry):
            return self.direct_ms(layer, masks)
        kept = masks or all_kept(layer.conv.geometry)
        cost = winograd.cost(layer.conv, kept, self.precision, self.roof.element_bytes)
        return (self._ours.ms(Cost(cost.macs, 0)) + self._moved_ms(cost.bytes)
                + self._pack_ms(layer.conv.geometry, kept) + self._launch_ms(winograd.KERNELS))

    def gate_ms(self, input_size: tuple[int, int, int, int], masks: LayerMasks) -> float:
        """One gate: its input read once, the kept slices once more where it looks at features."""
        c, t, h, w = input_size
        read, launches = c * t * h * w, GATE_KERNELS
        if not np.all(masks.feature_keep):
            read += int(np.sum(masks.channel_keep)) * int(np.sum(masks.frame_keep)) * h * w
            launches += FEATURE_KERNELS
        return self._moved_ms(read * self.roof.element_bytes) + self._launch_ms(launches)

    def conv3d_ms(self, layer: Layer) -> float:
        """A library's conv3d: an implicit GEMM, which computes the zero padding too."""
        cost = layer.dense(self.roof.element_bytes)
        return self._rival.ms(cost._replace(macs=layer.nominal_macs)) + self._launch_ms(1)

    def best_dense_ms(self, layer: Layer) -> float:
        """The faster of conv3d and kT 2D convolutions by Winograd, where a library has that."""
        whole = self.conv3d_ms(layer)
        if layer.conv is None or not winograd.library_has_it(layer.conv.geometry):
            return whole
        cost = layer.dense(self.roof.element_bytes)
        split = self._rival.ms(cost._replace(macs=int(layer.nominal_macs / winograd.LIBRARY_GAIN)))
        return min(whole, split + self._launch_ms(layer.conv.geometry.kernel[0]))

    def _pack_ms(self, conv: Conv3dGeometry, kept: LayerMasks) -> float:
        """Copying what is kept of the input, where channels are dropped; else it is read where it lies."""
        if np.all(kept.channel_keep):
            return 0.0
        numbers = int(np.sum(kept.frame_keep)) * int(np.sum(kept.channel_keep)) * conv.in_size[1] * conv.in_size[2]
        return self._moved_ms(2 * self.roof.element_bytes * numbers) + self._launch_ms(1)

    def _moved_ms(self, moved_bytes: float) -> float:
        return 1e3 * moved_bytes / self._ours.bytes_per_s

    def _launch_ms(self, kernels: int) -> float:
        return 1e-3 * self.assumed.launch_us * kernels
