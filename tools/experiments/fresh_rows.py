"""What points answered to new clips, as rows over their seeds, and how two rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dance_deploy.power.intervals import mean_interval

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


def of_seeds(row: Row, seeds: Sequence[int]) -> Row:
    at = [row.seeds.index(seed) for seed in seeds]
    return replace(row, seeds=tuple(seeds), windows=row.windows[at], clips=row.clips[at], shares=row.shares[at])


def of_common_seeds(rows: Sequence[Row]) -> list[Row]:
    """The rows over the seeds that all of them have: seeds differ by more than settings. As they are, where none is."""
    common = sorted(set.intersection(*(set(row.seeds) for row in rows)))
    return [of_seeds(row, common) for row in rows] if common else list(rows)


def cells(row: Row) -> str:
    return f"{row.macs:.3f} | {row.clips.mean():.1f} % | {row.windows.mean():.1f} %"


def points_between(row: Row, other: Row) -> str:
    """Difference in windows with the same seeds and its interval over the clips, which both answered."""
    of_clips = (row.windows - other.windows[[other.seeds.index(seed) for seed in row.seeds]]).mean(0)
    found = mean_interval(of_clips)
    return f"{found.estimate:+.2f}" + (f" ({found.low:+.2f} to {found.high:+.2f})" if found.finite else "")


def by_seed(one: Row, other: Row) -> str:
    """Each seed's difference in windows; both rows have the same seeds."""
    return ", ".join(f"{d:+.1f}" for d in (one.windows - other.windows).mean(1))
