"""Readers of labelled videos: class folders with or without split files, split folders, and CSV files."""
from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dance_deploy import video
from dance_deploy.data import published, rendered
from dance_deploy.data.decoding import decoding_pool, decoding_threads
from dance_deploy.data.labelled import (
    SPLIT_ALIASES,
    SPLITS,
    DataSplits,
    Entry,
    LabelledVideos,
    is_number,
    one_line,
    splits_from_entries,
)
from dance_deploy.errors import InputError
from dance_deploy.sources import refuse_unreadable

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".gif", ".h264", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                  ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv")

MISSING_SHOWN = 5  # of Kinetics' clips thousands are gone

Progress = Callable[[int, int], Any]


def open_dataset(source: str | Path, *, split_dir: str | Path | None = None, fold: str | None = None,
                 render_dir: str | Path | None = None, skip_unreadable: bool = False,
                 progress: Progress | None = None, **render: Any) -> DataSplits:
    """Return the train, val and test videos of a data set.

    source:     a folder of class folders, a CSV file, or 'rendered': moving shapes, rendered into `render_dir` or
                taken from there if they are there already (`render`: arguments of rendered.render_dataset)
    split_dir:  folder of the split files, default '<source>/splits'; fold: prefix of their names, as in
                '<fold>_train.txt'
                of UCF101 and HMDB51, the number of the split
    skip_unreadable: decode every video and leave out, with a warning, those that fail; else the first frame of each
                is decoded and a failure is an error
    progress:   called with (done, total) while rendering and checking
    Raises InputError naming file and line.
    """
    if not os.path.isdir(source) and (split_dir, fold) != (None, None):
        raise InputError(f"{source}: is no folder of class folders; --split-dir and --fold choose the split files of "
                         "one, and are to be left out")
    if str(source) == "rendered":
        if render_dir is None:
            raise InputError("data 'rendered' needs a folder to render into")
        folder = rendered.render_dataset(render_dir, progress=progress, **render)
        return read_csv(folder / "manifest.csv")
    path = Path(source)
    if path.is_dir():
        splits = read_folder(path, split_dir=split_dir, fold=fold, skip_missing=skip_unreadable)
    elif path.is_file():
        splits = read_csv(path, skip_missing=skip_unreadable)
    else:
        raise InputError(f"{source}: no such file or folder; expected a folder of class folders, a CSV file with the "
                         "columns path,label[,split], or the word 'rendered'")
    return select_readable(splits, skip=skip_unreadable, progress=progress)


def read_folder(folder: str | Path, *, split_dir: str | Path | None = None, fold: str | None = None,
                skip_missing: bool = False) -> DataSplits:
    """Read class folders. With split files, only what they list is used; without, the clips are split by name.

    Split files of UCF101 and HMDB51 are understood, and Kinetics lists in the folder itself or in `split_dir`
    (skip_missing: see published.py).

    A split file has a line `<class>/<clip> <label>` for each clip (the label may be left out); `classes.txt` beside
    it, or in '<folder>/splits', has a line `<label> <class>` for each class. Folders train, val and test that hold
    class folders are understood, too. The folder `splits` and hidden folders are no classes.
    """
    folder = Path(folder)
    lists = folder / "splits" if split_dir is None else Path(split_dir)
    if published.is_ucf101(lists):
        return splits_from_entries(*published.read_ucf101(folder, lists, fold), str(lists))
    if published.is_hmdb51(lists):
        return splits_from_entries(*published.read_hmdb51(folder, lists, fold), str(lists))
    if split_dir is not None or not lists.is_dir():
        kinetics = published.kinetics_lists(folder if split_dir is None else lists)
        if kinetics and fold:
            raise InputError(f"{kinetics[0]}: is a Kinetics list, which has no folds; leave out --fold {fold}")
        if kinetics:
            return _from_kinetics(kinetics, folder, skip_missing)
    if lists.is_dir():
        return _read_split_files(folder, lists, f"{fold}_" if fold else "")
    if split_dir is not None:
        raise InputError(f"{lists}: no such folder; expected the folder of train.txt, val.txt and test.txt")
    if fold:
        raise InputError(f"{folder}: has no folder 'splits', so there is no fold '{fold}'")
    names = _class_folders(folder)
    if names and all(name.lower() in SPLIT_ALIASES for name in names):
        return _read_split_folders(folder, names)
    return splits_from_entries(_entries_of_classes(folder, names, None), names, str(folder))


