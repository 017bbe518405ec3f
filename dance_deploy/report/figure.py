"""Drawing without global state: a matplotlib figure that no window and no other code knows of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dance_deploy.errors import InputError, MissingPackageError
from dance_deploy.files import check_writable, same_file, whole_file

DOTS_PER_INCH = 120


def check_can_draw(what_for: str) -> None:
    """Raise MissingPackageError where there is no matplotlib: before the work whose result is to be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("matplotlib", "report", what_for) from error


def check_results(json_file: Path | None, plot: Path | None = None) -> None:
    """Before the work: raise InputError where a file for --json or --plot cannot be written or one is both,
    MissingPackageError where there is nothing to draw with."""
    if same_file(json_file, plot):
        raise InputError(f"--json and --plot name the same file '{plot}'; give each its own")
    for option, file in (("--json", json_file), ("--plot", plot)):
        if file is not None:
            check_writable(file, option)
    if plot is not None:
        check_can_draw("--plot")


def new_figure(width_in: float, height_in: float, what_for: str) -> Any:
    """A matplotlib Figure; raises MissingPackageError, saying what it was wanted for."""
    check_can_draw(what_for)
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG whole or not at all; raises OperationError where the place cannot be written."""
    with whole_file(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
