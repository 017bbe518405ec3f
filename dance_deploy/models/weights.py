"""Loading weights by name: published state dicts, our own checkpoints, all or nothing.

A file is read without ever running code from it (`weights_only`, or safetensors), and checked completely before the
first weight is copied.
"""
import os
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dance_deploy.errors import InputError, MissingPackageError

WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "graph")  # the last: our own checkpoints
GATE_PREFIX = "dance."  # of the controller's and the gates' own weights there (method/surgery.py)
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
SHOWN = 3


class LoadReport(NamedTuple):
    """What became of a weight file.

    path:    the file
    loaded:  names that were copied into the model
    skipped: names of the model's classifier that kept their initial values
    reason:  why they did, or ""
    """

    path: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        line = f"{self.path}: {len(self.loaded)} tensors loaded"
        return f"{line}; {', '.join(self.skipped)} not loaded ({self.reason})" if self.skipped else line


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, leave_classifier: str = "") -> LoadReport:
    """Copy the weights of a file into `model`, by name; the model stays as it was where anything does not fit.

    path: .safetensors, or what torch.save wrote: a dict of tensors, bare or under one of WRAPPERS, with or without
          PREFIXES. Floating-point tensors of another precision are converted. From a checkpoint of ours, the backbone.
    The classifier, the model's last nn.Linear, is left alone where the file has another class count or has none.
    leave_classifier: a reason to leave it alone in any case, for the report.
    A batch norm's num_batches_tracked may be missing. All else must match in name and shape.
    Raises InputError with one line that names the file; MissingPackageError for safetensors.
    """
    path = os.fspath(path)
    tensors = read_tensors(path)
    own = model.state_dict()
    classifier = classifier_names(model)
    reason = leave_classifier or _classifier_mismatch(own, tensors, classifier)
    skipped = classifier if reason else ()
    wanted = {name: tensor for name, tensor in own.items() if name not in skipped}
    offered = {name: tensor for name, tensor in tensors.items() if name not in skipped}
    _check(path, wanted, offered)
    model.load_state_dict(offered, strict=False)
    return LoadReport(path, tuple(offered), skipped, reason)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a weight file, as `load_weights` reads it: unwrapped, prefixes and gates left out."""
    path = os.fspath(path)
    tensors = _without_prefixes(_tensors_in(read_safely(path), path))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(GATE_PREFIX)}


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of the last nn.Linear, () where there is none."""
    last = None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            last = name
    if last is None:
        return ()
    return tuple(f"{last}.{name}".lstrip(".") for name, _ in model.get_submodule(last).named_parameters())


def read_safely(path: str) -> object:
    """Whatever a weight file holds, as torch or safetensors reads it without running code from it.

    Raises InputError with one line that names the file; MissingPackageError for safetensors.
    """
    try:
        if os.path.getsize(path) == 0:
            raise InputError(f"weights '{path}': the file is empty; copy or download it again")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"weights '{path}': cannot be read ({error.strerror}); check the path") from error
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on odd pickles; what matters is whether they load
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes from strangers: torch raises a dozen types, none of them a bug of ours
        raise InputError(
            f"weights '{path}': not a weight file that can be read safely, or a damaged one ({_reason(error)}); "
            "expected a dict of tensors written by torch.save, or a .safetensors file") from error


def _reason(error: Exception) -> str:
    # torch explains at length how to switch its safe loading off
    unsafe = str(error).startswith("Weights only load failed")
    return "none of torch.save, or one that holds more than tensors" if unsafe else _first_line(error)


def _read_safetensors(path: str) -> object:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingPackageError("safetensors", "train", "reading .safetensors weights") from error
    try:
        return load_file(path)
    except Exception as error:  # as above: a damaged file, whatever the type
        raise InputError(f"weights '{path}': a damaged safetensors file ({_first_line(error)})") from error


def _tensors_in(content: object, path: str) -> dict[str, Tensor]:
    """The state dict in `content`, unwrapped."""
    while isinstance(content, Mapping):
        if content and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items()):
            return dict(content)
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            keys = ", ".join(repr(key) for key in list(content)[:SHOWN]) or "none"
            raise InputError(
                f"weights '{path}': a dict with the keys {keys}, expected names with tensors, "
                f"bare or under one of {', '.join(WRAPPERS)}")
        content = inner[0]
    raise InputError(f"weights '{path}': holds a {type(content).__name__}, expected a dict of names and tensors")


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:  # either may be outside
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix):]: tensor for name, tensor in tensors.items()}
    return tensors


def _classifier_mismatch(own: dict[str, Tensor], tensors: dict[str, Tensor], classifier: tuple[str, ...]) -> str:
    """Why the classifier cannot be taken over, "" where it can or where the difference is not its class count."""
    if not classifier:
        return ""
    if not any(name in tensors for name in classifier):
        return "the file has no classifier"
    weight = classifier[0]
    if not all(name in tensors for name in classifier) or tensors[weight].dim() != 2:
        return ""
    ours, theirs = own[weight].shape, tensors[weight].shape
    same_input = ours[1] == theirs[1]
    return f"the file has {theirs[0]} classes, the model {ours[0]}" if same_input and ours[0] != theirs[0] else ""


def _check(path: str, wanted: dict[str, Tensor], offered: dict[str, Tensor]) -> None:
    """Raise InputError unless `offered` can be copied over `wanted` name by name."""
    missing = [n for n in wanted if n not in offered and not n.endswith("num_batches_tracked")]
    unknown = [n for n in offered if n not in wanted]
    differing = [
        f"{n} is {_form(offered[n])}, expected {_form(wanted[n])}"
        for n in wanted if n in offered and not _fits(offered[n], wanted[n])]
    faults = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape or type", differing))
        if names]
    if faults:
        raise InputError(
            f"weights '{path}': do not fit the model of {len(wanted)} tensors: {'; '.join(faults)}; "
            "nothing was loaded, choose the weights of this architecture")
    for name, tensor in offered.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"weights '{path}': {name} holds NaN or infinity; nothing was loaded")


def _fits(offered: Tensor, wanted: Tensor) -> bool:
    return (offered.shape == wanted.shape and offered.layout == torch.strided and offered.device.type == "cpu"
            and offered.is_floating_point() == wanted.is_floating_point()
            and not offered.is_quantized and not offered.is_complex())


def _form(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else str(tensor.dtype).replace("torch.", "")
    return f"{kind} {list(tensor.shape)}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0].rstrip(".:;")
    return text[:160] or type(error).__name__
