"""Clips in the order and form that training and evaluation ask for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from dance_deploy.data import DataSplits, LabelledVideos
from dance_deploy.data.augment import Augmentation
from dance_deploy.data.dataset import ClipDataset, to_input
from dance_deploy.errors import InputError, OperationError
from dance_deploy.geometry import ClipSpec
from dance_deploy.method.training.objectives import Batch
from dance_deploy.method.training.ranks import ALONE, Ranks
from dance_deploy.method.training.settings import TrainSettings

STUDY_CLIPS = 64  # training clips that calibration and magnitude statistics look at
EVALUATION_BATCH = 16
STATIC_EPOCHS = 1 << 30  # where the static phase's windows are drawn, out of the way of the other three
STREAMS = {"dense": 0, "ava": 1, "aap": 2, "static": 3}  # of random numbers; a new phase must not shift the others


class Data(NamedTuple):
    """What training learns from. train: augmented; study: up to STUDY_CLIPS of the training clips, not augmented;
    val, test: None where the data has none; workers: decoding processes, 0 where all fits into memory."""

    labels: tuple[str, ...]
    clip: ClipSpec
    train: ClipDataset
    study: ClipDataset
    val: ClipDataset | None
    test: ClipDataset | None
    workers: int = 0

    @property
    def measured(self) -> dict[str, ClipDataset]:
        """The splits to report on: val and test, or the training clips where the data has neither."""
        found = {"val": self.val, "test": self.test}
        return {name: d for name, d in found.items() if d is not None} or {"train": self.study}


def make_data(splits: DataSplits, spec: ClipSpec, settings: TrainSettings, *, workers: int = 2) -> Data:
    """Data sets of the splits, nothing of them decoded yet.

    workers: decoding processes for what will not fit into memory. Raises InputError where there is nothing to train on.
    """
    if not len(splits.train):
        raise InputError("the data has no training clips; see docs/data.md for the layouts that are read")
    windows = settings.resolved(len(splits.train)).windows or 1
    train = ClipDataset(splits.train, spec, True, windows, seed=settings.seed,
                        augmentation=Augmentation(flip=settings.flip))
    few = _spread_over(splits.train, STUDY_CLIPS)
    val, test = (ClipDataset(s, spec, False, settings.eval_windows) if len(s) else None
                 for s in (splits.val, splits.test))
    return Data(tuple(splits.labels), spec, train, ClipDataset(few, spec, False, 1), val, test, workers)


def decoded(data: Data, *, measures: bool = True, progress: Callable[[int, int], object] | None = None) -> Data:
    """The same data, decoded into memory as far as it is meant to go.

    measures: whether this process reads val and test, which are decoded now as well, so that a damaged video is known
    before training; progress: called with (done, total). Raises InputError where a video cannot be decoded.
    """
    held, *_ = _preload([data.train, *(d for d in (data.val, data.test) if d is not None and measures)], progress)
    return data._replace(workers=0) if held == len(data.train.videos) else data


def _preload(datasets: list[ClipDataset], progress: Callable[[int, int], object] | None) -> list[int]:
    """How many videos of each data set are in memory; `progress` sees all of them as one."""
    total, before, held = sum(len(d.videos) for d in datasets), 0, []
    for dataset in datasets:
        try:
            held.append(dataset.preload(progress and partial(_go_on, progress, before, total)))
        except InputError as error:
            raise InputError(f"{error}; --skip-unreadable leaves such videos out") from error
        before += len(dataset.videos)
    return held


def _go_on(progress: Callable[[int, int], object], before: int, total: int, done: int, of: int) -> None:
    progress(before + done, total)


def _spread_over(videos: LabelledVideos, count: int) -> LabelledVideos:
    # clips of one class often stand together
    chosen = np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int)
    return LabelledVideos(videos.labels, tuple(videos.videos[i] for i in chosen))


def targets_of(dataset: ClipDataset) -> list[int]:
    """The label of each video."""
    return [label for _, label in dataset.videos.videos]


def epoch_random(seed: int, phase: str, epoch: int) -> np.random.Generator:
    """The generator of one epoch: from its place in the run alone, so that a resumed run draws the same."""
    return np.random.default_rng([seed, STREAMS[phase], epoch])


def batches_in_epoch(dataset: ClipDataset, batch: int) -> int:
    """Number of steps in an epoch."""
    return max(1, math.ceil(len(dataset) / batch))


def training_batches(data: Data, phase: str, epoch: int, *, batch: int, random: np.random.Generator,
                     device: torch.device, ranks: Ranks = ALONE) -> Iterator[Batch]:
    """One epoch in random order, in batches of nearly equal size (a last batch of one clip would spoil batch norm).

    Of several processes, each gets its part of every batch; `size` of a Batch counts all of it.
    """
    # every phase sees windows of its own
    data.train.set_epoch(STATIC_EPOCHS + epoch if phase == "static" else epoch * 3 + STREAMS[phase])
    order = np.array_split(random.permutation(len(data.train)), batches_in_epoch(data.train, batch))
    parts = [ranks.part(batch.tolist()) for batch in order]
    loader = DataLoader(data.train, batch_sampler=parts, num_workers=data.workers)
    for whole, (frames, target, _) in zip(order, loaded(loader)):
        yield Batch(to_input(frames.to(device), data.clip), target.to(device), len(whole))


def loaded(loader: DataLoader) -> Iterator[Any]:
    """The loader's batches. A video that cannot be decoded arrives with a traceback, and is raised as one line."""
    try:
        yield from loader
    except InputError as error:
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise InputError(str(error).strip().rpartition("\n")[2].removeprefix(name)) from error


@contextlib.contextmanager
def decoding_processes() -> Iterator[None]:
    """Around all that uses `loaded`: raises OperationError where a decoding process is killed. torch tells of that from
    a signal handler, so at any line of ours."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OperationError("a process that decodes videos was killed; is there memory enough? "
                             "train again with --resume") from error


class EvaluationBatch(NamedTuple):
    """clip: float32 [N, 3, T, H, W]; owner: int64 [N], index of the video that each came from."""

    clip: torch.Tensor
    owner: torch.Tensor


def evaluation_batches(dataset: ClipDataset, *, workers: int, device: torch.device) -> Iterator[EvaluationBatch]:
    """All windows of all videos in order."""
    for frames, _, owner in loaded(DataLoader(dataset, batch_size=EVALUATION_BATCH, num_workers=workers)):
        yield EvaluationBatch(to_input(frames.to(device), dataset.spec), owner)
