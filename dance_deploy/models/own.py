"""Networks of the user's own, named by where they are made: `FILE.py:FUNCTION` or `package.module:FUNCTION`.

The function gets the number of classes and returns the module, as Architecture.build says. Naming one runs its file, so
only what a user types is ever looked up here, never a name that was read from a file.
"""
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from torch import nn

from dance_deploy.errors import InputError
from dance_deploy.geometry import ClipSpec
from dance_deploy.models.architecture import KINETICS_MEAN, KINETICS_STD, Architecture

CLIP = ClipSpec(frames=16, stride=2, resize=(128, 171), size=(112, 112), mean=KINETICS_MEAN, std=KINETICS_STD)


def is_own(name: str) -> bool:
    """Whether a name is of the form FILE.py:FUNCTION or module:FUNCTION; no reference architecture's is."""
    return ":" in name


def own_architecture(name: str) -> Architecture:
    """The architecture that `name` (see above) makes; its clip is the function's attribute `clip`, a ClipSpec, or CLIP.

    Raises InputError where the file, the module or the function is not there, or importing or calling it fails.
    """
    place, _, function = name.rpartition(":")
    module = _file_module(name, Path(place)) if place.endswith(".py") else _named_module(name, place)
    factory = getattr(module, function, None)
    if not callable(factory):
        raise InputError(f"'{name}': {place} has no function '{function}'")
    clip = getattr(factory, "clip", CLIP)
    if not isinstance(clip, ClipSpec):
        raise InputError(f"'{name}': the attribute 'clip' of {function} is a {type(clip).__name__}, expected a "
                         "dance_deploy.geometry.ClipSpec")
    return Architecture(name, _checked(name, factory), clip.check(), f"{function} of {place}")


def _checked(name: str, factory: Callable[[int], object]) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        try:
            model = factory(num_classes)
        except (Exception, SystemExit) as error:  # the user's own code: anything can come out of it
            raise InputError(f"'{name}' with {num_classes} classes failed: {_said(error)}") from error
        if not isinstance(model, nn.Module):
            raise InputError(f"'{name}' returned a {type(model).__name__}, expected a torch.nn.Module")
        return model.float()  # training and export are in float32, whatever precision it was left in
    return build


def _file_module(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"'{name}': {path}: no such file")
    path = path.resolve()
    # found again by pickle (worker processes) under this name; a plain stem could hide a module of the same name
    title = f"dance_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(title, path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{name}': {path} is no Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"'{name}': {path} cannot be imported: {_said(error)}") from error
    return module


def _named_module(name: str, place: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look in the working folder, python -m does
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise InputError(f"'{name}': module '{place}' cannot be imported: {_said(error)}; a file is given as "
                         "FILE.py:FUNCTION") from error


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it ends the program; put what it runs under: if __name__ == '__main__'"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
