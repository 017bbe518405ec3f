"""A whole run: dense, AVA, AAP, calibration, evaluation, checkpoint; interrupted at any moment, it goes on."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dance_deploy.data.dataset import ClipDataset
from dance_deploy.errors import InputError, MissingPackageError
from dance_deploy.method.checkpoint import (
    FORMAT,
    Checkpoint,
    load_checkpoint,
    save_atomically,
    save_checkpoint,
)
from dance_deploy.method.prune import ChannelGroups, choose_channels, keep_channels, shrink, widths_of
from dance_deploy.method.surgery import GatedModel, check_classes, gate_model
from dance_deploy.method.training.calibration import calibrate
from dance_deploy.method.training.evaluation import DenseView, Evaluator, Score
from dance_deploy.method.training.feed import Data, decoded, targets_of
from dance_deploy.method.training.loop import Bench, Phase, Reporter, make_optimizer, run_phase
from dance_deploy.method.training.metrics import MetricsFile, NoMetrics, read_metrics
from dance_deploy.method.training.objectives import (
    AapObjective,
    AvaObjective,
    DenseObjective,
    Objective,
    StaticObjective,
)
from dance_deploy.method.training.outcome import Outcome, SplitScores, sample_clips, write_json
from dance_deploy.method.training.precision import choose
from dance_deploy.method.training.ranks import ALONE, Ranks
from dance_deploy.method.training.settings import PHASES, TrainSettings, differences
from dance_deploy.method.training.spread import measure_spread
from dance_deploy.method.training.state import (
    RunState,
    check_output,
    check_waiting,
    remove_leftovers,
    run_lock,
    save_state,
    work_folder,
)
from dance_deploy.models import build, load_weights, read_tensors
from dance_deploy.models.weights import read_safely
from dance_deploy.report.history import draw_history
from dance_deploy.report.magnitudes import draw_magnitudes


@dataclass(frozen=True)
class Request:
    """What to train: arch: name in models.ARCHITECTURES; init: file of weights to start from, or None; out: the
    checkpoint to write; going_on: None, "resume" or "restart", what to do about an unfinished run."""

    arch: str
    out: Path
    settings: TrainSettings
    init: Path | None = None
    going_on: str | None = None


def train(request: Request, data: Data, reporter: Reporter, device: torch.device, ranks: Ranks = ALONE
          ) -> Outcome | None:
    """Decode, train and write the checkpoint; returns its scores, None in all processes but the first.

    Raises InputError where the output cannot be written, weights do not fit, an unfinished run is in the way (all known
    before anything is decoded), or a video cannot be decoded;
    Diverged where the loss is no longer a number; OperationError where the disk does not take it.
    """
    check_output(request.out)
    ranks.check_batch(request.settings.batch)
    ranks.check_clips(len(data.train))
    if not ranks.is_first:
        run = _Run(request, data, reporter, device, ranks)
        ranks.wait()
        return run.go()
    with run_lock(work_folder(request.out)):
        remove_leftovers(request.out)
        run = _Run(request, data, reporter, device, ranks)
        ranks.wait()  # from here on the state is written, which the others have read
        return run.go()


class _Run:
    """One run: the model, the teacher, and where they stand."""

    def __init__(self, request: Request, data: Data, reporter: Reporter, device: torch.device, ranks: Ranks) -> None:
        self.ranks = ranks
        self.started = time.monotonic()
        self.request, self.data, self.reporter, self.device = request, data, reporter, device
        self.settings = _settings(request, data, device)
        self.folder = work_folder(request.out)
        self.state_path = self.folder / "state.pt"
        stored = self._stored_state()
        self.is_stored = stored is not None
        network = build(request.arch, len(data.labels), seed=self.settings.seed)
        # widths of the network as it came (a pruned one's differ from the architecture's), and as it is now
        self.given: dict[str, int] = dict(stored.given) if stored is not None else {}
        if stored is None and request.init is not None:
            self.given = _load_init(network, request.init, data, self.settings.epochs_dense, reporter)
        else:
            shrink(network, data.clip.shape, self.given)
        if self.settings.static_share is not None:
            ChannelGroups(network, data.clip.shape, self.settings.static_scope).check_share(self.settings.static_share)
        self.channels = dict(stored.channels) if stored is not None else dict(self.given)
        self.model = self._gated(network)
        self.original_macs = self.model.plan.dense_macs
        self.teacher: nn.Module = network.to(device)
        self.teacher_ready = False
        if self.channels != self.given:
            self._narrow(self.channels)
        self.state = stored or RunState(self._identity(), PHASES[0], 0, {}, {}, {}, 0)
        if stored is not None:
            self._restore(stored)
        # the long work comes after all that can be refused
        self.data = data = decoded(data, measures=ranks.is_first, progress=reporter.progress("decoding"))
        path = self.folder / "metrics.jsonl"
        self.metrics = MetricsFile(path, self.state.metrics_bytes) if ranks.is_first else NoMetrics(path)
        self.bench = Bench(self.model, data, self.settings, device, self.metrics, reporter, ranks)

    def go(self) -> Outcome | None:
        """All phases that are not done, then the finish."""
        if not self.is_stored:
            # from here on a run is in the way of another one, even if it is killed in its first epoch
            self._save(PHASES[0], 0, None)
        for phase in PHASES[PHASES.index(self.state.phase):] if self.state.phase in PHASES else ():
            self._run_phase(phase)
        outcome = self._finish() if self.ranks.is_first else None
        self.ranks.wait()
        return outcome

    def _gated(self, network: nn.Module) -> GatedModel:
        s = self.settings
        with torch.random.fork_rng(devices=[]):  # the controller's start draws from the global generator
            torch.manual_seed(s.seed)
            model = gate_model(network, self.data.clip.shape, s.kinds, s.tau_max)
        check_classes(model, len(self.data.labels))
        if s.thresholds_from == "budget":
            model.controller.see_budget_only()
        for gate in model.gates:
            gate.random = s.random_masks
        return model.to(self.device)

    def _narrow(self, channels: dict[str, int]) -> None:
        """Put a network of these widths, its weights yet to be loaded, in the place of the present one."""
        network = build(self.request.arch, len(self.data.labels))
        shrink(network, self.data.clip.shape, channels)
        self.model = self._gated(network)

    def _prune(self) -> None:
        """Cut channels of the dense network; does nothing where that was done before an interruption."""
        s = self.settings
        if self.channels != self.given or s.static_share is None:
            return
        network = copy.deepcopy(self.teacher).cpu()
        groups = ChannelGroups(network, self.data.clip.shape, s.static_scope)
        kept = choose_channels(network, groups, s.static_share, s.static_by, s.static_allocation)
        keep_channels(network, groups, kept)
        self.model = self._gated(network.train().requires_grad_(True))
        self.bench.model = self.model
        self.channels = {**self.given, **{name: len(index) for name, index in kept.items()}}
        left = ", ".join(f"{name} {len(index)} of {groups.groups[name].channels}" for name, index in kept.items())
        self.reporter.say(f"static pruning leaves {self._static_share():.1%} of the MACs; channels: {left}")
        self.metrics.append("pruning", share=self._static_share(), channels=self.channels)

    def _static_share(self) -> float:
        """MACs of the network without gates, as a share of those of the one that it was pruned from."""
        return self.model.plan.dense_macs / self.original_macs

    def _run_phase(self, name: str) -> None:
        going_on = self.state.phase == name
        if name == "static":
            self._prune()
        objective = self._objective(name)
        phase = Phase(name, objective, self.settings.epochs(name), self.state.epoch if going_on else 0)
        optimizer = make_optimizer(objective, self.model)
        if going_on and self.state.optimizer:
            optimizer.load_state_dict(self.state.optimizer)
        if phase.epochs:
            run_phase(self.bench, phase, optimizer, lambda p, o: self._save(p.name, p.done, o))
        if name == "dense":
            self._make_teacher()
        if self.ranks.is_first and (name != "static" or self.settings.static_share is not None):
            self._note_spread(name)
            if name == "static":
                self._note_static()
        following = (*PHASES, "finish")[PHASES.index(name) + 1]
        self._save(following, 0, None)

    def _objective(self, name: str) -> Objective:
        if name == "dense":
            return DenseObjective(self.settings)
        if name == "static":
            return StaticObjective(self.settings, self.teacher)
        if name == "ava":
            return AvaObjective(self.settings)
        return AapObjective(self.settings, self.teacher)

    def _make_teacher(self) -> None:
        state = copy.deepcopy(self.model.backbone_state())
        # for --init: other settings can be tried without training this network again
        if self.ranks.is_first:
            save_atomically(self.folder / "dense.pt", {
                "labels": list(self.data.labels), "state_dict": {name: tensor.cpu() for name, tensor in state.items()}})
        self.teacher.load_state_dict(state)
        self.teacher.eval().requires_grad_(False)
        self.teacher_ready = True

    def _note_spread(self, stage: str) -> None:
        """Put the magnitudes' distribution after a phase into the metrics; the plots are drawn from there."""
        clips = next(self._evaluator(self.data.study).batches()).clip
        budget = self.settings.target_macs if stage == "aap" else None
        found = measure_spread(self.model, clips, budget)
        self.metrics.append("magnitudes", stage=stage, kinds={k: v._asdict() for k, v in found.items()})

    def _note_static(self) -> None:
        """Measure the pruned network without gates, before they change it."""
        for name, dataset in self.data.measured.items():
            score = self._evaluator(dataset).dense_score(DenseView(self.model))
            self.metrics.append("evaluation", split=name, phase="static", epoch=self.settings.epochs("static"),
                                scores=[score.as_dict()])

    def _finish(self) -> Outcome:
        s = self.settings
        budgets, target = sorted({*s.budgets, s.target_macs}, reverse=True), s.target_macs
        if s.epochs_aap:
            self.reporter.say("measuring and calibrating")
            points = calibrate(self.model, self._evaluator(self.data.study), s.lowest_budget)
            self.metrics.append("calibration", **points._asdict())
        else:  # what gates drop that nobody trained is arbitrary
            self.reporter.say("gates that were not trained keep everything at every budget; measuring")
            self.model.controller.keep_all()
            budgets, target = [1.0], 1.0
        scores = [self._split_scores(name, dataset, budgets) for name, dataset in self.data.measured.items()]
        outcome = Outcome(self.request.out, self.folder, scores, time.monotonic() - self.started, target,
                          self.original_macs, self.model.plan.dense_macs)
        write_json(self.folder / "results.json", {"arch": self.request.arch, "labels": list(self.data.labels),
                                                  "settings": s.as_dict(), "channels": self.channels,
                                                  **outcome.as_dict()})
        self._draw()
        if s.random_masks:
            self.reporter.say("random masks serve comparisons only and cannot be exported: no checkpoint is written")
        else:
            save_checkpoint(self.request.out, self._checkpoint(outcome))
        self._save("finish", 0, None, finished=True)
        return outcome

    def _evaluator(self, dataset: ClipDataset) -> Evaluator:
        return Evaluator(dataset, workers=self.data.workers, device=self.device)

    def _split_scores(self, name: str, dataset: ClipDataset, budgets: list[float]) -> SplitScores:
        evaluator = self._evaluator(dataset)
        static = [event["scores"][0] for event in read_metrics(self.metrics.path)
                  if event.get("phase") == "static" and event["event"] == "evaluation" and event["split"] == name]
        scores = SplitScores(name, evaluator.dense_score(self.teacher), evaluator.scores(self.model, budgets),
                             Score.from_dict(static[-1]) if static else None)
        self.metrics.append("evaluation", split=name, phase="finish", dense=scores.dense.as_dict(),
                            scores=[score.as_dict() for score in scores.gated])
        return scores

    def _checkpoint(self, outcome: Outcome) -> Checkpoint:
        graph = {name: tensor.detach().cpu() for name, tensor in self.model.graph.state_dict().items()}
        reached = [[float(score.budget or 0.0), score.share] for score in outcome.last.gated]
        return Checkpoint(self.request.arch, list(self.data.labels), self.data.clip, graph, sample_clips(self.data),
                          self.settings.kinds, outcome.target_macs, reached, True, outcome.figures(),
                          self.channels)

    def _draw(self) -> None:
        events = read_metrics(self.metrics.path)
        try:
            draw_magnitudes(events, self.folder / "magnitudes.png")
            draw_history(events, self.folder / "history.png")
        except MissingPackageError as error:  # a run must not fail for want of a picture
            self.reporter.say(f"no pictures: {error}")

    def _identity(self) -> dict[str, Any]:
        clips = hashlib.sha256(repr([targets_of(self.data.train), self.data.labels]).encode()).hexdigest()
        return {"arch": self.request.arch, "init": str(self.request.init or ""), "data": clips,
                "clip": [list(v) if isinstance(v, tuple) else v for v in self.data.clip],
                "settings": self.settings.as_dict()}

    def _stored_state(self) -> RunState | None:
        stored = check_waiting(self.request.out, self.request.going_on)
        if stored is not None:
            self._check_same(stored.identity)
        return stored

    def _check_same(self, old: dict[str, Any]) -> None:
        now = self._identity()
        changed = [f"--{k} {old.get(k)}, now {now[k]}" for k in ("arch", "init") if old.get(k) != now[k]]
        others = {"data": "--data", "clip": "clip spec"}
        changed += [f"another {what}" for k, what in others.items() if old.get(k) != now[k]]
        changed += differences(old.get("settings", {}), self.settings)
        if changed:
            raise InputError(f"{self.state_path}: the unfinished run was started with other options "
                             f"({'; '.join(changed)}); give the same ones, or --restart")

    def _restore(self, stored: RunState) -> None:
        try:
            self.model.graph.load_state_dict(stored.model)
            if stored.teacher:
                self.teacher.load_state_dict(stored.teacher)
                self.teacher.eval().requires_grad_(False)
                self.teacher_ready = True
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{self.state_path}: training state does not fit '{self.request.arch}'; train again with "
                             f"--restart ({str(error).splitlines()[0]})") from error

    def _save(self, phase: str, epoch: int, optimizer: torch.optim.Optimizer | None, finished: bool = False) -> None:
        self.state = RunState(self._identity(), phase, epoch, dict(self.model.graph.state_dict()),
                              dict(self.teacher.state_dict()) if self.teacher_ready else {},
                              optimizer.state_dict() if optimizer is not None else {}, self.metrics.length, finished,
                              self.given, self.channels)
        if self.ranks.is_first:
            save_state(self.state_path, self.state)


