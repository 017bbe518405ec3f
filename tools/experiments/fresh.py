"""Accuracy on clips rendered anew: many more than a table's test part has, and none that settings were chosen by.

    python -m tools.experiments.fresh rendered-large --runs FOLDER --only static25,only-bn-15 --seeds 0,1,2

A table's own test clips are few: one window in 240 is 0.4 points, and differences between settings are no larger.
Bundles answer as dance-run has them answer; networks without gates as one graph of our kernels; the dense network, the
teacher, and those with random masks, of which there is no bundle, in PyTorch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
import typer

from dance_deploy.bench.peers import built_library, open_session
from dance_deploy.bench.ungated import ungated_graph
from dance_deploy.cli.entry import run as run_app
from dance_deploy.cli.train_text import reporter
from dance_deploy.data.dataset import ClipDataset
from dance_deploy.data.labelled import LabelledVideos
from dance_deploy.data.readers import open_dataset
from dance_deploy.data.rendered import read_difficulties
from dance_deploy.errors import InputError
from dance_deploy.method.checkpoint import load_tensors
from dance_deploy.method.training.evaluation import Evaluator
from dance_deploy.method.training.outcome import write_json
from dance_deploy.method.training.state import work_folder
from dance_deploy.models import build
from dance_deploy.report.figure import check_can_draw
from dance_deploy.runtime.runner import Runner, scores_from_logits
from tools.experiments.arguments import REPORTS, check_folder, names, numbers, table_and_data
from tools.experiments.fresh_report import write_fresh
from tools.experiments.fresh_rows import ALONE, DENSE, Answers
from tools.experiments.fresh_times import read_times
from tools.experiments.report import share_of_original
from tools.experiments.runs import Run, bundle_of, dataset_of, finished_runs, measure_run, random_network
from tools.experiments.table import TABLES
from tools.experiments.times_report import GATED

app = typer.Typer(add_completion=False)
RENDER_SEED = 1  # the tables' own clips have 0

OfOne = Callable[[np.ndarray], tuple[np.ndarray, float]]
OfMany = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Point(NamedTuple):
    """What answers: as in Answers; answer: clips [N, 3, T, H, W] -> logits [N, K], MACs of each as a share of the
    original ones."""

    setting: str
    what: str
    budget: float | None
    answer: OfMany


@app.command()
def main(
    table: str = typer.Argument(..., help=f"One of {', '.join(name for name, t in TABLES.items() if t.data)}."),
    runs: Path = typer.Option(..., metavar="FOLDER", help="Where the finished runs are; bundles, the new clips "
                              "and what each run answers to them are kept there too."),
    only: str = typer.Option(..., metavar="NAMES", help="Settings, joined by commas."),
    seeds: str = typer.Option("0", metavar="NUMBERS", help="Of the runs, joined by commas."),
    clips: int = typer.Option(60, min=2, max=10_000, help="New clips of each class."),
    times: Optional[Path] = typer.Option(None, metavar="FILE", help="The <table>-time.json of tools.experiments.times: "
                                         "compares at equal milliseconds too."),
    out: Path = typer.Option(REPORTS, metavar="DIR", help="Where the report is written.  [default: docs/experiments]"),
) -> None:
    """Measure finished runs of a rendered table on new clips; writes <table>-fresh.md, .png and .json."""
    if table in TABLES and TABLES[table].data is None:
        raise InputError(f"the clips of table '{table}' are files; only rendered ones can be made anew")
    chosen, source = table_and_data(table, None)
    timed = read_times(times, table) if times else None
    check_can_draw("the report")
    check_folder("--out", out, *(f"{table}-fresh.{suffix}" for suffix in ("md", "png", "json")))
    wanted = finished_runs(chosen, names(only), numbers(seeds), [], runs, bundled=False)
    folder = runs / f"rendered-fresh-{clips}"
    figures = [measure_run(run, source, runs, chosen, again=False) for run in wanted]
    found: list[Answers] = []
    seen: set[int] = set()  # seeds, each of which has one dense network
    with reporter() as shown:
        data = open_dataset("rendered", render_dir=folder, clips_per_class=clips, seed=RENDER_SEED,
                            progress=shown.progress("rendering"))
        videos = LabelledVideos(data.labels, data.train.videos + data.val.videos + data.test.videos)
        told = shown.progress("measuring")
        for number, run in enumerate(wanted):
            own = dataset_of(source, runs, chosen, run)
            dataset = ClipDataset(videos, own.spec, False, own.windows)
            found += _kept(work_folder(run.checkpoint(runs)) / f"fresh-{clips}.json",
                           partial(_answers_of_random if run.has_random_masks else _answers_of_run,
                                   run, runs, figures[number], dataset))
            if not run.setting.clip and run.seed not in seen:  # its clips are those of the dense network
                seen.add(run.seed)
                found += _kept(run.dense(runs).parent / f"dense-fresh-{clips}.json",
                               partial(_answers_of_dense, run, runs, chosen.arch, dataset))
            if told is not None:
                told(number + 1, len(wanted))
    difficulty = read_difficulties(folder)
    write_fresh(out, table, found, [difficulty[path] for path, _ in videos.videos], timed)
    print(f"{len(found)} points; {out / (table + '-fresh.md')} is written", file=sys.stderr)


def _kept(stored: Path, measure: Callable[[], list[Answers]]) -> list[Answers]:
    if not stored.is_file():
        write_json(stored, [asdict(one) for one in measure()])
    return [Answers(**one) for one in json.loads(stored.read_text())]


def _answers_of_run(run: Run, folder: Path, figures: dict[str, Any], dataset: ClipDataset) -> list[Answers]:
    """Of each budget where gates were trained, else of the network without gates."""
    bundle = bundle_of(run, folder)
    if not figures["gated"]:
        session = open_session(ungated_graph(bundle), 1, built_library())
        macs = share_of_original(figures, 1.0)

        def answer(clip: np.ndarray) -> tuple[np.ndarray, float]:
            return session.run(["logits"], {"clip": clip})[0][0], macs

        return _answers([Point(run.name, ALONE, None, _one_by_one(answer))], run.seed, dataset)
    with Runner(bundle, threads=1) as runner:
        return _answers([Point(run.name, GATED, score["budget"],
                               _one_by_one(partial(_gated_answer, runner, score["budget"], figures["original_macs"])))
                         for score in figures["gated"]], run.seed, dataset)


def _answers_of_random(run: Run, folder: Path, figures: dict[str, Any], dataset: ClipDataset) -> list[Answers]:
    network = random_network(run, folder)
    torch.manual_seed(run.seed)  # of the masks

    def answer(budget: float, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits = network(torch.from_numpy(clips), torch.full((len(clips),), budget)).numpy()
            return logits, share_of_original(figures, 1.0) * network.macs_share().numpy()

    return _answers([Point(run.name, GATED, score["budget"], partial(answer, score["budget"]))
                     for score in figures["gated"]], run.seed, dataset)


def _one_by_one(answer: OfOne) -> OfMany:
    def answers(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [answer(np.ascontiguousarray(clip[None])) for clip in clips]
        return np.stack([logits for logits, _ in found]), np.array([share for _, share in found])

    return answers


def _gated_answer(runner: Runner, budget: float, original_macs: int, clip: np.ndarray) -> tuple[np.ndarray, float]:
    result = runner.infer(clip, budget)
    return result.logits, result.macs / original_macs


def _answers_of_dense(run: Run, folder: Path, arch: str, dataset: ClipDataset) -> list[Answers]:
    network = build(arch, len(dataset.videos.labels))
    network.load_state_dict(load_tensors(run.dense(folder))["state_dict"])
    network.eval()

    def answer(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            return network(torch.from_numpy(clips)).numpy(), np.ones(len(clips))

    return _answers([Point(run.dense_name, DENSE, None, answer)], run.seed, dataset)


def _answers(points: Sequence[Point], seed: int, dataset: ClipDataset) -> list[Answers]:
    """What each point answers to every window; a clip is right by the mean over its windows."""
    evaluator = Evaluator(dataset, workers=0, device=torch.device("cpu"))
    targets = np.asarray(evaluator.targets)
    votes = np.zeros((len(points), len(targets), len(dataset.videos.labels)))
    right = np.zeros((len(points), len(targets)), np.int64)
    shares = np.zeros((len(points), len(targets)))
    for batch in evaluator.batches():
        for number, point in enumerate(points):
            for owner, logits, share in zip(batch.owner.tolist(), *point.answer(batch.clip.numpy())):
                votes[number, owner] += scores_from_logits(logits)
                right[number, owner] += int(logits.argmax() == targets[owner])
                shares[number, owner] += share / dataset.windows
    return [Answers(point.setting, seed, point.what, point.budget, dataset.windows, right[i].tolist(),
                    (votes[i].argmax(1) == targets).astype(int).tolist(), shares[i].round(5).tolist())
            for i, point in enumerate(points)]


if __name__ == "__main__":
    run_app(app)
