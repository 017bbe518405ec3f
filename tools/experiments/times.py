"""Milliseconds beside the MACs: every operating point of some finished runs, measured in one run, by turns.

    python -m tools.experiments.times weizmann --data DIR --runs FOLDER --only dance,static25,only-bn-15 --seed 0

A point is a bundle at a budget, run as dance-run runs it, or a bundle's dense network in another runtime. Each test
window goes through all points, in an order that changes, before the next window does.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
import typer

from dance_deploy.bench.command import machine_line
from dance_deploy.bench.peers import built_library, open_session
from dance_deploy.bench.ungated import ungated_graph
from dance_deploy.bundle import Bundle, open_bundle
from dance_deploy.cli.entry import MAX_THREADS
from dance_deploy.cli.entry import run as run_app
from dance_deploy.errors import InputError
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.files import whole_file
from dance_deploy.method.checkpoint import load_checkpoint
from dance_deploy.method.training.evaluation import Evaluator
from dance_deploy.method.training.state import work_folder
from dance_deploy.runtime.runner import Runner
from tools.experiments.arguments import REPORTS, check_folder, names, table_and_data
from tools.experiments.report import share_of_original
from tools.experiments.runs import Run, dataset_of, measure_run, runs_of
from tools.experiments.table import TABLES

app = typer.Typer(add_completion=False)
WARM_UP = 3
RUNS = 2  # of a point in its turn

Point = dict[str, Any]
Milliseconds = Callable[[np.ndarray], float]


@app.command()
def main(
    table: str = typer.Argument(..., help=f"One of {', '.join(TABLES)}."),
    runs: Path = typer.Option(..., metavar="FOLDER", help="Where the finished runs are; bundles are kept there too."),
    only: str = typer.Option(..., metavar="NAMES", help="Settings, joined by commas."),
    seed: int = typer.Option(0, help="Of the runs."),
    fold: Optional[str] = typer.Option(None, help="Of the runs."),
    data: Optional[str] = typer.Option(None, metavar="DIR", help="The labelled videos, where the table needs files."),
    windows: int = typer.Option(50, min=1, help="Test windows, evenly taken from all."),
    rounds: int = typer.Option(3, min=1, help="How often each window goes through all points."),
    threads: int = typer.Option(1, min=1, max=MAX_THREADS, help="CPU threads of every point."),
    out: Path = typer.Option(REPORTS, metavar="DIR", help="Where the report is written.  [default: docs/experiments]"),
) -> None:
    """Time finished runs of a table at every budget, beside dense runtimes, and write <table>-time.md and .json."""
    chosen, source = table_and_data(table, data)
    if not names(only):
        raise InputError(f"--only names nothing; choose from {', '.join(chosen.settings)}")
    wanted = list(runs_of(chosen, names(only), [seed], [fold] if fold else []))
    check_folder("--out", out, f"{table}-time.json", f"{table}-time.md")
    for run in wanted:
        if chosen.settings[run.name].changes.get("random_masks"):
            raise InputError(f"{run.tag(run.name)}: random masks have no checkpoint, so there is nothing to time")
        if not (work_folder(run.checkpoint(runs)) / "results.json").is_file():
            raise InputError(f"{run.tag(run.name)} is not finished in {runs}; train it first, by the same command "
                             "without .times")
    points: list[Point] = []
    with ExitStack() as stack:
        for run in wanted:
            figures = measure_run(run, source, runs, chosen)
            clips = _windows(dataset_of(source, runs, chosen, run), windows)
            points += points_of(stack, _bundle(run, runs), figures, clips, threads)
        measure(points, rounds)
    found = [{k: v for k, v in point.items() if k not in ("ms", "clips_read")} for point in points]
    settings = {"table": table, "windows": len(points[0]["clips_read"]), "rounds": rounds, "threads": threads,
                "machine": machine_line()}
    with whole_file(out / f"{table}-time.json") as stream:
        json.dump({**settings, "points": found}, stream, indent=1)
    with whole_file(out / f"{table}-time.md") as stream:
        stream.write("\n".join(report_lines(settings, found)) + "\n")
    print(f"{len(found)} points; {out / (table + '-time.md')} is written", file=sys.stderr)


def _windows(dataset: Any, count: int) -> list[np.ndarray]:
    evaluator = Evaluator(dataset, workers=0, device=torch.device("cpu"))
    clips = [clip[None].numpy() for batch in evaluator.batches() for clip in batch.clip]
    return [np.ascontiguousarray(clips[i]) for i in np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]


def _bundle(run: Run, folder: Path) -> Bundle:
    path = folder / f"{run.tag(run.name)}.bundle"
    checkpoint = run.checkpoint(folder)
    if not path.is_dir() or path.stat().st_mtime < checkpoint.stat().st_mtime:
        bundle_from_checkpoint(load_checkpoint(checkpoint), path)
    return open_bundle(path)


def points_of(stack: ExitStack, bundle: Bundle, figures: dict[str, Any], clips: list[np.ndarray], threads: int
              ) -> Iterator[Point]:
    """What of one run is timed on `clips`: every budget, and its dense network elsewhere; sessions live as long as
    `stack`."""
    runner = stack.enter_context(Runner(bundle, gated=True, dense=True, threads=threads))
    common = {"run": figures["run"], "setting": figures["setting"], "clips_read": clips}
    for score in figures["gated"]:
        yield {**common, "what": "gated", "budget": score["budget"], "ms": _gated_ms(runner, score["budget"]),
               **_accuracy(score, share_of_original(figures, score["share"]))}
    score = figures["static"] or figures["dense"]
    accuracy = _accuracy(score, share_of_original(figures, 1.0))
    # a gated run's dense network has other weights than the scored one; its accuracy is that of budget 1
    accuracy = accuracy if not figures["gated"] else {**accuracy, "right_clips": None, "right_windows": None}
    for what, ms in (("without gates, our kernels", _ungated_ms(bundle, threads)),
                     ("dense, ONNX Runtime", _dense_ms(runner)), ("dense, OpenVINO", _openvino_ms(bundle, threads))):
        if ms is not None:
            yield {**common, "what": what, "budget": None, "ms": ms, **accuracy}


def _accuracy(score: dict[str, Any], share: float) -> dict[str, Any]:
    return {"macs": share, **{k: score[k] for k in ("right_clips", "clips", "right_windows", "windows")}}


def _gated_ms(runner: Runner, budget: float) -> Milliseconds:
    return lambda clip: runner.infer(clip, budget).latency_ms.total


def _dense_ms(runner: Runner) -> Milliseconds:
    return lambda clip: runner.infer_dense(clip).latency_ms.total


def _ungated_ms(bundle: Bundle, threads: int) -> Milliseconds:
    session = open_session(ungated_graph(bundle), threads, built_library())
    return lambda clip: _ms(lambda: session.run(["logits"], {"clip": clip}))


def _openvino_ms(bundle: Bundle, threads: int) -> Milliseconds | None:
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(bundle.read("dense.onnx")), "CPU", settings).create_infer_request()

    return lambda clip: _ms(lambda: request.infer({"clip": clip}))


def _ms(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def measure(points: list[Point], rounds: int) -> None:
    """Each point's `mean_ms`: of each window the median over the rounds, then the mean over the windows."""
    order = random.Random(0)
    count = len(points[0]["clips_read"])
    for point in points:
        for _ in range(WARM_UP):
            point["ms"](point["clips_read"][0])
    times: list[list[list[float]]] = [[[] for _ in range(count)] for _ in points]
    for _ in range(rounds):
        for number in range(count):
            for i in order.sample(range(len(points)), len(points)):
                clip = points[i]["clips_read"][number]
                points[i]["ms"](clip)  # its weights were driven from the caches by the others
                times[i][number] += [points[i]["ms"](clip) for _ in range(RUNS)]
    for point, of_clips in zip(points, times):
        medians = [statistics.median(t) for t in of_clips]
        point["mean_ms"] = statistics.fmean(medians)
        point["quartiles_ms"] = [float(q) for q in np.percentile(medians, [25, 75])]


