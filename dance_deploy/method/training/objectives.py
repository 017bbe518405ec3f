"""What each phase minimises: dense training, AVA, AAP. One class a phase, all with the same three methods."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from dance_deploy.method.ava import AvaWeights, ava_spread
from dance_deploy.method.surgery import GatedModel
from dance_deploy.method.training.losses import distillation, mac_penalty
from dance_deploy.method.training.precision import autocast
from dance_deploy.method.training.schedule import ramp_factor
from dance_deploy.method.training.settings import TrainSettings


class Batch(NamedTuple):
    """clip: float32 [N, 3, T, H, W]; target: int64 [N]; size: N, or clips of all processes together; 0 = N."""

    clip: torch.Tensor
    target: torch.Tensor
    size: int = 0


class Moment(NamedTuple):
    """Where in its phase a step is; `random` is the epoch's own generator (CPU)."""

    step: int
    steps: int
    random: torch.Generator


class Step(NamedTuple):
    """loss: scalar to minimise; logits [N, K], of the same clips in the same order; shown: numbers for the metrics."""

    loss: torch.Tensor
    logits: torch.Tensor
    shown: dict[str, torch.Tensor]


class Objective(Protocol):
    """One phase of training."""

    def prepare(self, model: GatedModel) -> None:
        """Bring gates and modes into the state that the phase needs."""

    def parameter_groups(self, model: GatedModel) -> list[dict[str, object]]:
        """What AdamW trains, with the learning rates at their peak."""

    def step(self, model: GatedModel, batch: Batch, moment: Moment) -> Step:
        """One forward and its loss."""


def split_decay(parameters: list[nn.Parameter], lr: float, decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with weight decay, vectors (biases, batch norm) without."""
    return [{"params": [p for p in parameters if p.dim() > 1], "lr": lr, "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() <= 1], "lr": lr, "weight_decay": 0.0}]


def backbone_parameters(model: GatedModel) -> list[nn.Parameter]:
    """All parameters but the controller's."""
    controller = set(model.controller.parameters())
    return [p for p in model.parameters() if p not in controller]


def answer(network: nn.Module, precision: str | None, clip: torch.Tensor, *budget: torch.Tensor) -> torch.Tensor:
    """Logits [N, K] in float32 of a network that computes in `precision` (None: float32)."""
    with autocast(clip.device, precision or "float32"):
        return network(clip, *budget).float()


class DenseObjective:
    """Cross-entropy of the network without gates."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def prepare(self, model: GatedModel) -> None:
        model.train()
        model.open_gates()
        model.measure(False)

    def parameter_groups(self, model: GatedModel) -> list[dict[str, object]]:
        return split_decay(backbone_parameters(model), self.settings.lr_dense, self.settings.weight_decay)

    def step(self, model: GatedModel, batch: Batch, moment: Moment) -> Step:
        budget = torch.ones_like(batch.target, dtype=torch.float32)
        logits = answer(model, self.settings.precision, batch.clip, budget)
        loss = F.cross_entropy(logits, batch.target, label_smoothing=self.settings.label_smoothing)
        return Step(loss, logits, {})


class StaticObjective(DenseObjective):
    """Fine-tunes a pruned network without gates: cross-entropy and distillation.

    teacher: the network before pruning, clip [N, 3, T, H, W] -> logits; in eval mode, never trained.
    """

    def __init__(self, settings: TrainSettings, teacher: nn.Module) -> None:
        super().__init__(settings)
        self.teacher = teacher

    def prepare(self, model: GatedModel) -> None:
        super().prepare(model)
        self.teacher.eval()

    def parameter_groups(self, model: GatedModel) -> list[dict[str, object]]:
        return split_decay(backbone_parameters(model), self.settings.lr_static, self.settings.weight_decay)

    def step(self, model: GatedModel, batch: Batch, moment: Moment) -> Step:
        task = super().step(model, batch, moment)
        with torch.no_grad():
            wanted = answer(self.teacher, self.settings.precision, batch.clip)
        taught = distillation(task.logits, wanted, self.settings.distill_temperature)
        return Step(task.loss + self.settings.distill * taught, task.logits, {"distillation": taught.detach()})


class AvaObjective(DenseObjective):
    """Cross-entropy minus lambda times the spread of the magnitudes, without gates."""

    def prepare(self, model: GatedModel) -> None:
        super().prepare(model)
        model.measure(True)

    def parameter_groups(self, model: GatedModel) -> list[dict[str, object]]:
        return split_decay(backbone_parameters(model), self.settings.lr_ava, self.settings.weight_decay)

    def step(self, model: GatedModel, batch: Batch, moment: Moment) -> Step:
        task = super().step(model, batch, moment)
        measured = [gate.measured for gate in model.gates if gate.measured is not None]
        spread = ava_spread(measured, AvaWeights(*self.settings.ava_kinds), self.settings.ava_form)
        return Step(task.loss - self.settings.ava_lambda * spread, task.logits, {"spread": spread.detach()})


class AapObjective:
    """Cross-entropy and distillation through the gates, and a penalty on the share of MACs.

    teacher: the dense network, clip [N, 3, T, H, W] -> logits; in eval mode, never trained.
    """

    def __init__(self, settings: TrainSettings, teacher: nn.Module) -> None:
        self.settings = settings
        self.teacher = teacher

    def prepare(self, model: GatedModel) -> None:
        model.train()
        model.open_gates(False)
        model.measure(False)
        self.teacher.eval()

    def parameter_groups(self, model: GatedModel) -> list[dict[str, object]]:
        s = self.settings
        return [*split_decay(backbone_parameters(model), s.lr_aap, s.weight_decay),
                {"params": list(model.controller.parameters()), "lr": s.lr_controller, "weight_decay": 0.0}]

    def draw_budgets(self, moment: Moment) -> tuple[float, float]:
        """The budgets of the two halves of a batch: one log-uniform, since low budgets are hard to learn; the other 1
        in a part of the batches, so that the network stays as good as the dense one without gates, else uniform."""
        low = self.settings.lowest_budget
        first, second, is_open = torch.rand(3, generator=moment.random).tolist()
        return low ** (1.0 - first), 1.0 if is_open < self.settings.open_part else low + (1.0 - low) * second

    def step(self, model: GatedModel, batch: Batch, moment: Moment) -> Step:
        s = self.settings
        # halves of different budgets share one forward, so that batch norm sees them together
        halves = torch.arange(len(batch.target), device=batch.target.device) % 2
        budgets = torch.tensor(self.draw_budgets(moment), device=batch.clip.device)
        logits = answer(model, s.precision, batch.clip, budgets[halves])
        with torch.no_grad():
            wanted = answer(self.teacher, s.precision, batch.clip)
        share = model.macs_share()
        penalty = logits.new_zeros(())
        for half in (0, 1):
            chosen = share[halves == half]
            if len(chosen) and budgets[half] < 1.0:
                penalty = penalty + mac_penalty(chosen.mean(), budgets[half], s.penalty_over, s.penalty_under)
        task = F.cross_entropy(logits, batch.target, label_smoothing=s.label_smoothing)
        taught = distillation(logits, wanted, s.distill_temperature)
        loss = task + s.distill * taught + ramp_factor(moment.step, moment.steps) * penalty
        return Step(loss, logits, {"share": share.mean().detach(), "penalty": penalty.detach(),
                                   "distillation": taught.detach()})
