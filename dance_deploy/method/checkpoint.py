"""The checkpoint that dance-train writes and dance-export reads: tensors and plain values, never pickled code."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import whole_file
from dance_deploy.geometry import ClipSpec
from dance_deploy.method.prune import shrink
from dance_deploy.method.saliency import KINDS
from dance_deploy.method.surgery import GatedModel, gate_model
from dance_deploy.models import build, is_own

FORMAT = "dance-checkpoint"
VERSION = 1


@dataclass
class Checkpoint:
    """A gated model with what is needed to export it.

    arch: name in models.ARCHITECTURES, or FILE.py:FUNCTION of a network of the user's own (models.own), for people;
    graph: state dict of the gated graph (backbone, controller);
    samples: uint8 [S, T, H, W, 3], clips for parity checks and the golden file, at least 2;
    default_budget: the budget that dance-run takes when none is given;
    reached: [budget asked, mean share of MACs measured] per measured budget; may be empty;
    results: what training measured, e.g. {"dense_top1": 0.95}, for people;
    channels: widths in which a pruned backbone is narrower than its architecture, by group name (prune.py).
    """

    arch: str
    labels: list[str]
    clip: ClipSpec
    graph: dict[str, torch.Tensor]
    samples: torch.Tensor
    kinds: tuple[str, ...] = KINDS
    default_budget: float = 0.5
    reached: list[list[float]] = field(default_factory=list)
    trained: bool = True
    results: dict[str, float] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)


def save_atomically(path: Path, value: Any) -> None:
    """torch.save, whole or not at all; the folder is made. Raises OperationError where it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperationError(f"{path}: cannot write ({error.strerror or error})") from error
    with whole_file(path, "wb") as stream:
        _save_to(stream, value)


def _save_to(stream: BinaryIO, value: Any) -> None:
    try:
        torch.save(value, stream)
    except RuntimeError as error:
        # torch's zip writer, unwinding, hides Ctrl-C and a full disk behind an error of its own
        if isinstance(error.__context__, (KeyboardInterrupt, OSError)):
            raise error.__context__ from None
        raise


