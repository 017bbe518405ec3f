"""The report of measured times: Markdown, a plot, and the raw figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dance_deploy.files import whole_file
from dance_deploy.report.figure import new_figure, save_figure
from tools.experiments.table import TABLES

GATED = "gated"
UNGATED = "our kernels"


@dataclass
class Point:
    """One operating point of one run. what: GATED, or the runtime that ran the network without gates; macs: counted,
    of the original dense network's; ms: of each timed window."""

    setting: str
    seed: int
    what: str
    budget: float | None
    macs: float
    right_clips: int
    clips: int
    right_windows: int
    windows: int
    ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One operating point over its seeds: means; right: of clips and windows, in percent."""

    setting: str
    seeds: tuple[int, ...]
    what: str
    budget: float | None
    macs: float
    right_clips: float
    clips: int
    right: tuple[float, float]
    ms: float
    quartiles: tuple[float, float]


def write_times(folder: Path, table: str, settings: dict[str, Any], points: Sequence[Point]) -> None:
    """Write <folder>/<table>-time.json, .md and .png."""
    with whole_file(folder / f"{table}-time.json") as stream:
        json.dump({"table": table, **settings, "points": [asdict(point) for point in points]}, stream, indent=1)
    rows = rows_of(points)
    with whole_file(folder / f"{table}-time.md") as stream:
        stream.write("\n".join([*_head(table, settings), *_main_table(rows), *_equal_times(points), "",
                                f"![accuracy over time]({table}-time.png)"]) + "\n")
    _plot(rows, TABLES[table].title, folder / f"{table}-time.png")


def rows_of(points: Sequence[Point]) -> list[Row]:
    """The points of each setting, runtime and budget as one row, in the points' order."""
    groups: dict[tuple[str, str, float | None], list[Point]] = {}
    for point in points:
        groups.setdefault((point.setting, point.what, point.budget), []).append(point)
    found = []
    for (setting, what, budget), of in groups.items():
        ms = np.concatenate([point.ms for point in of])
        low, high = np.percentile(ms, [25, 75])
        right = tuple(float(np.mean([100.0 * r / n for r, n in pairs])) for pairs in (
            [(p.right_clips, p.clips) for p in of], [(p.right_windows, p.windows) for p in of]))
        found.append(Row(setting, tuple(sorted(p.seed for p in of)), what, budget, float(np.mean([p.macs for p in of])),
                         float(np.mean([p.right_clips for p in of])), of[0].clips, (right[0], right[1]),
                         float(ms.mean()), (float(low), float(high))))
    return found


def _head(table: str, settings: dict[str, Any]) -> list[str]:
    return [
        f"# Time per window: {TABLES[table].title}", "",
        f"Written by `python -m tools.experiments.times {table}`: {settings['windows']} test windows, "
        f"{settings['rounds']} rounds, {settings['threads']} thread(s), float32, one window at a time, all points by "
        f"turns of {settings['stream']} windows in one process. {settings['machine']}. Milliseconds: mean over the "
        "windows (and seeds) of each one's median, quartiles over them in brackets (windows differ in work). MACs: "
        "counted, of the original dense network, mean over all test windows. Gates and controller are in the times of "
        "*gated*; all others are the same network with neither, as one graph, with the accuracy that it had before "
        "gates were trained."]


def _main_table(rows: Sequence[Row]) -> list[str]:
    lines = ["", "| setting | runs | what | budget | MACs | clips right | windows right | ms (quartiles) |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        budget = "" if row.budget is None else f"{row.budget:g}"
        low, high = row.quartiles
        lines.append(f"| {row.setting} | {len(row.seeds)} | {row.what} | {budget} | {_accuracy(row)} | "
                     f"{row.ms:.2f} ({low:.2f}-{high:.2f}) |")
    return lines


def _accuracy(row: Row) -> str:
    return f"{row.macs:.3f} | {row.right_clips:.1f} of {row.clips} | {row.right[1]:.1f} %"


def _equal_times(points: Sequence[Point]) -> list[str]:
    """What gates reach in no more time than each network without them, in each runtime, over the seeds of that one."""
    lines = []
    for alone in rows_of([point for point in points if point.what != GATED]):
        gated = rows_of([point for point in points if point.what == GATED and point.seed in alone.seeds])
        best = max((row for row in gated if row.ms <= alone.ms and row.seeds == alone.seeds),
                   key=lambda row: (row.right[1], -row.ms), default=None)
        cells = "none |  |  |  | " if best is None else (
            f"`{best.setting}` at budget {best.budget:g} | {best.ms:.2f} | {_accuracy(best)}")
        lines.append(f"| `{alone.setting}`, {alone.what} | {alone.ms:.2f} | {_accuracy(alone)} | {cells} |")
    return lines and [
        "", "## Gates and networks without them at equal times", "",
        "Each network without gates, beside the best point with gates, by windows, that takes no more time with the "
        "same seeds.", "",
        "| without gates | ms | MACs | clips | windows | with gates | ms | MACs | clips | windows |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", *lines]


def _plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Accuracy over time: a line per gated setting, a mark per network without gates, a kind of mark per runtime."""
    figure = new_figure(12.5, 4.6, "the report")
    from matplotlib import colormaps

    axes = figure.subplots(1, 2, sharex=True)
    marks = dict(zip(dict.fromkeys(row.what for row in rows if row.what != GATED), ("s", "^", "D", "v")))
    settings = list(dict.fromkeys(row.setting for row in rows))
    for axis, of, number in zip(axes, ("clips", "windows"), range(2)):
        for i, setting in enumerate(settings):
            color = colormaps["tab20"](2 * i % 20 + i // 10 % 2)  # the ten strong colours first
            line = [(row.ms, row.right[number]) for row in rows if row.setting == setting and row.what == GATED]
            if line:
                axis.plot(*zip(*line), color=color, marker="o", markersize=4, label=setting)
            for row in rows:
                if row.setting == setting and row.what in marks:
                    axis.plot(row.ms, row.right[number], color=color, marker=marks[row.what], linestyle="none",
                              label=None if line or row.what != UNGATED else setting)
        for what, mark in marks.items():
            axis.plot([], [], color="black", marker=mark, linestyle="none", label=f"without gates, {what}")
        axis.set_xscale("log")
        ticks = [t for t in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if t >= 0.5 * min(row.ms for row in rows)]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_xlim(0.8 * min(row.ms for row in rows), 1.25 * max(row.ms for row in rows))
        axis.set_xlabel("milliseconds per window")
        axis.set_ylabel(f"{of} right, %")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.suptitle(title)
    save_figure(figure, path)
