"""The controller: from statistics of the first layer's activation and a budget to all thresholds.

It sees the normalised magnitudes of the stem only: over frames (resampled to a fixed length), over channels, and over a
coarse grid of positions; and the budget, the wanted share of MACs. It returns tau [L, 3], each between 0 and its
kind's bound.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from dance_deploy.method.saliency import KINDS, magnitudes, relative

FRAME_BINS = 8
GRID = (4, 4)
HIDDEN = 32
# Bounds of the thresholds over frames, channels, features. Frames of a clip are nearly alike: a threshold around their
# mean decides by noise, and one above it leaves a frame or two of sixteen: learnt on some people, it fails on others.
TAU_MAX = (0.9, 1.5, 1.5)
TAU_START = 0.3  # of every threshold at budget 0.5, before training
SLOPE_START = 1.0  # of the logit of every threshold over -log(budget), before training
FED_FLOOR = 0.01  # of the fed budget whose logarithm is an input
OPEN_RAMP = 0.1  # thresholds fade to 0 over the last tenth below a fed budget of 1, which is the network without gates


def resampling_matrix(length: int, bins: int) -> np.ndarray:
    """Area-averaging matrix [length, bins], float32: each column averages the interval of one bin and sums to 1."""
    edges = np.linspace(0.0, length, bins + 1)
    cells = np.arange(length)
    overlap = np.minimum(cells[:, None] + 1, edges[None, 1:]) - np.maximum(cells[:, None], edges[None, :-1])
    overlap = np.clip(overlap, 0.0, None)
    return (overlap / overlap.sum(0, keepdims=True)).astype(np.float32)


class Controller(nn.Module):
    """A two-layer perceptron on the stem's statistics and the budget.

    channels: C of the stem's activation; gates: L; kinds: which kinds may be pruned (thresholds of the others are 0);
    tau_max: bounds of the thresholds over frames, channels, features.
    """

    tau_scale: torch.Tensor
    asked: torch.Tensor
    fed: torch.Tensor

    def __init__(self, channels: int, gates: int, kinds: tuple[str, ...] = KINDS, hidden: int = HIDDEN,
                 tau_max: tuple[float, float, float] = TAU_MAX) -> None:
        super().__init__()
        self.gates, self.tau_max = gates, tau_max
        inputs = FRAME_BINS + channels + GRID[0] * GRID[1] + 2
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, gates * 3)
        self._start()
        scale = torch.tensor([bound if kind in kinds else 0.0 for kind, bound in zip(KINDS, tau_max)])
        self.register_buffer("tau_scale", scale.repeat(gates, 1))
        # piecewise linear map from the budget asked for to the one fed in (see calibrate); identity at first
        self.register_buffer("asked", torch.tensor([0.0, 1.0]))
        self.register_buffer("fed", torch.tensor([0.0, 1.0]))

    def _start(self) -> None:
        """Thresholds that depend on the budget alone, each rising as it falls.

        A controller that starts at random closes some gates for good, and a closed gate gets no gradient; one that
        starts at a constant takes most of the training to tell one budget from another.
        """
        nn.init.normal_(self.output.weight, std=1e-3)
        with torch.no_grad():
            # hidden unit 0 is -log(budget), the last input
            self.hidden.weight[0].zero_()
            self.hidden.weight[0, -1] = -1.0
            self.hidden.bias[0] = 0.0
            self.output.weight[:, 0] = SLOPE_START
        self.start_at(TAU_START)

    def start_at(self, tau: float) -> None:
        """Before training: make every threshold about tau at a budget of 0.5; tau lies below all bounds."""
        logits = torch.tensor([math.log(tau / (bound - tau)) - SLOPE_START * math.log(2.0) for bound in self.tau_max])
        with torch.no_grad():
            self.output.bias.copy_(logits.repeat(self.gates))

    def keep_all(self) -> None:
        """Drop nothing, whatever the budget: every threshold is 0 from now on."""
        self.tau_scale.zero_()

    @property
    def drops(self) -> bool:
        """Whether any threshold can be above 0."""
        return bool(self.tau_scale.any())

    def see_budget_only(self) -> None:
        """Make the thresholds depend on the budget alone, now and in training: for comparison with a full one."""
        seen = torch.zeros_like(self.hidden.weight)
        seen[:, -2:] = 1.0
        with torch.no_grad():
            self.hidden.weight.mul_(seen)
        self.hidden.weight.register_hook(lambda gradient: gradient * seen.to(gradient.device))

    def features(self, stem: torch.Tensor) -> torch.Tensor:
        """Statistics of stem [N, C, T, H, W]: [N, FRAME_BINS + C + grid cells], each about 1 on average."""
        m = magnitudes(stem.float())
        _, _, t, h, w = stem.shape
        onto_bins, rows, columns = (
            torch.as_tensor(resampling_matrix(n, bins), device=stem.device, dtype=torch.float32)
            for n, bins in ((t, FRAME_BINS), (h, GRID[0]), (w, GRID[1])))
        frames = relative(m.frames) @ onto_bins
        grid = rows.T @ relative(m.features).view(-1, h, w) @ columns
        return torch.cat([frames, relative(m.channels), grid.flatten(1)], 1)

    def fed_budget(self, budget: torch.Tensor) -> torch.Tensor:
        """The budget that the perceptron is fed for a budget [N] asked for, by the calibrated map."""
        low, high = self.asked[:-1], self.asked[1:]
        slope = (self.fed[1:] - self.fed[:-1]) / (high - low)
        part = torch.minimum(torch.maximum(budget[:, None], low), high) - low
        return self.fed[0] + (part * slope).sum(1)

    def forward(self, stem: torch.Tensor, budget: torch.Tensor) -> torch.Tensor:
        """stem [N, C, T, H, W], budget [N] in (0, 1] -> tau [N, L, 3], float32 under autocast, too."""
        with torch.autocast(stem.device.type, enabled=False):
            return self._thresholds(stem, budget.float())

    def _thresholds(self, stem: torch.Tensor, budget: torch.Tensor) -> torch.Tensor:
        fed = self.fed_budget(budget)
        x = torch.cat([self.features(stem), fed[:, None], fed.clamp_min(FED_FLOOR).log()[:, None]], 1)
        raw = self.output(torch.relu(self.hidden(x))).view(-1, self.gates, 3)
        opening = ((1.0 - fed) / OPEN_RAMP).clamp(0.0, 1.0)
        return torch.sigmoid(raw) * self.tau_scale * opening[:, None, None]

    def calibrate(self, asked: list[float], fed: list[float]) -> None:
        """Set the map from the budget asked for to the one fed in; both lists ascend, `asked` strictly."""
        device = self.asked.device
        self.asked = torch.tensor(asked, dtype=torch.float32, device=device)
        self.fed = torch.tensor(fed, dtype=torch.float32, device=device)

    def macs(self, stem_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for one clip, statistics included (two sums over all of the stem)."""
        _, c, t, h, w = stem_shape
        statistics = 2 * c * t * h * w + t * FRAME_BINS + h * w * GRID[1] + h * GRID[0] * GRID[1]
        return statistics + self.hidden.weight.numel() + self.output.weight.numel()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        # the calibrated map has as many points as were measured, so its buffers take the stored length
        for name in ("asked", "fed"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=self.asked.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