def _labels_in(path: Path) -> list[str]:
    """The labels that a file of weights names, [] where it names none."""
    value = read_safely(str(path))
    if not isinstance(value, dict):
        return []
    labels = load_checkpoint(path).labels if value.get("format") == FORMAT else value.get("labels")
    return labels if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else []


def _label_differences(theirs: list[str], ours: list[str]) -> str:
    """How the labels of weights (none: not known) and of the data differ, "" where they do not."""
    if theirs in ([], ours):
        return ""
    sides = [f"only {where}: {', '.join(repr(x) for x in names if x not in others)}"
             for where, names, others in (("there", theirs, ours), ("in the data", ours, theirs))
             if set(names) - set(others)]
    return "other labels; " + ("; ".join(sides) or "the same ones in another order")


def _settings(request: Request, data: Data, device: torch.device) -> TrainSettings:
    """The request's settings with everything filled in that follows from data and device."""
    settings = request.settings.resolved(len(data.train.videos)).check()
    return replace(settings, precision=choose(device, settings.precision))


def _load_init(network: nn.Module, path: Path, data: Data, epochs_dense: int | None, reporter: Reporter
               ) -> dict[str, int]:
    """Start from the weights of a plain model, or of the backbone in one of our checkpoints.

    Returns the widths in which they are narrower than their architecture. A classifier for other labels is left out.
    """
    differing = _label_differences(_labels_in(path), list(data.labels))
    widths = widths_of(network, data.clip.shape, read_tensors(path))
    shrink(network, data.clip.shape, widths)
    report = load_weights(network, path, leave_classifier=differing)
    reporter.say(str(report))
    if report.skipped and epochs_dense == 0:
        reporter.say("the classifier starts untrained, and with --epochs-dense 0 so does the teacher of the later "
                     "phases; leave the option out to train both first")
    if widths:
        reporter.say(f"{path}: holds a network with fewer channels in {len(widths)} layers; it is trained as it is")
    return widths
