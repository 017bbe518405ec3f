"""How widely the magnitudes of a model's gated tensors spread: what AVA and AAP change."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from dance_deploy.method.saliency import KINDS, hoyer, relative, squared_variation
from dance_deploy.method.surgery import GatedModel

BINS = 60
LARGEST = 3.0  # relative magnitudes above are counted in the last bin


class KindSpread(NamedTuple):
    """One kind: means over gates and clips of the squared coefficient of variation and of Hoyer's measure, each also
    per gate; histogram: share of slices per bin of magnitude / mean, BINS bins over 0 .. LARGEST, gates weighed
    equally."""

    variation: float
    hoyer: float
    variation_per_gate: list[float]
    hoyer_per_gate: list[float]
    histogram: list[float]


def measure_spread(model: GatedModel, clips: torch.Tensor, budget: float | None) -> dict[str, KindSpread]:
    """KindSpread by kind for clips [N, 3, T, H, W]; budget None: with open gates. The model is left in eval mode."""
    model.eval()
    model.open_gates(budget is None)
    model.measure(True)
    with torch.inference_mode():
        model(clips, torch.full((len(clips),), 1.0 if budget is None else budget, device=clips.device))
    found = {}
    for number, kind in enumerate(KINDS):
        slices = [gate.measured[number] for gate in model.gates if gate.measured is not None]
        variation = [float(squared_variation(m).mean()) for m in slices]
        measure = [float(hoyer(m).mean()) for m in slices]
        found[kind] = KindSpread(float(np.mean(variation)), float(np.mean(measure)), variation, measure,
                                 np.mean([_histogram(m) for m in slices], axis=0).tolist())
    model.measure(False)
    for gate in model.gates:
        gate.measured = None
    return found


def _histogram(m: torch.Tensor) -> np.ndarray:
    values = relative(m).clamp(max=LARGEST).cpu().numpy().ravel()
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, LARGEST))
    return counts / counts.sum()
