"""Accuracy on new clips beside measured time: points with gates and networks without them at equal milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dance_deploy.errors import InputError
from tools.experiments.fresh_rows import ALONE, Row, by_seed, cells, of_seeds, points_between
from tools.experiments.times_report import GATED, Point

Timed = dict[tuple[str, str, float | None], dict[int, Point]]  # by setting, what and budget, then by seed


class Times(NamedTuple):
    """What tools.experiments.times measured; name: of the report beside its figures, for a link."""

    name: str
    points: list[Point]


def read_times(path: Path, table: str) -> Times:
    """The figures of `table`'s times; raises InputError where `path` does not hold them."""
    try:
        found = json.loads(path.read_text())
        if found["table"] != table:
            raise InputError(f"--times '{path}' has the times of table '{found['table']}', not of '{table}'")
        return Times(path.stem, [Point(**point) for point in found["points"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--times '{path}' cannot be read ({type(error).__name__}: {error}); expected a "
                         "<table>-time.json that tools.experiments.times wrote") from error


def equal_times(rows: Sequence[Row], times: Times) -> list[str]:
    """Each point with gates beside the networks without gates next in time, in each runtime that these were timed in;
    between two of them their accuracy is taken in proportion. Lines of the report, none where nothing can be compared.
    """
    timed: Timed = {}
    for point in times.points:
        timed.setdefault((point.setting, point.what, point.budget), {})[point.seed] = point
    lines = []
    for runtime in dict.fromkeys(point.what for point in times.points if point.what != GATED):
        for row in rows:
            if row.what == GATED:
                lines += _line(row, rows, timed, runtime)
    return lines and [
        "", "## Equal times", "",
        "Each point with gates beside networks without them at the same milliseconds per window, measured in one run "
        f"on windows of the table's own ([{times.name}]({times.name}.md)). Between two networks without gates next in "
        "time, named in the order of their times, accuracy is taken in proportion: a network of that time could be "
        "trained. A point that is slower or quicker than all of them stands beside the slowest or quickest itself. "
        "Interval and seeds as above.", "",
        "| with gates | MACs | clips | windows | ms | without gates | ms | MACs | clips | windows | points of windows "
        "(95 %) | by seed |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", *lines]


def _line(gated: Row, rows: Sequence[Row], timed: Timed, runtime: str) -> list[str]:
    ms = _ms(timed, gated, GATED)
    alone = [of_seeds(row, gated.seeds) for row in rows if row.what == ALONE and set(gated.seeds) <= set(row.seeds)]
    found = [(_ms(timed, row, runtime), row) for row in alone]
    others = sorted(((other, row) for other, row in found if other is not None), key=lambda pair: pair[0])
    if ms is None or not others:
        return []
    low_ms, low = max((pair for pair in others if pair[0] <= ms), key=lambda pair: pair[0], default=others[0])
    high_ms, high = min((pair for pair in others if pair[0] >= ms), key=lambda pair: pair[0], default=others[-1])
    part = 0.0 if high_ms == low_ms else (ms - low_ms) / (high_ms - low_ms)
    between = replace(low, **{of: (1.0 - part) * getattr(low, of) + part * getattr(high, of)
                              for of in ("windows", "clips", "shares")})
    names, ends = (low.name, f"{low_ms:.2f}") if low is high else (
        f"{low.name} to {high.name}", f"{low_ms:.2f} to {high_ms:.2f}")
    return [f"| {gated.name} | {cells(gated)} | {ms:.2f} | {names}, {runtime} | {ends} | {cells(between)} | "
            f"{points_between(gated, between)} | {by_seed(gated, between)} |"]


def _ms(timed: Timed, row: Row, what: str) -> float | None:
    """Mean over the row's seeds and their windows; None where one of them was not timed."""
    of = timed.get((row.setting, what, row.budget), {})
    if not set(row.seeds) <= set(of):
        return None
    return sum(sum(of[seed].ms) / len(of[seed].ms) for seed in row.seeds) / len(row.seeds)
