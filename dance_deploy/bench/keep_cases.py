"""The masks that `dance-bench kernels` tries on a layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dance_deploy.bench.forced import blob_mask, random_mask
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

KINDS = ("frames", "channels", "blob", "random", "products")
RATES = (0.75, 0.5, 0.25)


class KeepCase(NamedTuple):
    """kind: frames, channels, blob (of pixels), random (pixels), products (all three), or dense; rate: share kept.

    Products keep the cube root of the rate of each, so that about the rate is left of the MACs.
    """

    kind: str
    rate: float


DENSE = KeepCase("dense", 1.0)


def keep_cases(geometry: Conv3dGeometry) -> list[KeepCase]:
    """Every kind that the layer has anything to drop of, at every rate; the dense case first."""
    t, h, w = geometry.in_size
    possible = {"frames": t > 1, "channels": geometry.in_channels > 1, "blob": h * w > 1, "random": h * w > 1,
                "products": True}
    return [DENSE] + [KeepCase(kind, rate) for kind in KINDS if possible[kind] for rate in RATES]


def masks_of(case: KeepCase, geometry: Conv3dGeometry, seed: int) -> LayerMasks:
    """Masks of one case; the same for the same seed."""
    rng = np.random.default_rng(seed)
    rates = dict.fromkeys(("frames", "channels", "features"), 1.0)
    if case.kind == "products":
        rates = dict.fromkeys(rates, case.rate ** (1 / 3))
    elif case.kind in ("blob", "random"):
        rates["features"] = case.rate
    elif case.kind in rates:
        rates[case.kind] = case.rate
    features = random_mask if case.kind == "random" else blob_mask
    return LayerMasks(random_mask(geometry.in_size[:1], rates["frames"], rng),
                      random_mask((geometry.in_channels,), rates["channels"], rng),
                      features(geometry.in_size[1:], rates["features"], rng))
