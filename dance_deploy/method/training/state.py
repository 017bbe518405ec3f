"""The state of an unfinished run: everything needed to go on after a kill at any moment.

Random numbers are no part of it: each epoch draws them from its own place in the run (feed.epoch_random).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import is_unfinished
from dance_deploy.method.checkpoint import load_verified, save_atomically

FORMAT = "dance-training"
VERSION = 1


@dataclass
class RunState:
    """What state.pt holds.

    identity: plain values that a resumed run must share (arch, labels, clip, settings, data); phase, epoch: epochs of
    that phase that are done; model, teacher, optimizer: state dicts (teacher empty before the dense phase is done,
    optimizer empty between phases); metrics_bytes: length of metrics.jsonl at that moment; finished: all is written;
    given, channels: widths in which the network that came in, and the present one, are narrower than the architecture.
    """

    identity: dict[str, Any]
    phase: str
    epoch: int
    model: dict[str, torch.Tensor]
    teacher: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    metrics_bytes: int
    finished: bool = False
    given: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)


def work_folder(checkpoint: Path) -> Path:
    """The folder beside a checkpoint for state, metrics and plots: small.pt -> small.train."""
    return checkpoint.with_name(f"{checkpoint.stem}.train")


def save_state(path: Path, state: RunState) -> None:
    """Write `state` whole or not at all; raises OperationError where the disk does not take it."""
    # not asdict(state): it would copy every tensor
    save_atomically(path, {"format": FORMAT, "version": VERSION, **vars(state)})


def load_state(path: Path) -> RunState:
    """Read state.pt; raises InputError where it is damaged or of another version."""
    value = load_verified(path)
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT or value.pop("version", None) != VERSION:
        raise InputError(f"{path}: not a training state of this version; train again with --restart")
    try:
        return RunState(**value)
    except TypeError as error:
        raise InputError(f"{path}: training state is incomplete or damaged ({error}); "
                         "train again with --restart") from error


def check_output(checkpoint: Path) -> None:
    """Try to write where a checkpoint and its work folder will be; raises InputError now rather than after training.

    Leaves nothing behind but the folders above them.
    """
    if checkpoint.is_dir():
        raise InputError(f"{checkpoint}: is a folder, expected the name of a checkpoint file; "
                         f"give -o {checkpoint}/NAME.pt")
    if checkpoint.suffix == ".train":
        raise InputError(f"{checkpoint}: names ending in .train are kept for the folder beside a checkpoint; "
                         "give -o NAME.pt")
    folder = work_folder(checkpoint)
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        for place in (checkpoint.parent, folder):
            probe = place / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        if is_new:
            folder.rmdir()
    except OSError as error:
        raise InputError(f"{checkpoint}: cannot be written ({error.strerror or error}: {error.filename}); "
                         "choose another place with -o") from error


def check_waiting(checkpoint: Path, going_on: str | None) -> RunState | None:
    """The state to go on from, or None for a new run.

    going_on: None, "resume" or "restart". Raises InputError where an unfinished run is there and it is None.
    """
    path = work_folder(checkpoint) / "state.pt"
    if not path.exists() or going_on == "restart":
        return None
    stored = load_state(path)
    if going_on == "resume":
        return stored
    if stored.finished:
        return None
    raise InputError(f"{path}: an unfinished run is here ({stored.phase}, {stored.epoch} epochs done); "
                     "give --resume to go on with it, or --restart to begin again")


def remove_leftovers(checkpoint: Path) -> None:
    """Delete the temporary files that a killed run left; only for who holds the lock."""
    folder = work_folder(checkpoint)
    for place, pattern in ((checkpoint.parent, f".{checkpoint.name}.*"), (folder, ".*.*")):
        for path in place.glob(pattern):
            if is_unfinished(path):
                path.unlink(missing_ok=True)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Make `folder` if need be and hold it for one run; a crash frees it.

    Raises OperationError where another process trains there.
    """
    folder.mkdir(exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on Windows; two runs in one folder are the user's to avoid
        yield
        return
    with open(folder / "lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperationError(f"{folder}: another dance-train is working there; wait for it or choose another -o "
                                 f"({error.strerror})") from error
        yield
