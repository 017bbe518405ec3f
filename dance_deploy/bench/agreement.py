"""What a precision changes on real videos: the same windows in float32 and in it."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, NamedTuple, Sequence

import numpy as np

from dance_deploy.bundle import open_bundle
from dance_deploy.runtime.runner import Runner
from dance_deploy.runtime.streaming import inputs_from_argument, results


class Agreement(NamedTuple):
    """windows: run in both; same_label: of these, the same best label; largest_score_change: of any label's score;
    different_mask_entries, mask_entries: of all gates, over all windows.
    """

    precision: str
    windows: int
    same_label: int
    largest_score_change: float
    different_mask_entries: int
    mask_entries: int

    def text(self) -> str:
        """One line for people."""
        share = self.different_mask_entries / max(self.mask_entries, 1)
        return (f"videos, {self.precision} against float32: same best label in {self.same_label} of {self.windows} "
                f"windows, scores differ by up to {self.largest_score_change:.4f}, {share:.2%} of the mask entries "
                "differ")


def agreement_on(bundle: Path, videos: Sequence[str], budget: float, precision: str, threads: int,
                 progress: Callable[[str], None] = lambda text: None) -> Agreement:
    """Run every window of `videos` (files, folders), gated at `budget`, in both; raises what dance-run would."""
    opened = open_bundle(bundle)
    inputs = [found for argument in videos for found in inputs_from_argument(argument)]
    windows = same = different = entries = 0
    largest = 0.0
    with Runner(opened, threads=threads) as exact, Runner(opened, threads=threads, precision=precision) as coarse:
        for number, source in enumerate(inputs, 1):
            progress(f"video {number} of {len(inputs)}")
            pairs = zip(*(results(runner, source, budget=budget, pad=True) for runner in (exact, coarse)))
            for one, other in ((a.result, b.result) for a, b in pairs):
                windows += 1
                same += int(np.argmax(one.scores) == np.argmax(other.scores))
                largest = max(largest, float(np.abs(one.scores - other.scores).max()))
                for a, b in ((a, b) for layers in zip(one.masks, other.masks) for a, b in zip(*layers)):
                    different, entries = different + int((a != b).sum()), entries + a.size
    return Agreement(precision, windows, same, largest, different, entries)
