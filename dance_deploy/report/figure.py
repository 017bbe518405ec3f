"""Drawing without global state: a matplotlib figure that no window and no other code knows of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dance_deploy.errors import MissingPackageError, OperationError

DOTS_PER_INCH = 120


def new_figure(width_in: float, height_in: float, what_for: str) -> Any:
    """A matplotlib Figure; raises MissingPackageError, saying what it was wanted for."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "report", what_for) from error
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG whole or not at all; raises OperationError where the place cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OperationError(f"{path}: cannot write ({error.strerror or error})") from error
