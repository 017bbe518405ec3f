"""metrics.jsonl: one JSON object a line, appended so that a crash costs at most the line being written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from dance_deploy.errors import OperationError


class MetricsFile:
    """The metrics of one run; `length` is the number of bytes that are known to be whole."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open for appending after the first `length` bytes; what follows them was written after the last saved state.

        Raises OperationError where the file cannot be written.
        """
        self.path = path
        try:
            with open(path, "ab") as stream:
                self.length = min(length, stream.tell())
                stream.truncate(self.length)
        except OSError as error:
            raise OperationError(f"{path}: cannot write ({error.strerror or error})") from error

    def append(self, event: str, **values: Any) -> None:
        """Add {"event": event, ...} and make sure that it is on the disk; NaN and infinities become null."""
        line = (json.dumps({"event": event, **_finite(values)}, allow_nan=False) + "\n").encode()
        try:
            with open(self.path, "ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OperationError(f"{self.path}: cannot write ({error.strerror or error})") from error
        self.length += len(line)


class NoMetrics(MetricsFile):
    """In the place of the metrics file in processes that do not write."""

    def __init__(self, path: Path) -> None:
        self.path, self.length = path, 0

    def append(self, event: str, **values: Any) -> None:
        """Do nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; a last line that was cut is left out."""
    events = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
