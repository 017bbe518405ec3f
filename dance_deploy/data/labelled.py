"""What a labelled set of videos is, and the checks and the split that all readers share."""
from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dance_deploy.errors import InputError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                 "test": "test", "testing": "test"}


@dataclass(frozen=True)
class LabelledVideos:
    """Videos with their class. labels: class names, by index; videos: (path, index into labels) each."""

    labels: tuple[str, ...]
    videos: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.videos)

    def counts(self) -> dict[str, int]:
        """Return the number of videos per class, classes without any included."""
        counted = Counter(label for _, label in self.videos)
        return {name: counted[index] for index, name in enumerate(self.labels)}


@dataclass(frozen=True)
class DataSplits:
    """The three parts of a data set, all with the same labels. val and test may be empty."""

    labels: tuple[str, ...]
    train: LabelledVideos
    val: LabelledVideos
    test: LabelledVideos

    def summary(self) -> str:
        """Return one line for a log: classes and clips per part."""
        parts = ", ".join(f"{name} {len(getattr(self, name))}" for name in SPLITS)
        return f"{len(self.labels)} classes; clips: {parts}"


@dataclass(frozen=True)
class Entry:
    """One line or file that a reader met. where: how an error names it, such as 'splits/train.txt:3'."""

    path: str
    label: str
    split: str | None
    where: str


def one_line(problems: Sequence[str]) -> InputError:
    """Return the InputError for a list of problems: the first, and how many more of them there are."""
    more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
    return InputError(problems[0] + more)


def splits_from_entries(entries: Sequence[Entry], labels: Sequence[str], source: str) -> DataSplits:
    """Return the DataSplits of checked entries; where none names a split, clips are split by `assign_split`.

    Raises InputError where a video is listed twice, a class has no clip, or too few of them to train and test on.
    """
    if not entries:
        raise InputError(f"{source}: lists no videos")
    _refuse_duplicates(entries)
    empty = [name for name in labels if name not in {entry.label for entry in entries}]
    if empty:
        raise InputError(f"{source}: no clip for class {', '.join(map(repr, empty))}; add clips or remove the class")
    if all(entry.split is None for entry in entries):
        chosen = _split_by_clip(entries, labels, source)
    else:
        chosen = [entry.split or "train" for entry in entries]
    index = {name: i for i, name in enumerate(labels)}
    parts = {}
    for name in SPLITS:
        videos = tuple((e.path, index[e.label]) for e, split in zip(entries, chosen, strict=True) if split == name)
        parts[name] = LabelledVideos(tuple(labels), videos)
    missing = [name for name, count in parts["train"].counts().items() if count == 0]
    if missing:
        raise InputError(f"{source}: no training clip for class {', '.join(map(repr, missing))}; every class needs one")
    return DataSplits(tuple(labels), **parts)


def _refuse_duplicates(entries: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        before = first.setdefault(entry.path, entry)
        if before is not entry:
            problems.append(f"{entry.where}: '{entry.path}' is listed already, at {before.where}; a clip may stand in "
                            "one place only")
    if problems:
        raise one_line(problems)


def _split_by_clip(entries: Sequence[Entry], labels: Sequence[str], source: str) -> list[str]:
    """Return the split of each entry, decided per class by a hash of label and file name: the same on every machine."""
    ranked: dict[str, list[int]] = {name: [] for name in labels}
    for position, entry in enumerate(entries):
        ranked[entry.label].append(position)
    chosen = [""] * len(entries)
    for name, positions in ranked.items():
        if len(positions) == 1:
            raise InputError(f"{source}: class '{name}' has one clip, and no split files say what it is for; add "
                             "clips (2 at least: one to train on, one to test)")
        positions.sort(key=lambda p: hashlib.sha256(_stable_name(entries[p]).encode("utf-8", "replace")).digest())
        n_test = max(1, round(0.2 * len(positions)))
        n_val = max(1, round(0.1 * len(positions))) if len(positions) >= 3 else 0
        for rank, position in enumerate(positions):
            chosen[position] = "test" if rank < n_test else "val" if rank < n_test + n_val else "train"
    counted = Counter(chosen)
    log.warning("%s: no split files; split by clip: %d to train, %d to validate, %d to test. Clips of one person or "
                "place may be on both sides, so the test result may flatter", source, counted["train"], counted["val"],
                counted["test"])
    return chosen


def _stable_name(entry: Entry) -> str:
    return entry.label + "/" + entry.path.replace("\\", "/").rsplit("/", 1)[-1]


def is_number(text: str) -> bool:
    """Whether it is made of the digits that int() reads; isdigit() alone takes others, such as a raised 2."""
    return text.isascii() and text.isdigit()