def report_lines(settings: dict[str, Any], points: list[Point]) -> list[str]:
    """The report as Markdown."""
    lines = [
        f"# Time per window: {TABLES[settings['table']].title}", "",
        f"Written by `python -m tools.experiments.times {settings['table']}`: {settings['windows']} test windows, "
        f"{settings['rounds']} rounds, {settings['threads']} thread(s), float32, one window at a time, all points by "
        f"turns in one process. {settings['machine']}. Milliseconds: mean over the windows of each one's median, "
        "quartiles over the windows in brackets (windows differ in work). MACs: counted, of the original dense "
        "network, mean over all test windows. Gates and controller are in the times of *gated*; *without gates* is the "
        "network as one graph of our ops, with neither.", "",
        "| run | what | budget | MACs | clips right | windows right | ms (quartiles) |",
        "| --- | --- | --- | --- | --- | --- | --- |"]
    for p in points:
        right = ["" if p[f"right_{k}"] is None else f"{p[f'right_{k}']} of {p[k]}" for k in ("clips", "windows")]
        budget = "" if p["budget"] is None else f"{p['budget']:g}"
        low, high = p["quartiles_ms"]
        lines.append(f"| {p['run']} | {p['what']} | {budget} | {p['macs']:.3f} | {right[0]} | {right[1]} | "
                     f"{p['mean_ms']:.2f} ({low:.2f}-{high:.2f}) |")
    return lines


if __name__ == "__main__":
    run_app(app)