def load_tensors(path: Path) -> Any:
    """Read a torch file without running any code in it; raises InputError in one line where it cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: is a folder, expected a checkpoint file" if path.is_dir() else
                         f"{path}: no such checkpoint file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on pickles of others before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, KeyError, OSError,
            AttributeError, TypeError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{path}: not a checkpoint that can be read safely, or damaged "
                         f"({type(error).__name__}); train it again or copy it again") from error


def load_verified(path: Path) -> Any:
    """`load_tensors` for a file of our own, with its checksums: torch itself takes a flipped bit for a weight."""
    value = load_tensors(path)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint, or damaged ({type(error).__name__}); train it again or copy it "
                         "again") from error
    if broken is not None:
        raise InputError(f"{path}: damaged, the checksum of '{broken}' in it is wrong; copy it again")
    return value


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` whole or not at all."""
    value = asdict(checkpoint)
    value["clip"] = {k: list(v) if isinstance(v, tuple) else v for k, v in checkpoint.clip._asdict().items()}
    value["kinds"] = list(checkpoint.kinds)
    save_atomically(path, {"format": FORMAT, "version": VERSION, **value})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint; raises InputError naming the file and what is wrong with it."""
    value = load_verified(path)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(f"{path}: not a dance checkpoint (a file written by dance-train -o); "
                         "weights of a plain model go to dance-train --init")
    if value.get("version") != VERSION:
        raise InputError(f"{path}: checkpoint version {value.get('version')}, this program reads version {VERSION}")
    try:
        entries: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value["clip"].items()}
        clip = ClipSpec(**entries).check()
        fields = {k: value[k] for k in ("arch", "labels", "graph", "samples", "default_budget", "reached", "trained",
                                        "results")}
        channels = dict(value.get("channels", {}))  # absent in the first checkpoints
        return _checked(Checkpoint(clip=clip, kinds=tuple(value["kinds"]), channels=channels, **fields), path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: checkpoint is incomplete or damaged ({type(error).__name__}: {error})") from error


def _checked(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    fields = ((checkpoint.arch, str), (checkpoint.labels, list), (checkpoint.graph, dict))
    if not all(isinstance(value, kind) for value, kind in fields):
        raise InputError(f"{path}: checkpoint must hold the architecture's name, a list of labels, a dict of weights")
    for name, tensor in checkpoint.graph.items():
        if not (isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and torch.isfinite(tensor).all()):
            raise InputError(f"{path}: checkpoint holds '{name}', expected a tensor of finite numbers; train it again")
    _check_numbers(checkpoint, path)
    samples = checkpoint.samples
    wanted = (checkpoint.clip.frames, *checkpoint.clip.size, 3)
    if samples.dtype != torch.uint8 or tuple(samples.shape[1:]) != wanted or samples.shape[0] < 2:
        raise InputError(f"{path}: checkpoint holds sample clips {samples.dtype} {list(samples.shape)}, "
                         f"expected uint8 [2 or more, {', '.join(map(str, wanted))}]")
    if not all(isinstance(label, str) for label in checkpoint.labels) or len(checkpoint.labels) < 1:
        raise InputError(f"{path}: checkpoint labels must be a list of names")
    if set(checkpoint.kinds) - set(KINDS):
        raise InputError(f"{path}: checkpoint prunes unknown kinds {list(checkpoint.kinds)}")
    return checkpoint


def _check_numbers(checkpoint: Checkpoint, path: Path) -> None:
    clip, budget, reached = checkpoint.clip, checkpoint.default_budget, checkpoint.reached
    if not (len(clip.mean) == len(clip.std) == 3 and all(map(math.isfinite, (*clip.mean, *clip.std)))):
        raise InputError(f"{path}: checkpoint's clip has mean {clip.mean} and std {clip.std}, expected 3 numbers each")
    if not (isinstance(budget, float) and 0.0 < budget <= 1.0):
        raise InputError(f"{path}: checkpoint's default budget is {budget!r}, expected a number above 0 and up to 1")
    if not all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in reached):
        raise InputError(f"{path}: checkpoint's measured budgets are {reached!r}, expected pairs of numbers")


def model_from_checkpoint(checkpoint: Checkpoint, own: str | None = None) -> GatedModel:
    """The gated model of a checkpoint, in eval mode.

    own: FILE.py:FUNCTION of the network, for a checkpoint of one that is the user's own; the name in the checkpoint is
    only shown, since looking it up would run code that whoever wrote the file chose.
    Raises InputError where weights and architecture differ.
    """
    if is_own(checkpoint.arch) and own is None:
        raise InputError(f"checkpoint is of a network of your own, '{checkpoint.arch}'; give --arch FILE.py:FUNCTION, "
                         "the code to build it with")
    if own is not None and not (is_own(own) and is_own(checkpoint.arch)):
        raise InputError(f"--arch is '{own}', but the checkpoint is of '{checkpoint.arch}'; --arch FILE.py:FUNCTION is "
                         "for checkpoints of a network of your own")
    backbone = build(own or checkpoint.arch, len(checkpoint.labels))
    shrink(backbone, checkpoint.clip.shape, checkpoint.channels)
    model = gate_model(backbone, checkpoint.clip.shape, checkpoint.kinds)
    for name, expected in model.graph.state_dict().items():
        given = checkpoint.graph.get(name, expected)
        if given.dtype != expected.dtype:  # load_state_dict would cast it, and lose what does not fit
            raise InputError(f"checkpoint does not fit architecture '{checkpoint.arch}': '{name}' is {given.dtype}, "
                             f"expected {expected.dtype}")
    try:
        model.graph.load_state_dict(checkpoint.graph)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(f"checkpoint does not fit architecture '{checkpoint.arch}': {lines[0][:200]}") from error
    return model.eval()
