"""The report of accuracy on new clips: Markdown, a plot, and the raw figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from dance_deploy.files import whole_file
from tools.experiments.fresh_rows import (
    ALONE,
    DENSE,
    Answers,
    Row,
    by_seed,
    cells,
    of_common_seeds,
    of_seeds,
    points_between,
    rows_of,
)
from tools.experiments.fresh_times import Times, equal_times
from tools.experiments.report import draw_accuracy, rank_correlation
from tools.experiments.table import COMPARISONS, TABLES
from tools.experiments.times_report import GATED


def write_fresh(folder: Path, table: str, answers: Sequence[Answers], difficulty: Sequence[float],
                times: Times | None = None) -> None:
    """Write <folder>/<table>-fresh.json, .md and .png; difficulty: of each clip; times: to compare at equal ones."""
    with whole_file(folder / f"{table}-fresh.json") as stream:
        json.dump({"table": table, "difficulty": list(difficulty), "points": [asdict(one) for one in answers]}, stream)
    rows = rows_of(answers)
    with whole_file(folder / f"{table}-fresh.md") as stream:
        stream.write("\n".join([*_head(table, rows), *_main_table(rows, difficulty), *_against_alone(rows),
                                *(equal_times(rows, times) if times else []), *_side_by_side(rows), "",
                                f"![accuracy over MACs on new clips]({table}-fresh.png)", ""]))
    _plot(rows, TABLES[table].title, folder / f"{table}-fresh.png")


def _head(table: str, rows: Sequence[Row]) -> list[str]:
    return [f"# On new clips: {TABLES[table].title}", "",
            f"Written by `python -m tools.experiments.fresh {table}`: {rows[0].windows.shape[1]} clips rendered anew, "
            "easy and hard ones alike, by which nothing was trained or tuned. Means over the runs of each row, "
            "in brackets the lowest and highest. MACs are counted from the masks, controller included, as a share of "
            "the original dense network's; they are not times. Bundles answer as `dance-run` has them answer." +
            (" Rows of other runs do not compare, as seeds differ by more than settings; the plot is of the seeds that "
             "all have." if len({row.seeds for row in rows}) > 1 else "")]


def _main_table(rows: Sequence[Row], difficulty: Sequence[float]) -> list[str]:
    lines = ["", "The last column: rank correlation (Spearman) of the clips' share of the MACs with their difficulty.",
             "", "| setting | runs | budget | MACs | clips right | windows right | windows, points to dense (95 %) | "
             "share and difficulty |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    dense = [row for row in rows if row.what == DENSE]
    for row in rows:
        name = "dense network (the teacher)" if row.what == DENSE else row.setting
        budget = "" if row.budget is None else f"{row.budget:g}"
        alike = row.what != DENSE and dense and set(row.seeds) <= set(dense[0].seeds)
        against = points_between(row, dense[0]) if alike else ""
        follows = "" if row.what != GATED else ", ".join(
            f"{rank_correlation(shares.tolist(), difficulty):+.2f}" for shares in row.shares)
        lines.append(f"| {name} | {len(row.seeds)} | {budget} | {row.macs:.3f} | {_mean(row.clips)} | "
                     f"{_mean(row.windows)} | {against} | {follows} |")
    return lines


def _mean(percent: np.ndarray) -> str:
    of_seeds = percent.mean(1)
    ends = f" ({of_seeds.min():.1f}-{of_seeds.max():.1f})" if len(of_seeds) > 1 else ""
    return f"{of_seeds.mean():.1f} %{ends}"


def _against_alone(rows: Sequence[Row]) -> list[str]:
    """Each network without gates beside the point with gates for no more MACs that is chosen by half of the clips and
    measured on the other half, and the other way round."""
    lines = []
    for alone in [row for row in rows if row.what == ALONE]:
        gated = [of_seeds(row, alone.seeds) for row in rows
                 if row.what == GATED and set(alone.seeds) <= set(row.seeds)]
        candidates = [row for row in gated if row.macs <= alone.macs]
        if not candidates:
            lines.append(f"| {alone.name} ({len(alone.seeds)}) | {cells(alone)} | none |  |  |  |  |  |")
            continue
        even = np.arange(alone.windows.shape[1]) % 2 == 0
        by_even, by_odd = (max(candidates, key=lambda row: (row.windows[:, half].mean(), -row.macs))
                           for half in (even, ~even))
        best = replace(by_odd, **{of: np.where(even, getattr(by_odd, of), getattr(by_even, of))
                                  for of in ("windows", "clips", "shares")})
        name = by_even.name if by_even is by_odd else f"{by_even.name}, {by_odd.name}"
        lines.append(f"| {alone.name} ({len(alone.seeds)}) | {cells(alone)} | {name} | {cells(best)} | "
                     f"{points_between(best, alone)} | {by_seed(best, alone)} |")
    return lines and [
        "", "## Networks without gates, and with gates for no more MACs", "",
        "Each network without gates (runs in brackets) beside the point with gates, for no more MACs and with the same "
        "seeds, that answers most windows right: of every second clip, measured on the others, and the other way "
        "round (two points where these differ). The interval is over clips, networks of other seeds would differ by "
        "more: the last column has each seed's difference.", "",
        "| without gates | MACs | clips | windows | with gates | MACs | clips | windows | points of windows (95 %) "
        "| by seed |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", *lines]


def _side_by_side(rows: Sequence[Row]) -> list[str]:
    """Settings that differ in one thing, at the same budgets, with the seeds that both ran with."""
    points = {(row.setting, row.budget): row for row in rows if row.what != DENSE}
    lines = []
    for what, name, without in COMPARISONS:
        found = [_same_seeds(points[name, budget], points[without, budget])
                 for setting, budget in points if setting == name and (without, budget) in points]
        pairs = [pair for pair in found if pair]
        lines += [_difference(what, "" if one.budget is None else f"{one.budget:g}", one, other)
                  for one, other in pairs]
        if len(pairs) > 1 and len({one.seeds for one, _ in pairs}) == 1:
            lines.append(_difference(what, f"mean of {len(pairs)}", *map(_mean_of, zip(*pairs))))
    return lines and [
        "", "## Settings side by side", "",
        "Windows right with what is named less those without it, at the same budget and with the same seeds; the "
        "interval is over clips, as above.", "",
        "| what differs | budget | MACs | points of windows (95 %) | by seed |", "| --- | --- | --- | --- | --- |",
        *lines]


def _difference(what: str, budget: str, one: Row, other: Row) -> str:
    return (f"| {what} | {budget} | {one.macs:.3f}, {other.macs:.3f} | {points_between(one, other)} | "
            f"{by_seed(one, other)} |")


def _mean_of(rows: Sequence[Row]) -> Row:
    return replace(rows[0], **{of: np.mean([getattr(row, of) for row in rows], axis=0)
                               for of in ("windows", "clips", "shares")})


def _same_seeds(one: Row, other: Row) -> tuple[Row, Row] | None:
    seeds = [seed for seed in one.seeds if seed in other.seeds]
    return (of_seeds(one, seeds), of_seeds(other, seeds)) if seeds else None


def _plot(rows: Sequence[Row], title: str, path: Path) -> None:
    rows = of_common_seeds(rows)
    dense = next(((row.clips.mean(), row.windows.mean()) for row in rows if row.what == DENSE), None)
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row.what != DENSE:
            lines.setdefault(f"{row.setting} ({len(row.seeds)})", []).append(
                (row.macs, row.clips.mean(), row.windows.mean()))
    draw_accuracy(title, dense, lines, path)
