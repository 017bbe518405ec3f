"""What is timed: small layers and masks, each of which the kernels can compute directly and by Winograd tiles."""

from __future__ import annotations

from typing import NamedTuple

from dance_deploy.bench.keep_cases import DENSE, KeepCase
from dance_deploy.geometry import Conv3dGeometry

FITTED, OTHER_MASKS, OTHER_LAYERS = "fitted", "other masks", "other layers"  # what a case is for


class TuneLayer(NamedTuple):
    """A layer; fitted: whether costs are fitted to some of its masks, or it only serves to check them."""

    geometry: Conv3dGeometry
    fitted: bool

    @property
    def label(self) -> str:
        """As the table has it: channels, map, kernel."""
        g = self.geometry
        return f"{g.in_channels}>{g.out_channels} {'x'.join(map(str, g.in_size))} k{g.kernel[0]}33"


class TuneCase(NamedTuple):
    """Masks on a layer; part: FITTED, OTHER_MASKS (of a layer that is fitted) or OTHER_LAYERS; seed: of the masks."""

    layer: TuneLayer
    keep: KeepCase
    part: str
    seed: int


def _layer(inputs: int, outputs: int, in_size: tuple[int, int, int], frames: int, fitted: bool) -> TuneLayer:
    pads = (frames // 2, 1, 1)
    return TuneLayer(Conv3dGeometry("", inputs, outputs, in_size, (frames, 3, 3), (1, 1, 1), pads * 2), fitted)


# Channels, maps and kernels as in R3D-18, R(2+1)D-18 and what pruning leaves of them; few frames, so that each takes a
# millisecond. Where weights are many for the pixels, memory decides; where channels are few, the transforms do.
LAYERS = (
    _layer(64, 64, (4, 28, 28), 3, True), _layer(32, 32, (4, 28, 28), 3, True), _layer(16, 48, (4, 28, 28), 3, True),
    _layer(48, 16, (4, 20, 20), 3, True), _layer(24, 24, (4, 40, 40), 1, True), _layer(128, 128, (4, 14, 14), 3, True),
    _layer(64, 64, (4, 7, 7), 3, True), _layer(256, 256, (2, 7, 7), 3, True), _layer(128, 256, (4, 7, 7), 1, True),
    _layer(256, 256, (2, 14, 14), 3, True), _layer(128, 128, (2, 7, 7), 3, True), _layer(64, 144, (2, 28, 28), 1, True),
    _layer(192, 192, (2, 14, 14), 1, True), _layer(32, 64, (4, 14, 14), 3, True), _layer(384, 384, (2, 7, 7), 3, True),
    _layer(40, 40, (4, 14, 14), 3, False), _layer(96, 96, (2, 20, 20), 3, False), _layer(96, 96, (4, 7, 7), 3, False),
    _layer(192, 128, (2, 7, 7), 1, False), _layer(160, 160, (2, 14, 14), 3, False),
)
_APART = 1000  # between the seeds of masks that are fitted to and of others
# Two lists that layers take in turn; quick: the second half of each is left out.
_FITTED = (
    (DENSE, KeepCase("channels", 0.5), KeepCase("products", 0.6), KeepCase("random", 0.5), KeepCase("blob", 0.25),
     KeepCase("frames", 0.75)),
    (KeepCase("frames", 0.5), KeepCase("blob", 0.5), KeepCase("random", 0.25), KeepCase("channels", 0.25),
     KeepCase("random", 0.75), KeepCase("products", 0.25)),
)
_OTHER = (
    (KeepCase("frames", 0.25), KeepCase("channels", 0.75), KeepCase("random", 0.35)),
    (DENSE, KeepCase("products", 0.4), KeepCase("blob", 0.4)),
)


def tune_cases(seed: int, quick: bool) -> list[TuneCase]:
    """All cases, layer by layer; quick: half of the masks that are fitted to, and no more than those."""
    cases = []
    for i, layer in enumerate(LAYERS):
        if layer.fitted:
            fitted = _FITTED[i % 2]
            cases += [TuneCase(layer, keep, FITTED, seed + i) for keep in (fitted[:3] if quick else fitted)]
            cases += [TuneCase(layer, keep, OTHER_MASKS, seed + _APART + i) for keep in _OTHER[i % 2]]
        else:
            cases += [TuneCase(layer, keep, OTHER_LAYERS, seed + _APART + i) for keep in _OTHER[0] + _OTHER[1]]
    return cases
