"""Milliseconds beside the MACs: every operating point of some finished runs, measured in one run, by turns.

    python -m tools.experiments.times weizmann --data DIR --runs FOLDER --only dance,static25,only-bn-15 --seeds 0,1

A point is a bundle at a budget, run as dance-run runs it, or a bundle's network without gates in one runtime. In its
turn a point answers one window after the other, as it would a video; the order of the points changes all the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Optional

import numpy as np
import torch
import typer

from dance_deploy.bench.command import machine_line
from dance_deploy.bench.peers import built_library, open_session
from dance_deploy.bench.ungated import ungated_graph
from dance_deploy.bundle import Bundle
from dance_deploy.cli.entry import MAX_THREADS
from dance_deploy.cli.entry import run as run_app
from dance_deploy.method.training.evaluation import Evaluator
from dance_deploy.report.figure import check_can_draw
from dance_deploy.runtime.runner import Runner
from tools.experiments.arguments import REPORTS, check_folder, names, numbers, table_and_data
from tools.experiments.report import share_of_original
from tools.experiments.runs import bundle_of, dataset_of, finished_runs, measure_run
from tools.experiments.table import TABLES
from tools.experiments.times_report import GATED, UNGATED, Point, write_times

app = typer.Typer(add_completion=False)
STREAM = 10  # windows that a point answers in its turn
LEAD = 3  # windows before those, not timed: what the others ran has driven its weights and code from the caches

Milliseconds = Callable[[np.ndarray], float]


@app.command()
def main(
    table: str = typer.Argument(..., help=f"One of {', '.join(TABLES)}."),
    runs: Path = typer.Option(..., metavar="FOLDER", help="Where the finished runs are; bundles are kept there too."),
    only: str = typer.Option(..., metavar="NAMES", help="Settings, joined by commas."),
    seeds: str = typer.Option("0", metavar="NUMBERS", help="Of the runs, joined by commas."),
    fold: Optional[str] = typer.Option(None, help="Of the runs."),
    data: Optional[str] = typer.Option(None, metavar="DIR", help="The labelled videos, where the table needs files."),
    windows: int = typer.Option(50, min=1, help="Test windows, evenly taken from all."),
    rounds: int = typer.Option(5, min=1, help="How often each point answers each window."),
    threads: int = typer.Option(1, min=1, max=MAX_THREADS, help="CPU threads of every point."),
    out: Path = typer.Option(REPORTS, metavar="DIR", help="Where the report is written.  [default: docs/experiments]"),
) -> None:
    """Time finished runs of a table at every budget, beside other runtimes; writes <table>-time.md, .png and .json."""
    chosen, source = table_and_data(table, data)
    check_can_draw("the report")
    check_folder("--out", out, *(f"{table}-time.{suffix}" for suffix in ("md", "png", "json")))
    wanted = finished_runs(chosen, names(only), numbers(seeds), [fold] if fold else [], runs)
    timed: list[tuple[Point, Milliseconds, list[np.ndarray]]] = []
    with ExitStack() as stack:
        for run in wanted:
            figures = measure_run(run, source, runs, chosen)
            clips = _windows(dataset_of(source, runs, chosen, run), windows)
            timed += [(*point, clips) for point in points_of(stack, bundle_of(run, runs), figures, threads)]
        measure(timed, rounds)
    write_times(out, table, {"windows": len(timed[0][2]), "rounds": rounds, "threads": threads, "stream": STREAM,
                             "machine": machine_line()}, [point for point, _, _ in timed])
    print(f"{len(timed)} points; {out / (table + '-time.md')} is written", file=sys.stderr)


def _windows(dataset: Any, count: int) -> list[np.ndarray]:
    evaluator = Evaluator(dataset, workers=0, device=torch.device("cpu"))
    clips = [clip[None].numpy() for batch in evaluator.batches() for clip in batch.clip]
    return [np.ascontiguousarray(clips[i]) for i in np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]


def points_of(stack: ExitStack, bundle: Bundle, figures: dict[str, Any], threads: int
              ) -> Iterator[tuple[Point, Milliseconds]]:
    """What of one run is timed, and how: every budget, and its network without gates in each runtime, with the accuracy
    that it had before gates were trained (time depends on its shapes alone). Sessions live as long as `stack`."""
    runner = stack.enter_context(Runner(bundle, gated=True, dense=True, threads=threads))
    for score in figures["gated"]:
        yield (_point(figures, GATED, score, share_of_original(figures, score["share"]), score["budget"]),
               _gated_ms(runner, score["budget"]))
    alone = figures["static"] or figures["dense"]
    for what, ms in ((UNGATED, _ungated_ms(bundle, threads)), ("ONNX Runtime", _dense_ms(runner)),
                     ("OpenVINO", _openvino_ms(bundle, threads))):
        if ms is not None:
            yield _point(figures, what, alone, share_of_original(figures, 1.0)), ms


def _point(figures: dict[str, Any], what: str, score: dict[str, Any], macs: float, budget: float | None = None
           ) -> Point:
    return Point(figures["setting"], figures["seed"], what, budget, macs,
                 **{k: score[k] for k in ("right_clips", "clips", "right_windows", "windows")})


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


def measure(timed: Sequence[tuple[Point, Milliseconds, list[np.ndarray]]], rounds: int) -> None:
    """Fill in each point's `ms`: of each window the median over the rounds."""
    order = Random(0)
    count = len(timed[0][2])
    found: list[list[list[float]]] = [[[] for _ in range(count)] for _ in timed]
    for _ in range(rounds):
        for start in range(0, count, STREAM):
            for i in order.sample(range(len(timed)), len(timed)):
                _, ms, clips = timed[i]
                for number in range(start - LEAD, start):
                    ms(clips[number % count])
                for number in range(start, min(start + STREAM, count)):
                    found[i][number].append(ms(clips[number]))
    for (point, _, _), of_windows in zip(timed, found):
        point.ms = [float(np.median(one)) for one in of_windows]


if __name__ == "__main__":
    run_app(app)
