"""What dance-train shows: bars on a terminal, a line now and then in a log, a table at the end."""
from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dance_deploy.errors import InputError
from dance_deploy.files import check_writable, same_file
from dance_deploy.method.training.outcome import Outcome, write_json
from dance_deploy.method.training.state import work_folder

LINES_PER_PHASE = 8
PHASE_NAMES = {"dense": "dense", "static": "static pruning", "ava": "AVA", "aap": "AAP"}


def reporter() -> LogReporter:
    """Bars where stderr is a terminal, else lines; of several processes, the first one speaks."""
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("dance_deploy").setLevel(logging.ERROR)  # the same warnings
        return SilentReporter()
    return BarReporter() if sys.stderr.isatty() else LogReporter()


class LogReporter:
    """One line per phase, and a few of its epochs."""

    def __init__(self) -> None:
        self._name, self._epochs, self._done = "", 0, 0

    def __enter__(self) -> LogReporter:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to clean up."""

    def phase(self, name: str, epochs: int, done: int) -> None:
        self._name, self._epochs, self._done = PHASE_NAMES.get(name, name), epochs, done
        after = f", {done} of them done" if done else ""
        self.say(f"{self._name}: {epochs} epochs{after}")

    def step(self, part: float) -> None:
        pass

    def epoch(self, shown: dict[str, float]) -> None:
        self._done += 1
        every = -(-self._epochs // LINES_PER_PHASE)
        if self._done % every == 0 or self._done == self._epochs:
            self.say(f"{self._name} {self._done}/{self._epochs}: {describe(shown)}")

    def progress(self, what: str) -> Callable[[int, int], Any] | None:
        """A callback (done, total) for a preparation that takes a while, or None."""
        return None

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class SilentReporter(LogReporter):
    """Says nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""


class BarReporter(LogReporter):
    """A bar per phase."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(),
                              TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True))
        self._task: Any = None

    def __enter__(self) -> BarReporter:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def phase(self, name: str, epochs: int, done: int) -> None:
        self._done = done
        self._task = self._bars.add_task(PHASE_NAMES.get(name, name), total=epochs, completed=done, note="")

    def step(self, part: float) -> None:
        self._bars.update(self._task, completed=self._done + part)

    def epoch(self, shown: dict[str, float]) -> None:
        self._done += 1
        self._bars.update(self._task, completed=self._done, note=describe(shown))

    def progress(self, what: str) -> Callable[[int, int], Any] | None:
        task = self._bars.add_task(what, total=None, note="")
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(shown: dict[str, float]) -> str:
    """The numbers of an epoch for people."""
    parts = [f"loss {shown['loss']:.3f}", f"training clips right {shown['accuracy']:.0%}"]
    if "share" in shown:
        parts.append(f"MACs {shown['share']:.0%}")
    if "spread" in shown:
        parts.append(f"spread {shown['spread']:.2f}")
    if "val_top1" in shown:
        at = f" at {shown['val_share']:.0%} MACs" if "share" in shown else ""
        parts.append(f"val {shown['val_top1']:.0%}{at}")
    return ", ".join(parts)


def interrupted(out: Path) -> int:
    """Say how to go on after Ctrl-C; returns the exit code."""
    folder = work_folder(out)
    kept = (folder / "state.pt").exists()
    print(f"interrupted; go on with the same command and --resume (state in {folder})" if kept else "interrupted",
          file=sys.stderr)
    return 1


def check_json(json_path: str | None, checkpoint: Path) -> None:
    """Raise InputError now, rather than after training, where the file cannot be written or is the checkpoint."""
    if json_path is None or json_path == "-":
        return
    if same_file(json_path, checkpoint):
        raise InputError(f"--json and -o name the same file '{json_path}'; give each its own")
    check_writable(json_path, "--json")


def show(outcome: Outcome | None, json_path: str | None) -> None:
    """Print the scores as a table, or as JSON where '-' is asked for; nothing where another process does it.

    Raises OperationError where it cannot be written.
    """
    if outcome is None:
        return
    if json_path == "-":
        print(json.dumps(outcome.as_dict()))
        return
    if json_path is not None:
        write_json(Path(json_path), outcome.as_dict())
    for line in table(outcome):
        print(line)


def table(outcome: Outcome) -> list[str]:
    """The summary, as lines."""
    lines = []
    left = outcome.static_share
    for scores in outcome.scores:
        lines.append(f"{scores.split}: {scores.dense.clips} clips, {scores.dense.windows} windows")
        lines.append("  budget   MACs   clips right      windows right")
        rows = [("dense", 1.0, scores.dense), *((f"{g.budget:g}", left, g) for g in scores.gated)]
        if scores.static is not None:
            rows.insert(1, ("static", left, scores.static))
        for budget, of, score in rows:
            mark = "  <- default" if score.budget == outcome.target_macs else ""
            clips = f"{score.right_clips} ({score.clip_top1:.1%})"
            lines.append(f"  {budget:>6} {of * score.share:6.1%}   {clips:<16} {score.window_top1:.1%}{mark}")
    if left < 1.0:
        dense, pruned = (f"{macs / 1e6:.1f} M" for macs in (outcome.original_macs, outcome.pruned_macs))
        lines.append(f"MACs are shares of the dense network's {dense}; budgets, of the pruned network's {pruned} "
                     f"({left:.1%})")
    minutes, seconds = divmod(round(outcome.seconds), 60)
    lines.append(f"{outcome.checkpoint} is complete after {minutes} min {seconds} s; metrics and pictures are in "
                 f"{outcome.folder}")
    return lines
