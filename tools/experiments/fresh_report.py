"""The report of accuracy on new clips: Markdown, a plot, and the raw figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dance_deploy.files import whole_file
from dance_deploy.power.intervals import mean_interval
from tools.experiments.report import draw_accuracy, rank_correlation
from tools.experiments.table import COMPARISONS, TABLES
from tools.experiments.times_report import GATED

DENSE, ALONE = "dense", "without gates"


@dataclass(frozen=True)
class Answers:
    """What one operating point of one run answered. what: DENSE (the teacher), ALONE or GATED; of each clip: how many
    of its `windows` were right, whether it was (1 or 0), and its mean share of the original MACs."""

    setting: str
    seed: int
    what: str
    budget: float | None
    windows: int
    right_windows: list[int]
    right_clip: list[int]
    shares: list[float]


@dataclass(frozen=True)
class Row:
    """An operating point over its seeds; all [seeds, clips of the data]: windows and clips
    right, in percent, and shares of the original MACs."""

    setting: str
    what: str
    budget: float | None
    seeds: tuple[int, ...]
    windows: np.ndarray
    clips: np.ndarray
    shares: np.ndarray

    @property
    def macs(self) -> float:
        """Mean share of the original MACs."""
        return float(self.shares.mean())

    @property
    def name(self) -> str:
        """For a table's cell."""
        return f"`{self.setting}`" + ("" if self.budget is None else f" at budget {self.budget:g}")


def write_fresh(folder: Path, table: str, answers: Sequence[Answers], difficulty: Sequence[float]) -> None:
    """Write <folder>/<table>-fresh.json, .md and .png; difficulty: of each clip."""
    with whole_file(folder / f"{table}-fresh.json") as stream:
        json.dump({"table": table, "difficulty": list(difficulty), "points": [asdict(one) for one in answers]}, stream)
    rows = rows_of(answers)
    with whole_file(folder / f"{table}-fresh.md") as stream:
        stream.write("\n".join([*_head(table, rows), *_main_table(rows, difficulty), *_against_alone(rows),
                                *_side_by_side(rows), "",
                                f"![accuracy over MACs on new clips]({table}-fresh.png)", ""]))
    _plot(rows, TABLES[table].title, folder / f"{table}-fresh.png")


def rows_of(answers: Sequence[Answers]) -> list[Row]:
    """The points of each setting and budget as one row, in the points' order, dense networks first."""
    groups: dict[tuple[str, str, float | None], list[Answers]] = {}
    for one in sorted(answers, key=lambda one: one.what != DENSE):
        groups.setdefault((one.setting, one.what, one.budget), []).append(one)
    for of in groups.values():
        of.sort(key=lambda one: one.seed)
    return [Row(setting, what, budget, tuple(one.seed for one in of),
                np.array([100.0 * np.array(one.right_windows) / one.windows for one in of]),
                100.0 * np.array([one.right_clip for one in of]), np.array([one.shares for one in of]))
            for (setting, what, budget), of in groups.items()]


def _head(table: str, rows: Sequence[Row]) -> list[str]:
    return [f"# On new clips: {TABLES[table].title}", "",
            f"Written by `python -m tools.experiments.fresh {table}`: {rows[0].windows.shape[1]} clips rendered anew, "
            "easy and hard ones alike, by which nothing was trained or tuned. Means over the runs of each row, "
            "in brackets the lowest and highest. MACs are counted from the masks, controller included, as a share of "
            "the original dense network's; they are not times. Bundles answer as `dance-run` has them answer."]


