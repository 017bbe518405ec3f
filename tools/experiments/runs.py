"""Trains what a table asks for and is not there yet, and measures each checkpoint on every test clip."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dance_deploy.bundle import Bundle, open_bundle
from dance_deploy.data import open_dataset
from dance_deploy.data.dataset import ClipDataset
from dance_deploy.errors import InputError
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.geometry import ClipSpec
from dance_deploy.method.checkpoint import load_checkpoint, model_from_checkpoint
from dance_deploy.method.surgery import GatedModel
from dance_deploy.method.training.command import Options, train_from_options
from dance_deploy.method.training.evaluation import Evaluator
from dance_deploy.method.training.loop import Reporter
from dance_deploy.method.training.metrics import read_metrics
from dance_deploy.method.training.outcome import write_json
from dance_deploy.method.training.state import load_state, work_folder
from tools.experiments.table import BUDGETS, Setting, Table


@dataclass(frozen=True)
class Run:
    """One run of a table: its checkpoint, with its work folder beside it, lies in the runs' folder."""

    name: str
    setting: Setting
    seed: int
    fold: str | None
    dense_name: str  # of the setting that trains the dense networks

    def checkpoint(self, folder: Path) -> Path:
        """Where the run's checkpoint is written."""
        return folder / f"{self.tag(self.name)}.pt"

    def dense(self, folder: Path) -> Path:
        """The dense network to start from, and to be taught by."""
        return work_folder(self.of_dense().checkpoint(folder)) / "dense.pt"

    def of_dense(self) -> Run:
        """The run that trains its dense network."""
        return replace(self, name=self.dense_name)

    @property
    def has_random_masks(self) -> bool:
        """Whether it has no checkpoint, since nothing but a comparison asks for such a network."""
        return bool(self.setting.changes.get("random_masks"))

    def tag(self, name: str) -> str:
        """Name of a setting's run with this seed and fold."""
        return f"{name}_s{self.seed}" + (f"_{self.fold.replace('/', '-')}" if self.fold else "")


def runs_of(table: Table, only: list[str], seeds: list[int], folds: list[str]) -> Iterator[Run]:
    """The runs of a table, those that train dense networks first; empty lists: all there are.

    Raises InputError for a name that the table does not have.
    """
    unknown = [n for n in only if n not in table.settings] + [f for f in folds if f not in table.folds]
    if unknown:
        raise InputError(f"the table has no setting or fold '{unknown[0]}'; settings: {', '.join(table.settings)}; "
                         f"folds: {', '.join(str(f) for f in table.folds)}")
    for fold in folds or table.folds:
        for seed in seeds or table.seeds:
            for name, setting in sorted(table.settings.items(), key=lambda item: not item[1].own_dense):
                if not only or name in only:
                    yield Run(name, setting, seed, fold, table.dense)


def is_finished(run: Run, folder: Path) -> bool:
    """Whether the run has been trained to its end."""
    return (work_folder(run.checkpoint(folder)) / "results.json").is_file()


def finished_runs(table: Table, only: list[str], seeds: list[int], folds: list[str], folder: Path, *,
                  bundled: bool = True) -> list[Run]:
    """Those of `runs_of` that are finished, to be measured; a line for each that is not.

    bundled: only settings of which a bundle can be made. Raises InputError where `only` names nothing, a setting of
    which none is finished, or one with random masks where it has to be bundled.
    """
    if not only:
        raise InputError(f"--only names nothing; choose from {', '.join(table.settings)}")
    wanted = list(runs_of(table, only, seeds, folds))
    finished = [run for run in wanted if is_finished(run, folder)]
    for run in wanted:
        if bundled and run.has_random_masks:
            raise InputError(f"{run.tag(run.name)}: random masks have no checkpoint, so there is nothing to time")
        if run.name not in {other.name for other in finished}:
            raise InputError(f"{run.tag(run.name)} is not finished in {folder}; leave it out, or train it first: "
                             "python -m tools.experiments, with the same table, --runs, --only and --seeds")
        if run not in finished:
            print(f"{run.tag(run.name)} is not finished and left out", file=sys.stderr)
    return finished


def bundle_of(run: Run, folder: Path) -> Bundle:
    """The bundle of a finished run; kept beside its checkpoint."""
    path = folder / f"{run.tag(run.name)}.bundle"
    checkpoint = run.checkpoint(folder)
    if not path.is_dir() or path.stat().st_mtime < checkpoint.stat().st_mtime:
        bundle_from_checkpoint(load_checkpoint(checkpoint), path)
    return open_bundle(path)


def random_network(run: Run, folder: Path) -> GatedModel:
    """The network of a finished run with random masks, from the state of its training."""
    state = load_state(work_folder(run.checkpoint(folder)) / "state.pt")
    like = load_checkpoint(run.of_dense().checkpoint(folder))
    model = model_from_checkpoint(replace(like, graph=state.model, channels=state.channels,
                                          kinds=tuple(_results(run, folder)["settings"]["kinds"])))
    for gate in model.gates:
        gate.random = True
    model.open_gates(False)
    return model


