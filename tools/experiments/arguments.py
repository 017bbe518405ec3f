"""What both commands are asked for, checked before anything is trained or measured."""

from __future__ import annotations

from pathlib import Path

from dance_deploy.errors import InputError
from dance_deploy.files import check_writable
from tools.experiments.table import TABLES, Table

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "experiments"


def names(text: str) -> list[str]:
    """The parts of 'a, b'."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[int]:
    """The numbers of '0, 1' that --seeds names; raises InputError where one is none."""
    try:
        return [int(part) for part in names(text)]
    except ValueError:
        raise InputError(f"--seeds is '{text}', expected numbers joined by commas") from None


def table_and_data(table: str, data: str | None) -> tuple[Table, str]:
    """The table of that name and where its videos come from; raises InputError where either is missing."""
    if table not in TABLES:
        raise InputError(f"there is no table '{table}'; choose one of {', '.join(TABLES)}")
    source = data or TABLES[table].data
    if source is None:
        raise InputError("--data is missing: this table needs a folder of labelled videos")
    return TABLES[table], source


def check_folder(option: str, folder: Path, *files: str) -> None:
    """Make `folder`; raises InputError, naming the option, where that or a file in it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} '{folder}' cannot be made ({error.strerror}); choose another folder") from error
    for file in files or (".probe",):
        check_writable(folder / file, option)