def _main_table(rows: Sequence[Row], difficulty: Sequence[float]) -> list[str]:
    lines = ["", "The last column: rank correlation (Spearman) of the clips' share of the MACs with their difficulty.",
             "", "| setting | runs | budget | MACs | clips right | windows right | windows, points to dense (95 %) | "
             "share and difficulty |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    dense = [row for row in rows if row.what == DENSE]
    for row in rows:
        name = "dense network (the teacher)" if row.what == DENSE else row.setting
        budget = "" if row.budget is None else f"{row.budget:g}"
        against = "" if row.what == DENSE or not dense or not set(row.seeds) <= set(dense[0].seeds) else _points(
            row, dense[0])
        follows = "" if row.what != GATED else ", ".join(
            f"{rank_correlation(shares.tolist(), difficulty):+.2f}" for shares in row.shares)
        lines.append(f"| {name} | {len(row.seeds)} | {budget} | {row.macs:.3f} | {_mean(row.clips)} | "
                     f"{_mean(row.windows)} | {against} | {follows} |")
    return lines


def _mean(percent: np.ndarray) -> str:
    of_seeds = percent.mean(1)
    ends = f" ({of_seeds.min():.1f}-{of_seeds.max():.1f})" if len(of_seeds) > 1 else ""
    return f"{of_seeds.mean():.1f} %{ends}"


def _points(row: Row, other: Row) -> str:
    """Difference in windows with the same seeds and its interval over the clips, which both answered."""
    of_clips = (row.windows - other.windows[[other.seeds.index(seed) for seed in row.seeds]]).mean(0)
    found = mean_interval(of_clips)
    return f"{found.estimate:+.2f}" + (f" ({found.low:+.2f} to {found.high:+.2f})" if found.finite else "")


def _against_alone(rows: Sequence[Row]) -> list[str]:
    """Each network without gates beside the point with gates for no more MACs that is chosen by half of the clips and
    measured on the other half, and the other way round."""
    lines = []
    for alone in [row for row in rows if row.what == ALONE]:
        gated = [_of_seeds(row, alone.seeds) for row in rows
                 if row.what == GATED and set(alone.seeds) <= set(row.seeds)]
        candidates = [row for row in gated if row.macs <= alone.macs]
        if not candidates:
            lines.append(f"| {alone.name} ({len(alone.seeds)}) | {_cells(alone)} | none |  |  |  |  |  |")
            continue
        even = np.arange(alone.windows.shape[1]) % 2 == 0
        by_even, by_odd = (max(candidates, key=lambda row: (row.windows[:, half].mean(), -row.macs))
                           for half in (even, ~even))
        best = replace(by_odd, **{of: np.where(even, getattr(by_odd, of), getattr(by_even, of))
                                  for of in ("windows", "clips", "shares")})
        name = by_even.name if by_even is by_odd else f"{by_even.name}, {by_odd.name}"
        lines.append(f"| {alone.name} ({len(alone.seeds)}) | {_cells(alone)} | {name} | {_cells(best)} | "
                     f"{_points(best, alone)} | "
                     + ", ".join(f"{d:+.1f}" for d in (best.windows - alone.windows).mean(1)) + " |")
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
    points = {(row.setting, row.budget): row for row in rows if row.what == GATED}
    lines = []
    for what, name, without in COMPARISONS:
        found = [_same_seeds(points[name, budget], points[without, budget])
                 for setting, budget in points if setting == name and (without, budget) in points]
        pairs = [pair for pair in found if pair]
        lines += [_difference(what, f"{one.budget:g}", one, other) for one, other in pairs]
        if len(pairs) > 1 and len({one.seeds for one, _ in pairs}) == 1:
            lines.append(_difference(what, f"mean of {len(pairs)}", *map(_mean_of, zip(*pairs))))
    return lines and [
        "", "## Settings side by side", "",
        "Windows right with what is named less those without it, at the same budget and with the same seeds; the "
        "interval is over clips, as above.", "",
        "| what differs | budget | MACs | points of windows (95 %) | by seed |", "| --- | --- | --- | --- | --- |",
        *lines]


def _difference(what: str, budget: str, one: Row, other: Row) -> str:
    by_seed = ", ".join(f"{d:+.1f}" for d in (one.windows - other.windows).mean(1))
    return f"| {what} | {budget} | {one.macs:.3f}, {other.macs:.3f} | {_points(one, other)} | {by_seed} |"


def _mean_of(rows: Sequence[Row]) -> Row:
    return replace(rows[0], **{of: np.mean([getattr(row, of) for row in rows], axis=0)
                               for of in ("windows", "clips", "shares")})


def _same_seeds(one: Row, other: Row) -> tuple[Row, Row] | None:
    seeds = [seed for seed in one.seeds if seed in other.seeds]
    return (_of_seeds(one, seeds), _of_seeds(other, seeds)) if seeds else None


def _of_seeds(row: Row, seeds: Sequence[int]) -> Row:
    at = [row.seeds.index(seed) for seed in seeds]
    return replace(row, seeds=tuple(seeds), windows=row.windows[at], clips=row.clips[at], shares=row.shares[at])


def _cells(row: Row) -> str:
    return f"{row.macs:.3f} | {row.clips.mean():.1f} % | {row.windows.mean():.1f} %"


def _plot(rows: Sequence[Row], title: str, path: Path) -> None:
    dense = next(((row.clips.mean(), row.windows.mean()) for row in rows if row.what == DENSE), None)
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row.what != DENSE:
            lines.setdefault(f"{row.setting} ({len(row.seeds)})", []).append(
                (row.macs, row.clips.mean(), row.windows.mean()))
    draw_accuracy(title, dense, lines, path)
