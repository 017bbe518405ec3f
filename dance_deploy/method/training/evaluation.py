"""How good and how cheap a model is: top-1 per window and per clip, and the share of MACs, at each budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dance_deploy.data.dataset import ClipDataset
from dance_deploy.method.surgery import GatedModel
from dance_deploy.method.training.feed import EvaluationBatch, evaluation_batches, targets_of


class Score(NamedTuple):
    """Result at one budget (None: the dense network).

    right_clips of clips: by the mean softmax of a clip's windows; right_windows of windows: each on its own;
    share: mean share of the dense MACs over the windows, controller included; kept: mean kept share per gate and
    kind, [L][3], empty for the dense network.
    """

    budget: float | None
    right_clips: int
    clips: int
    right_windows: int
    windows: int
    share: float
    kept: list[list[float]]

    @property
    def clip_top1(self) -> float:
        """Share of the clips that are right."""
        return self.right_clips / self.clips

    @property
    def window_top1(self) -> float:
        """Share of the windows that are right."""
        return self.right_windows / self.windows

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Score:
        """The Score that `as_dict` made `values` of."""
        return cls(**{name: values[name] for name in cls._fields})

    def as_dict(self) -> dict[str, object]:
        """Plain values for files."""
        return {**self._asdict(), "clip_top1": self.clip_top1, "window_top1": self.window_top1}


class Evaluator:
    """Evaluates on one split; its clips are cut and converted once per call of `scores`, whatever the budgets."""

    def __init__(self, dataset: ClipDataset, *, workers: int, device: torch.device) -> None:
        self.dataset, self.workers, self.device = dataset, workers, device
        self.targets = targets_of(dataset)

    def scores(self, model: GatedModel, budgets: Sequence[float]) -> list[Score]:
        """One Score per budget, gates closed; the model is left in eval mode."""
        model.eval()
        model.open_gates(False)
        tallies = [_Tally(self.targets) for _ in budgets]
        with torch.inference_mode():
            for batch in self.batches():
                for budget, tally in zip(budgets, tallies):
                    logits = model(batch.clip, torch.full((len(batch.clip),), float(budget), device=self.device))
                    tally.add(logits, batch.owner, model.macs_share(), kept_shares(model))
        return [tally.score(budget) for budget, tally in zip(budgets, tallies)]

    def dense_score(self, network: nn.Module) -> Score:
        """Score of a network without gates, clip [N, 3, T, H, W] -> logits; it is left in eval mode."""
        network.eval()
        tally = _Tally(self.targets)
        with torch.inference_mode():
            for batch in self.batches():
                tally.add(network(batch.clip), batch.owner, torch.ones(len(batch.clip)), None)
        return tally.score(None)

    def batches(self) -> Iterator[EvaluationBatch]:
        """The windows to evaluate, in order."""
        return evaluation_batches(self.dataset, workers=self.workers, device=self.device)


class DenseView(nn.Module):
    """A gated model as a network without gates: clip -> logits."""

    def __init__(self, model: GatedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """clip [N, 3, T, H, W] -> logits [N, K]; opens the gates and leaves them open."""
        self.model.open_gates()
        return self.model(clip, torch.ones(len(clip), device=clip.device))


def kept_shares(model: GatedModel) -> torch.Tensor:
    """Kept share per clip, gate and kind of the last forward, [N, L, 3]; gates must be closed."""
    return torch.stack([torch.stack([m.float().flatten(1).mean(1) for m in gate.masks], 1)  # type: ignore[union-attr]
                        for gate in model.gates], 1)


class _Tally:
    """Adds up batches for one Score."""

    def __init__(self, targets: list[int]) -> None:
        self.votes: torch.Tensor | None = None
        self.targets = targets
        self.answers: list[torch.Tensor] = []
        self.owners: list[torch.Tensor] = []
        self.shares: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []

    def add(self, logits: torch.Tensor, owner: torch.Tensor, share: torch.Tensor, kept: torch.Tensor | None) -> None:
        if self.votes is None:
            self.votes = torch.zeros(len(self.targets), logits.shape[1])
        probabilities = logits.float().softmax(1).cpu()
        self.votes.index_add_(0, owner, probabilities)
        self.answers.append(probabilities.argmax(1))
        self.owners.append(owner)
        self.shares.append(share.cpu())
        if kept is not None:
            self.kept.append(kept.cpu())

    def score(self, budget: float | None) -> Score:
        assert self.votes is not None, "a split has at least one clip"
        targets = torch.tensor(self.targets)
        answers, owners = torch.cat(self.answers), torch.cat(self.owners)
        return Score(budget, int((self.votes.argmax(1) == targets).sum()), len(targets),
                     int((answers == targets[owners]).sum()), len(answers), float(torch.cat(self.shares).mean()),
                     torch.cat(self.kept).mean(0).tolist() if self.kept else [])
