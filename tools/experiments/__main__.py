"""The command: see `python -m tools.experiments --help`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Optional

import torch
import typer

from dance_deploy.cli.entry import MAX_THREADS
from dance_deploy.cli.entry import run as run_app
from dance_deploy.cli.train_text import reporter
from dance_deploy.errors import InputError
from dance_deploy.report.figure import check_can_draw
from tools.experiments.arguments import REPORTS, check_folder, names, numbers, table_and_data
from tools.experiments.report import write_report
from tools.experiments.runs import is_finished, measure_run, runs_of, train_run
from tools.experiments.table import TABLES

app = typer.Typer(add_completion=False)


@app.command()
def main(
    table: str = typer.Argument(..., help=f"One of {', '.join(TABLES)}."),
    runs: Path = typer.Option(..., metavar="FOLDER", help="Where runs are kept; what is finished there "
                             "is not repeated."),
    data: Optional[str] = typer.Option(None, metavar="DIR", help="The labelled videos, where the table needs files."),
    only: str = typer.Option("", metavar="NAMES", help="Train these settings only, joined by commas."),
    seeds: str = typer.Option("", metavar="NUMBERS", help="These seeds only, joined by commas."),
    folds: str = typer.Option("", metavar="NAMES", help="These folds only, joined by commas."),
    restart: bool = typer.Option(False, "--restart", help="Begin unfinished runs again, as after a change of their "
                                 "settings; finished ones stay."),
    report_only: bool = typer.Option(False, "--report-only", help="Train nothing; report what is finished."),
    as_trained: bool = typer.Option(False, "--as-trained", help="Report what each run measured at its end, instead of "
                                    "measuring every checkpoint once more, clip by clip."),
    threads: Optional[int] = typer.Option(None, min=1, max=MAX_THREADS, help="CPU threads.  [default: all cores]"),
    out: Path = typer.Option(REPORTS, metavar="DIR", help="Where the report is written.  [default: docs/experiments]"),
) -> None:
    """Train a table of settings, seeds and folds, measure every checkpoint and write the report."""
    if report_only and restart:
        raise InputError("--report-only trains nothing, so there is nothing to --restart; leave one of them out")
    chosen, source = table_and_data(table, data)
    wanted = list(runs_of(chosen, names(only), numbers(seeds), names(folds)))
    check_can_draw("the report")
    check_folder("--out", out, *(f"{table}.{suffix}" for suffix in ("md", "png", "jsonl")))
    if not report_only:
        check_folder("--runs", runs)
    if threads is not None:
        torch.set_num_threads(threads)
    every = list(runs_of(chosen, [], [], []))
    with reporter() as shown:
        if not report_only:
            for run in wanted:
                shown.say(f"== {run.tag(run.name)}")
                train_run(chosen, run, source, runs, shown, restart=restart)
        finished = [run for run in every if is_finished(run, runs)]
        told = shown.progress("measuring")
        measured = []
        for run in finished:
            measured.append(measure_run(run, source, runs, chosen, again=not as_trained))
            if told is not None:
                told(len(measured), len(finished))
    if not measured:
        raise InputError(f"{runs}: holds no finished run of this table; leave out --report-only")
    write_report(chosen, table, measured, out, _difficulty(runs) if source == "rendered" else {})
    print(f"{len(measured)} runs; {out / (table + '.md')} is written", file=sys.stderr)


def _difficulty(runs: Path) -> dict[str, float]:
    with open(runs / "rendered" / "manifest.csv", encoding="utf-8", newline="") as stream:
        return {Path(row["path"]).name: float(row["difficulty"]) for row in csv.DictReader(stream)}


if __name__ == "__main__":
    run_app(app)