def _from_kinetics(lists: Sequence[Path], folder: Path, skip_missing: bool) -> DataSplits:
    entries, labels, missing = published.read_kinetics(lists, folder, skip_missing=skip_missing)
    for line in missing[:MISSING_SHOWN]:
        log.warning("left out: %s", line)
    if len(missing) > MISSING_SHOWN:
        log.warning("left out: %d clips in all that are not there", len(missing))
    return splits_from_entries(entries, labels, str(lists[0]))


def _class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the class folders; raise InputError where there are none."""
    names = sorted(entry.name for entry in os.scandir(folder)
                   if entry.is_dir() and entry.name != "splits" and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{folder}: has no class folders; expected <class>/<clip>.mp4, or name a CSV file with the "
                         "columns path,label[,split]")
    return names


def _entries_of_classes(folder: Path, names: Sequence[str], split: str | None) -> list[Entry]:
    """Return the videos below each class folder, by suffix; raise InputError where a folder has none."""
    entries, empty = [], []
    for name in names:
        found = []
        for root, folders, files in os.walk(folder / name, onerror=refuse_unreadable):
            folders.sort()
            found += [os.path.join(root, f) for f in sorted(files)
                      if os.path.splitext(f)[1].lower() in VIDEO_SUFFIXES and not f.startswith(".")]
        if not found:
            empty.append(name)
        entries += [Entry(path, name, split, path) for path in found]
    if empty:
        raise InputError(f"{folder}: no video in class folder {', '.join(map(repr, empty))}; expected files such as "
                         ".mp4 or .avi; add clips or remove the folder")
    return entries


def _read_split_folders(folder: Path, names: Sequence[str]) -> DataSplits:
    classes = {name: _class_folders(folder / name) for name in names}
    labels = sorted(set().union(*classes.values()))
    entries = [entry for name in names
               for entry in _entries_of_classes(folder / name, classes[name], SPLIT_ALIASES[name.lower()])]
    return splits_from_entries(entries, labels, str(folder))


def _read_split_files(folder: Path, split_dir: Path, prefix: str) -> DataSplits:
    if not (split_dir / f"{prefix}train.txt").is_file():
        raise InputError(f"{split_dir}: has no {prefix}train.txt; expected the split files {prefix}train.txt, "
                         f"{prefix}test.txt and, if wanted, {prefix}val.txt")
    labels = _read_classes(folder, split_dir)
    entries: list[Entry] = []
    problems: list[str] = []
    for split in SPLITS:
        path = split_dir / f"{prefix}{split}.txt"
        if not path.is_file():
            log.warning("%s: has no %s%s.txt; the %s part is empty", split_dir, prefix, split, split)
            continue
        for number, line in enumerate(_lines(path), 1):
            if line:
                _read_split_line(line, f"{path}:{number}", folder, labels, split, entries, problems)
    if problems:
        raise one_line(problems)
    return splits_from_entries(entries, labels, str(split_dir))


def _read_split_line(line: str, where: str, folder: Path, labels: Sequence[str], split: str, entries: list[Entry],
                     problems: list[str]) -> None:
    """Add what one line of a split file says to `entries`, or to `problems` what is wrong with it."""
    name, _, last = line.rpartition(" ")
    number = int(last) if name and is_number(last.removeprefix("-")) else None
    name = name.strip() if number is not None else line
    label = name.replace("\\", "/").split("/")[0]
    if label not in labels:
        problems.append(f"{where}: unknown class '{label}'; the classes are {', '.join(labels)}")
    elif number is not None and not 0 <= number < len(labels):
        problems.append(f"{where}: label {number} is out of range; there are {len(labels)} classes, 0 to "
                        f"{len(labels) - 1}")
    elif number is not None and labels[number] != label:
        problems.append(f"{where}: label {number} is class '{labels[number]}', and the clip lies in '{label}'")
    elif ".." in name.split("/") or not (folder / name).is_file():
        problems.append(f"{where}: no such video '{name}' in {folder}")
    else:
        entries.append(Entry(str(folder / name), label, split, where))


def _read_classes(folder: Path, split_dir: Path) -> list[str]:
    """Return the class names by label, from classes.txt, else the class folders in order of the alphabet."""
    candidates = [split_dir / "classes.txt", folder / "splits" / "classes.txt"]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        return _class_folders(folder)
    names: dict[int, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line:
            continue
        label, _, name = line.partition(" ")
        if not is_number(label) or not name.strip():
            raise InputError(f"{path}:{number}: got '{line}', expected '<label> <class>', such as '0 walk'")
        if int(label) in names or name.strip() in names.values():
            raise InputError(f"{path}:{number}: label {label} or class '{name.strip()}' stands there twice")
        names[int(label)] = name.strip()
    if sorted(names) != list(range(len(names))) or not names:
        raise InputError(f"{path}: the labels are {sorted(names)}, expected 0, 1, 2, ... without a gap")
    return [names[i] for i in range(len(names))]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def read_csv(path: str | Path, *, skip_missing: bool = False) -> DataSplits:
    """Read a CSV file with the columns path, label and, if wanted, split (train, val, test); others are ignored.

    A list of Kinetics is understood, too (skip_missing: see published.py); it must have training clips.

    Paths are relative to the CSV file. Labels are class names; numbers are taken as names and sorted as numbers.
    """
    path = Path(path)
    entries: list[Entry] = []
    problems: list[str] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if published.is_kinetics(reader.fieldnames):
                return _from_kinetics([path], path.parent, skip_missing)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: its first line is {reader.fieldnames or 'missing'}, expected column names "
                                 "with path and label (and split, if wanted)")
            for row in reader:
                _read_row(row, path, reader.line_num, entries, problems)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    if problems:
        raise one_line(problems)
    if any(e.split for e in entries) and not all(e.split for e in entries):
        where = next(e.where for e in entries if not e.split)
        raise InputError(f"{where}: has no split while other lines have one; expected one of {', '.join(SPLITS)}")
    return splits_from_entries(entries, _sorted_labels({e.label for e in entries}), str(path))


def _read_row(row: dict[str, Any], path: Path, number: int, entries: list[Entry], problems: list[str]) -> None:
    where = f"{path}:{number}"
    name, label = (row.get("path") or "").strip(), (row.get("label") or "").strip()
    split = (row.get("split") or "").strip().lower()
    target = path.parent / name
    if not name or not label:
        problems.append(f"{where}: path or label is empty; expected both")
    elif split and split not in SPLIT_ALIASES:
        problems.append(f"{where}: unknown split '{split}'; expected one of {', '.join(SPLITS)}")
    elif not target.is_file():
        problems.append(f"{where}: no such video '{name}' in {path.parent}")
    else:
        entries.append(Entry(str(target), label, SPLIT_ALIASES[split] if split else None, where))


def _sorted_labels(names: set[str]) -> list[str]:
    return sorted(names, key=int) if all(map(is_number, names)) else sorted(names)


def select_readable(splits: DataSplits, *, skip: bool = False, progress: Progress | None = None) -> DataSplits:
    """Return the splits after a look at every video.

    skip False: the first frame of each is decoded; raises InputError naming the first that fails and their number.
    skip True:  each is decoded to its end; those that fail are left out with a warning each.
    """
    parts = {name: getattr(splits, name) for name in SPLITS}
    paths = [path for part in parts.values() for path, _ in part.videos]
    failures: dict[str, str] = {}
    with decoding_pool(decoding_threads()) as pool:
        for done, (path, failure) in enumerate(zip(paths, pool.map(partial(_failure, to_its_end=skip), paths)), 1):
            if failure:
                failures[path] = failure
            if progress:
                progress(done, len(paths))
    if failures and not skip:
        raise InputError(f"{one_line(list(failures.values()))}; --skip-unreadable leaves such videos out")
    for line in failures.values():
        log.warning("left out: %s", line)
    kept = {name: LabelledVideos(part.labels, tuple(v for v in part.videos if v[0] not in failures))
            for name, part in parts.items()}
    gone = [name for name, count in kept["train"].counts().items() if count == 0]
    if gone:
        raise InputError(f"no readable training clip is left for class {', '.join(map(repr, gone))}")
    return DataSplits(splits.labels, **kept)


def _failure(path: str, to_its_end: bool) -> str | None:
    """Why a video cannot be decoded, its first frame or to its end; None where it can."""
    try:
        _ = sum(1 for _ in video.frames(path, resize=(16, 16))) if to_its_end else video.probe(path)
    except InputError as error:
        return str(error)
    return None