def train_run(table: Table, run: Run, data: str, folder: Path, reporter: Reporter, *, restart: bool = False) -> None:
    """Train a run, or go on with it (restart: begin it again); returns at once where it is finished."""
    if is_finished(run, folder):
        return
    options = replace(options_of(table, run, data, folder), resume=not restart, restart=restart)
    if options.init is not None and not options.init.is_file():
        raise InputError(f"{options.init}: is not there; run the setting '{run.dense_name}' with seed {run.seed} first")
    train_from_options(options, reporter)


def options_of(table: Table, run: Run, data: str, folder: Path) -> Options:
    """What dance-train is asked for: it goes on where it was, and all but one setting start from its dense network."""
    changes = {**table.changes, **run.setting.changes, "seed": run.seed}
    own = run.setting.own_dense
    if not own and not run.setting.clip:
        changes["epochs_dense"] = 0
    return Options(data=data, out=run.checkpoint(folder), arch=table.arch, init=None if own else run.dense(folder),
                   resume=True, fold=run.fold, settings=changes, **{**table.options, **run.setting.clip})


def measure_run(run: Run, data: str, folder: Path, table: Table, *, again: bool = True) -> dict[str, Any]:
    """The raw figures of a finished run; kept beside it, so that they are measured once.

    again: measure the checkpoint on every test clip; else, where nothing is kept, take what training measured at its
    end: fewer budgets, and no figures per clip.
    """
    out = run.checkpoint(folder)
    stored = work_folder(out) / "measured.json"
    if stored.is_file():
        return json.loads(stored.read_text())
    results = _results(run, folder)
    split = _split(results)
    scores = results["scores"][split]
    spread = {event["stage"]: {kind: {"variation": value["variation"], "hoyer": value["hoyer"]}
                               for kind, value in event["kinds"].items()}
              for event in read_metrics(work_folder(out) / "metrics.jsonl") if event["event"] == "magnitudes"}
    found = {"run": run.tag(run.name), "setting": run.name, "seed": run.seed, "fold": run.fold, "split": split,
             "settings": results["settings"], "channels": results["channels"],
             "original_macs": results["original_macs"], "pruned_macs": results["pruned_macs"],
             "seconds": results["seconds"], "dense": scores["dense"], "static": scores["static"], "spread": spread,
             "gated": [_short(score) for score in scores["gated"]] if results["settings"]["epochs_aap"] else []}
    if run.setting.clip:  # beside the network that it comes from, like one with fewer channels
        whole = _results(run.of_dense(), folder)
        found.update(original_macs=whole["original_macs"], static=found["static"] or found["dense"],
                     dense=whole["scores"][split]["dense"])
    if again:
        if found["gated"] and out.is_file():
            found["labels"] = load_checkpoint(out).labels
            found["gated"] = _gated(out, dataset_of(data, folder, table, run))
        write_json(stored, found)
    return found


def dataset_of(data: str, folder: Path, table: Table, run: Run) -> ClipDataset:
    """The clips that a finished run is measured on: the test part, or where there is none the validation part."""
    results = _results(run, folder)
    extra: dict[str, Any] = {}
    if data == "rendered":
        extra = {"render_dir": folder / "rendered", "clips_per_class": table.options["render_clips"]}
    splits = open_dataset(data, fold=run.fold, **extra)
    return ClipDataset(getattr(splits, _split(results)), _clip_of(run, folder), False,
                       results["settings"]["eval_windows"])


def _clip_of(run: Run, folder: Path) -> ClipSpec:
    return load_checkpoint((run.of_dense() if run.has_random_masks else run).checkpoint(folder)).clip


def _results(run: Run, folder: Path) -> dict[str, Any]:
    return json.loads((work_folder(run.checkpoint(folder)) / "results.json").read_text())


def _split(results: dict[str, Any]) -> str:
    return "test" if "test" in results["scores"] else "val"


def _short(score: dict[str, Any]) -> dict[str, Any]:
    return {k: score[k] for k in ("budget", "right_clips", "clips", "right_windows", "windows", "share")}


def _gated(checkpoint: Path, dataset: ClipDataset) -> list[dict[str, Any]]:
    """Per budget the figures over all clips, and per clip: name, label, right, windows right, share of the MACs."""
    model = model_from_checkpoint(load_checkpoint(checkpoint))
    evaluator = Evaluator(dataset, workers=0, device=torch.device("cpu"))
    targets = np.asarray(evaluator.targets)
    names = [Path(path).name for path, _ in dataset.videos.videos]
    found = []
    batches = list(evaluator.batches())
    owners = torch.cat([b.owner for b in batches]).numpy()
    with torch.inference_mode():
        for budget in BUDGETS:
            answers, shares = [], []
            for batch in batches:
                answers.append(model(batch.clip, torch.full((len(batch.clip),), budget)).softmax(1))
                shares.append(model.macs_share().expand(len(batch.clip)))
            probabilities, share = torch.cat(answers).numpy(), torch.cat(shares).numpy()
            right = probabilities.argmax(1) == targets[owners]
            votes = np.stack([probabilities[owners == i].sum(0) for i in range(len(targets))])
            clips = votes.argmax(1) == targets
            found.append({
                "budget": budget, "right_clips": int(clips.sum()), "clips": len(targets),
                "right_windows": int(right.sum()), "windows": len(right), "share": float(share.mean()),
                "per_clip": [[names[i], int(targets[i]), int(clips[i]), int(right[owners == i].sum()),
                              round(float(share[owners == i].mean()), 4)] for i in range(len(targets))]})
    return found
