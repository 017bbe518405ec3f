"""The loop that all three phases share: epochs of steps, evaluation now and then, a state saved after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from dance_deploy.errors import OperationError
from dance_deploy.method.surgery import GatedModel
from dance_deploy.method.training.evaluation import DenseView, Evaluator, Score
from dance_deploy.method.training.feed import Data, batches_in_epoch, epoch_random, training_batches
from dance_deploy.method.training.metrics import MetricsFile
from dance_deploy.method.training.objectives import Batch, Moment, Objective, Step
from dance_deploy.method.training.ranks import ALONE, Ranks
from dance_deploy.method.training.schedule import learning_rate_factor
from dance_deploy.method.training.settings import TrainSettings


class Reporter(Protocol):
    """Who tells the user how it goes."""

    def phase(self, name: str, epochs: int, done: int) -> None:
        """A phase begins, or goes on after `done` epochs."""

    def step(self, part: float) -> None:
        """`part` of the present epoch is done, 0 to 1."""

    def epoch(self, shown: dict[str, float]) -> None:
        """An epoch is done."""

    def progress(self, what: str) -> Callable[[int, int], Any] | None:
        """A callback (done, total) for a preparation that takes a while, or None."""

    def say(self, line: str) -> None:
        """One line for the user."""


class Diverged(OperationError):
    """The loss or the gradient is no longer a number."""


@dataclass
class Phase:
    """One phase of a run: name, its objective, epochs in all, and the epochs that are done."""

    name: str
    objective: Objective
    epochs: int
    done: int = 0


@dataclass
class Bench:
    """What the loop works with, the same in every phase."""

    model: GatedModel
    data: Data
    settings: TrainSettings
    device: torch.device
    metrics: MetricsFile
    reporter: Reporter
    ranks: Ranks = ALONE


def run_phase(bench: Bench, phase: Phase, optimizer: torch.optim.Optimizer,
              save: Callable[[Phase, torch.optim.Optimizer], None]) -> None:
    """Train the epochs of `phase` that are not done; `save` is called after each.

    Raises Diverged, naming phase, epoch and step, at the first loss or gradient that is not finite.
    """
    bench.reporter.phase(phase.name, phase.epochs, phase.done)
    while phase.done < phase.epochs:
        started = time.monotonic()
        phase.objective.prepare(bench.model)
        shown = _run_epoch(bench, phase, optimizer)
        phase.done += 1
        shown["seconds"] = time.monotonic() - started
        bench.metrics.append("epoch", phase=phase.name, epoch=phase.done, **shown)
        bench.ranks.average_buffers(bench.model)
        is_due = phase.done % bench.settings.eval_every == 0 or phase.done == phase.epochs
        if is_due and bench.ranks.is_first:
            shown.update(_evaluate(bench, phase))
        save(phase, optimizer)
        bench.reporter.epoch(shown)


def make_optimizer(objective: Objective, model: GatedModel) -> torch.optim.Optimizer:
    """AdamW on the objective's parameters; `peak` of each group is the learning rate that the schedule scales."""
    groups = [{**group, "peak": group["lr"]} for group in objective.parameter_groups(model)]
    return torch.optim.AdamW(groups)


def _run_epoch(bench: Bench, phase: Phase, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    s = bench.settings
    random = epoch_random(s.seed, phase.name, phase.done)
    steps = batches_in_epoch(bench.data.train, s.batch)
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))
    sums: dict[str, float] = {}
    cuda = [bench.device] if bench.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(random.integers(2**63)))  # dropout draws from the global generator
        batches = training_batches(bench.data, phase.name, phase.done, batch=s.batch, random=random,
                                   device=bench.device, ranks=bench.ranks)
        for number, batch in enumerate(batches):
            moment = Moment(phase.done * steps + number, phase.epochs * steps, generator)
            for name, value in _train_step(bench, phase, optimizer, batch, moment).items():
                sums[name] = sums.get(name, 0.0) + value
            bench.reporter.step((number + 1) / steps)
    return {name: value / steps for name, value in sums.items()}


def _train_step(bench: Bench, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch,
                moment: Moment) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * learning_rate_factor(moment.step, moment.steps)
    step: Step = phase.objective.step(bench.model, batch, moment)
    optimizer.zero_grad(set_to_none=True)
    part = len(batch.target) / (batch.size or len(batch.target))
    (step.loss * part if part < 1.0 else step.loss).backward()
    bench.ranks.sum_gradients(bench.model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(bench.model.parameters(), bench.settings.grad_norm)
    right = (step.logits.detach().argmax(1) == batch.target).float().mean()
    found = {"loss": step.loss.detach(), "accuracy": right, **step.shown}
    values = bench.ranks.sum_values({k: float(v) * part for k, v in found.items()}, bench.device)
    loss = values["loss"]
    if not math.isfinite(loss) or not math.isfinite(float(norm)):
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {float(norm)}"
        raise Diverged(f"{phase.name} phase, epoch {phase.done + 1}, step {moment.step + 1} of {moment.steps}: {what}; "
                       "the last good state is kept; train again with --restart and a lower --lr")
    optimizer.step()
    return values


def _evaluate(bench: Bench, phase: Phase) -> dict[str, float]:
    """Validation clips, where there are any, as the phase leaves the network: for people, nothing is chosen by it."""
    if bench.data.val is None:
        return {}
    s = bench.settings
    evaluator = Evaluator(bench.data.val, workers=bench.data.workers, device=bench.device)
    scores: list[Score]
    if phase.name == "aap":
        scores = evaluator.scores(bench.model, [1.0, s.target_macs])
    else:
        scores = [evaluator.dense_score(DenseView(bench.model))]
    bench.metrics.append("evaluation", split="val", phase=phase.name, epoch=phase.done,
                         scores=[score.as_dict() for score in scores])
    return {"val_top1": scores[-1].clip_top1, "val_share": scores[-1].share}
