"""From what a user asks for to a run: data, clip spec, settings, device."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dance_deploy import checked, models, profiles
from dance_deploy.data import open_dataset
from dance_deploy.errors import InputError
from dance_deploy.files import same_file
from dance_deploy.geometry import ClipSpec
from dance_deploy.method.surgery import gate_model
from dance_deploy.method.training.feed import Data, decoding_processes, make_data
from dance_deploy.method.training.loop import Reporter
from dance_deploy.method.training.outcome import Outcome
from dance_deploy.method.training.precision import keep_freed_memory
from dance_deploy.method.training.ranks import joined, started_by_torchrun
from dance_deploy.method.training.run import Request, train
from dance_deploy.method.training.settings import TrainSettings
from dance_deploy.method.training.state import check_output, check_waiting

# mirrored, such a clip would show another class
DIRECTIONS = re.compile(r"left|right|clockwise", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What the command line asks for; None: not given. settings: by their names in TrainSettings."""

    data: str
    out: Path
    arch: str = "small"
    init: Path | None = None
    resume: bool = False
    restart: bool = False
    clip: str | None = None
    clip_stride: int | None = None
    split_dir: Path | None = None
    fold: str | None = None
    render_dir: Path | None = None
    render_clips: int | None = None
    skip_unreadable: bool = False
    device: str | None = None
    threads: int | None = None
    flip: bool | None = None
    kinds: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """The fields of TrainSettings that are asked for."""
        found = {name: value for name, value in self.settings.items() if value is not None}
        if self.kinds is not None:
            found["kinds"] = tuple(kind.strip() for kind in self.kinds.split(","))
        return found

    def check(self) -> None:
        """Raise InputError for what makes no sense, alone or together, whatever the data."""
        if self.resume and self.restart:
            raise InputError("--resume and --restart exclude each other; give one of them")
        if self.out.is_file() and same_file(self.data, self.out):
            raise InputError(f"-o {self.out} is the list of the data; give the checkpoint another name")
        given = self.given()
        TrainSettings(**given).check()
        for name in ("static_by", "static_allocation", "static_scope", "epochs_static"):
            if name in given and "static_share" not in given:
                raise InputError(f"--{name.replace('_', '-')} says how --static-share prunes; add --static-share SHARE")
        for name in ("render_dir", "render_clips"):
            if getattr(self, name) is not None and self.data != "rendered":
                raise InputError(f"--{name.replace('_', '-')} is for --data rendered, this is --data {self.data}")


def train_from_options(options: Options, reporter: Reporter) -> Outcome | None:
    """Train as asked; None in all processes but the first.

    Raises InputError for what cannot be, before anything is decoded where that can be known.
    """
    options.check()
    spec = clip_spec(models.get(options.arch).clip, options.clip, options.clip_stride)
    device = torch.device(_device_name(options.device))
    if started_by_torchrun() and device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    going_on = "resume" if options.resume else "restart" if options.restart else None
    check_output(options.out)
    check_waiting(options.out, going_on)
    if options.init is not None and not options.init.is_file():
        raise InputError(f"--init {options.init}: no such file")
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with joined(device) as ranks:
        ranks.check_batch(TrainSettings(**options.given()).batch)
        with ranks.first_alone():  # it may have to render the clips
            data, settings = _data(options, spec, reporter)
        if ranks.is_first and models.is_own(options.arch):
            _warn_of_export(options.arch, len(data.labels), spec, reporter)
        request = Request(options.arch, options.out, settings, options.init, going_on)
        with decoding_processes():
            return train(request, data, reporter, device, ranks)


def _warn_of_export(arch: str, classes: int, spec: ClipSpec, reporter: Reporter) -> None:
    """Say before hours of training, not after, what dance-export will refuse, where its packages are at hand."""
    try:
        from dance_deploy.export.graphs import graphs_from_model
    except ImportError:
        return
    try:
        graphs_from_model(gate_model(models.build(arch, classes), spec.shape).eval(), profiles.load(profiles.DEFAULT))
    except InputError as error:
        reporter.say(f"warning: dance-export will refuse this network: {error}")


def _data(options: Options, spec: ClipSpec, reporter: Reporter) -> tuple[Data, TrainSettings]:
    render: dict[str, Any] = {}
    if options.data == "rendered":
        render["render_dir"] = options.render_dir or options.out.parent / "rendered"
        if options.render_clips is not None:
            render["clips_per_class"] = options.render_clips
    progress = reporter.progress("reading the data")
    splits = open_dataset(options.data, split_dir=options.split_dir, fold=options.fold,
                          skip_unreadable=options.skip_unreadable, progress=progress, **render)
    if len(splits.labels) < 2:
        raise InputError(f"{options.data}: one class only, '{splits.labels[0]}'; expected two or more to tell apart")
    for label in splits.labels:
        try:
            checked.text(label, "the class name")
        except checked.CheckError as error:
            raise InputError(f"{options.data}: {error}; a bundle cannot hold it, so rename it") from error
    reporter.say(splits.summary())
    flip = options.flip
    if flip is None:
        named = [label for label in splits.labels if DIRECTIONS.search(label)]
        flip = not named
        if named:
            reporter.say(f"clips are not mirrored, since labels such as '{named[0]}' name a direction (--flip does)")
    settings = TrainSettings(**options.given(), flip=flip)
    return make_data(splits, spec, settings), settings


def clip_spec(spec: ClipSpec, size: str | None, stride: int | None) -> ClipSpec:
    """The architecture's clip spec, with another size 'TxHxW' and stride where they are given; frames are resized in
    the same proportion to the crop as before. Raises InputError where a value makes no sense."""
    if size is not None:
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", size.strip().lower())
        if match is None:
            raise InputError(f"--clip is '{size}', expected TxHxW, such as 16x112x112")
        frames, height, width = (int(n) for n in match.groups())
        rows, columns = (max(new, round(r * new / old))
                         for r, new, old in zip(spec.resize, (height, width), spec.size, strict=True))
        spec = spec._replace(frames=frames, size=(height, width), resize=(rows, columns))
    if stride is not None:
        spec = spec._replace(stride=stride)
    return spec.check()


def _device_name(name: str | None) -> str:
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device is '{name}', expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; give --device cpu")
    return name
