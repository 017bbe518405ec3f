"""What a finished run reports: scores at every budget, and the checkpoint made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dance_deploy.files import whole_file
from dance_deploy.method.training.evaluation import Score
from dance_deploy.method.training.feed import Data, targets_of

SAMPLES = 4


@dataclass
class SplitScores:
    """Scores on one split: of the dense network, and of the gated one at each budget, asked in falling order;
    static: the statically pruned one as it was fine-tuned, without gates, where there was such a phase."""

    split: str
    dense: Score
    gated: list[Score]
    static: Score | None = None

    def at(self, budget: float) -> Score:
        """The gated score at a budget that was measured."""
        return next(score for score in self.gated if score.budget == budget)


@dataclass
class Outcome:
    """A finished run. scores: val, then test, those that the data has (train where it has neither);
    original_macs: of the dense network for one clip; pruned_macs: of the network that the gates were trained on, which
    is what budgets and shares refer to. They are equal where nothing was pruned statically."""

    checkpoint: Path
    folder: Path
    scores: list[SplitScores]
    seconds: float
    target_macs: float
    original_macs: int
    pruned_macs: int

    @property
    def static_share(self) -> float:
        """MACs that static pruning left, as a share of the dense network's."""
        return self.pruned_macs / self.original_macs

    @property
    def last(self) -> SplitScores:
        """The scores to show first: test where there is one."""
        return self.scores[-1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for results.json and --json."""
        return {"checkpoint": str(self.checkpoint), "folder": str(self.folder), "seconds": round(self.seconds, 1),
                "target_macs": self.target_macs, "original_macs": self.original_macs, "pruned_macs": self.pruned_macs,
                "scores": {s.split: {"dense": s.dense.as_dict(), "static": s.static.as_dict() if s.static else None,
                                     "gated": [g.as_dict() for g in s.gated]}
                           for s in self.scores}}

    def figures(self) -> dict[str, float]:
        """The figures that a checkpoint carries, e.g. {"test dense top1": 0.95, "test top1 at 0.5": 0.93}."""
        found = {}
        for s in self.scores:
            found[f"{s.split} dense top1"] = s.dense.clip_top1
            if s.static is not None:
                found[f"{s.split} static top1"] = s.static.clip_top1
                found["static share"] = self.static_share
            for score in s.gated:
                found[f"{s.split} top1 at {score.budget:g}"] = score.clip_top1
                found[f"{s.split} share at {score.budget:g}"] = score.share
        return found


def sample_clips(data: Data) -> torch.Tensor:
    """SAMPLES clips of different classes as far as there are, uint8 [S, T, H, W, 3]: of the validation clips, else of
    the test or training clips."""
    dataset = next(iter(data.measured.values()))
    targets = np.asarray(targets_of(dataset))
    firsts = [int(np.flatnonzero(targets == t)[0]) for t in np.unique(targets)]
    chosen = [firsts[i] for i in np.linspace(0, len(firsts) - 1, min(SAMPLES, len(firsts))).round().astype(int)]
    chosen += [i for i in range(len(targets)) if i not in chosen][:SAMPLES - len(chosen)]
    items = [i * dataset.windows + dataset.windows // 2 for i in chosen]
    items += [i for i in range(len(dataset)) if i not in items][:SAMPLES - len(items)]
    clips = [dataset[i][0] for i in items]
    # a data set of a single window: twice the same is all there is
    return torch.stack(clips + clips[:max(0, 2 - len(clips))])


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; raises OperationError where the place cannot be written."""
    with whole_file(path) as stream:
        stream.write(json.dumps(value, indent=1) + "\n")
