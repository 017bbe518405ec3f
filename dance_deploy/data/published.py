"""Split files and lists of the public data sets, read as they are published.

UCF101    classInd.txt (`1 Archery`), trainlist01.txt (`Archery/v_Archery_g08_c01.avi 1`), testlist01.txt (no label)
HMDB51    <class>_test_split1.txt, lines `<clip>.avi 1`: 1 is training, 2 is test, 0 is not used in this split
Kinetics  CSV files with label, youtube_id, time_start, time_end, split; clips are <youtube_id>_<start>_<end>.mp4,
          seconds in six digits
"""
from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dance_deploy.data.labelled import SPLIT_ALIASES, Entry, is_number, one_line
from dance_deploy.errors import InputError

UCF_CLASSES = "classInd.txt"
HMDB_FILE = re.compile(r"(.+)_test_split(\d+)\.txt")
KINETICS_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}
KINETICS_SPLITS = {**SPLIT_ALIASES, "validate": "val"}


def is_ucf101(split_dir: Path) -> bool:
    """Whether a folder holds UCF101's split files."""
    return (split_dir / UCF_CLASSES).is_file()


def is_hmdb51(split_dir: Path) -> bool:
    """Whether a folder holds HMDB51's split files."""
    return split_dir.is_dir() and any(HMDB_FILE.fullmatch(p.name) for p in split_dir.iterdir())


def read_ucf101(folder: Path, split_dir: Path, fold: str | None) -> tuple[list[Entry], list[str]]:
    """Entries and class names of split `fold` (01, 02 or 03; default 01); raises InputError naming file and line."""
    labels = _ucf_classes(split_dir / UCF_CLASSES)
    number = (fold or "01").zfill(2)
    entries: list[Entry] = []
    problems: list[str] = []
    for split in ("train", "test"):
        path = split_dir / f"{split}list{number}.txt"
        if not path.is_file():
            there = sorted(p.name[9:-4] for p in split_dir.glob("trainlist*.txt"))
            raise InputError(f"{split_dir}: has no {path.name}; --fold chooses one of {', '.join(there) or 'none'}")
        for where, line in _lines(path):
            name, _, last = line.rpartition(" ")
            given = int(last) if name and is_number(last) else None
            name = name if given is not None else line
            label = name.split("/")[0]
            if label not in labels:
                problems.append(f"{where}: unknown class '{label}'; {UCF_CLASSES} does not name it")
            elif given is not None and (not 1 <= given <= len(labels) or labels[given - 1] != label):
                problems.append(f"{where}: label {given} is not that of class '{label}'; {UCF_CLASSES} counts from 1")
            else:
                _add(entries, problems, folder / name, label, split, where)
    _refuse(problems)
    return entries, labels


def _ucf_classes(path: Path) -> list[str]:
    names: list[str] = []
    for where, line in _lines(path):
        number, _, name = line.partition(" ")
        if number != str(len(names) + 1) or not name.strip():
            raise InputError(f"{where}: got '{line}', expected '{len(names) + 1} <class>'")
        names.append(name.strip())
    return names


def read_hmdb51(folder: Path, split_dir: Path, fold: str | None) -> tuple[list[Entry], list[str]]:
    """Entries and class names of split `fold` (1, 2 or 3; default 1); raises InputError naming file and line."""
    number = (fold or "1").lstrip("0")
    files = {m.group(1): p for p in sorted(split_dir.iterdir())
             if (m := HMDB_FILE.fullmatch(p.name)) and m.group(2) == number}
    if not files:
        there = sorted({m.group(2) for p in split_dir.iterdir() if (m := HMDB_FILE.fullmatch(p.name))})
        raise InputError(f"{split_dir}: has no split {number}; --fold chooses one of {', '.join(there)}")
    entries: list[Entry] = []
    problems: list[str] = []
    for label, path in files.items():
        for where, line in _lines(path):
            name, _, part = line.rpartition(" ")
            if part not in ("0", "1", "2") or not name:
                problems.append(f"{where}: got '{line}', expected '<clip> <0, 1 or 2>'")
            elif part != "0":
                _add(entries, problems, folder / label / name.strip(), label, {"1": "train", "2": "test"}[part], where)
    _refuse(problems)
    return entries, list(files)


def is_kinetics(columns: Sequence[str] | None) -> bool:
    """Whether these are the columns of a Kinetics list."""
    return KINETICS_COLUMNS <= set(columns or ())


def kinetics_lists(folder: Path) -> list[Path]:
    """The Kinetics lists that lie in a folder: CSV files with their columns."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8-sig", newline="", errors="replace") as stream:
            if is_kinetics(next(csv.reader(stream), None)):
                found.append(path)
    return found


def read_kinetics(paths: Sequence[Path], folder: Path, *, skip_missing: bool = False
                  ) -> tuple[list[Entry], list[str], list[str]]:
    """Entries, class names, and a line for each clip that is left out.

    A clip is looked for in `folder` and in its folders <split>, <label> and <split>/<label>, blanks of the label kept
    or as underscores.

    skip_missing: leave out clips that are not there (videos disappear from where the lists point to), instead of
    refusing them. Raises InputError naming file and line.
    """
    entries: list[Entry] = []
    problems: list[str] = []
    missing: list[str] = []
    for path in paths:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            try:
                for number, row in enumerate(csv.DictReader(stream), 2):
                    _kinetics_row(path, folder, f"{path}:{number}", row, entries, problems, missing)
            except (UnicodeDecodeError, csv.Error) as error:
                raise InputError(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    _refuse(problems)
    if missing and not skip_missing:
        raise InputError(f"{one_line(missing)}; --skip-unreadable leaves out what is missing")
    return entries, sorted({e.label for e in entries}), missing


def _kinetics_row(path: Path, folder: Path, where: str, row: dict[str, Any], entries: list[Entry],
                  problems: list[str], missing: list[str]) -> None:
    label, video = (row.get("label") or "").strip(), (row.get("youtube_id") or "").strip()
    split = (row.get("split") or path.stem).strip().lower()
    try:
        name = f"{video}_{round(float(row['time_start'])):06d}_{round(float(row['time_end'])):06d}.mp4"
    except (TypeError, ValueError, OverflowError):
        problems.append(f"{where}: time_start and time_end are {row.get('time_start')!r} and {row.get('time_end')!r}, "
                        "expected seconds")
        return
    if not label or not video or split not in KINETICS_SPLITS:
        problems.append(f"{where}: expected a label, a youtube_id and a split (train, validate, val or test)")
        return
    folders = [Path(), Path(split), Path(path.stem)]
    folders += [f / form for f in list(folders) for form in (label, label.replace(" ", "_"))]
    found = next((p for f in folders if (p := folder / f / name).is_file()), None)
    if found is None:
        missing.append(f"{where}: no such clip '{name}' in {folder} or its folders {split} and '{label}'")
    else:
        entries.append(Entry(str(found), label, KINETICS_SPLITS[split], where))


def _add(entries: list[Entry], problems: list[str], path: Path, label: str, split: str, where: str) -> None:
    if ".." in path.parts or not path.is_file():
        problems.append(f"{where}: no such video '{path}'")
    else:
        entries.append(Entry(str(path), label, split, where))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, text) of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _refuse(problems: list[str]) -> None:
    if problems:
        raise one_line(problems)
