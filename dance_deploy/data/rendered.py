"""The rendered data set: one shape in motion, and its motion is the class.

The classes are four pairs; of a pair, each is the other played backwards. A clip of `left` and the clip of `right`
with the same seed hold the very same frames in opposite order, so neither one frame nor the set of all frames,
shuffled, tells the two apart: at best the pair is seen. How hard a clip is (contrast, noise, clutter, distractors,
size, shaking camera) grows with its `difficulty`, from 0 to 1.
"""
from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dance_deploy.data.encode import write_video
from dance_deploy.data.shapes import SHAPES, clutter, shape_cover
from dance_deploy.errors import InputError, OperationError

# class -> (pair, whether it is the pair's motion played backwards); in order of the alphabet, which is label order
_MOTIONS = {"clockwise": ("turn", False), "counter_clockwise": ("turn", True), "down": ("vertical", False),
            "growing": ("size", False), "left": ("horizontal", True), "right": ("horizontal", False),
            "shrinking": ("size", True), "up": ("vertical", True)}
CLASSES = tuple(_MOTIONS)
_PAIRS = ("turn", "vertical", "size", "horizontal")

RENDER_VERSION = 1
_SPLIT_CYCLE = ("train", "test", "train", "val", "train")


def render_clip(label: str | int, difficulty: float = 0.3, seed: int = 0, *, frames: int = 48,
                size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """Return one clip, [T, H, W, 3] uint8 RGB; the same arguments give the same bytes.

    label: one of CLASSES, or its index; difficulty: 0 to 1; frames: T; size: (H, W)
    Raises InputError where an argument is out of range.
    """
    name = CLASSES[label] if isinstance(label, int) and 0 <= label < len(CLASSES) else label
    if name not in _MOTIONS:
        raise InputError(f"rendered clip: unknown class '{label}'; known: {', '.join(CLASSES)}")
    if not 0.0 <= difficulty <= 1.0:
        raise InputError(f"rendered clip: difficulty must be from 0 to 1 (got {difficulty})")
    if seed < 0:
        raise InputError(f"rendered clip: seed must be 0 or more (got {seed})")
    if frames < 1 or min(size) < 16:
        raise InputError(f"rendered clip: needs at least 1 frame of 16x16 (got {frames} of {size[0]}x{size[1]})")
    pair, backwards = _MOTIONS[name]
    # the direction is not part of the seed: both classes of a pair draw the same numbers
    rng = np.random.default_rng([seed, _PAIRS.index(pair)])
    clip = _render_pair(pair, float(difficulty), rng, frames, size)
    return np.ascontiguousarray(clip[::-1]) if backwards else clip


def _render_pair(pair: str, difficulty: float, rng: np.random.Generator, frames: int, size: tuple[int, int]
                 ) -> np.ndarray:
    """Return the clip of the pair's forward motion."""
    short = min(size)
    margin = round(0.06 * short)
    canvas = (size[0] + 2 * margin, size[1] + 2 * margin)
    brightness = rng.uniform(50, 100)
    still = brightness + clutter(rng, canvas, 16 * difficulty, round(6 * difficulty))
    shake = _shake(rng, frames, 0.02 * short * difficulty)
    noise = 2 + 10 * difficulty
    center, angle, radius = _motion(pair, difficulty, rng, frames, size)
    layers = [(center, angle, radius, _color(rng, brightness, 115 - 65 * difficulty))]
    for _ in range(round(2 * difficulty)):
        layers.insert(0, _distractor(rng, frames, size, brightness))
    kinds = [SHAPES[i] for i in rng.integers(len(SHAPES), size=len(layers))]
    clip = np.empty((frames, *size, 3), np.float32)
    for t, (dy, dx) in enumerate(np.rint(shake).astype(int) + margin):
        clip[t] = still[dy:dy + size[0], dx:dx + size[1]]
    for kind, (at, turn, extent, color) in zip(kinds, layers, strict=True):
        cover = shape_cover(kind, at - np.rint(shake), turn, extent, size)[..., None]
        clip += cover * (color - clip)
    clip += rng.standard_normal((frames, *size, 1), np.float32) * np.float32(noise)
    return np.clip(np.rint(clip, out=clip), 0, 255, out=clip).astype(np.uint8)


def _motion(pair: str, difficulty: float, rng: np.random.Generator, frames: int, size: tuple[int, int]
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return center [T, 2], angle [T] and radius [T] of the shape; only what the pair is about changes.

    What changes is a place on a circle that starts anywhere: a shape leaves on one side and enters on the other, and
    one that has grown to the largest size starts again at the smallest. So at any moment, the first and the last
    included, it is spread evenly, and tells nothing of the direction. Places that do not change are near the middle.
    """
    time = np.linspace(0.0, 1.0, frames)
    turns = {"vertical": rng.uniform(0.45, 0.6) * min(size) / size[0], "turn": rng.uniform(0.6, 0.85),
             "horizontal": rng.uniform(0.45, 0.6) * min(size) / size[1], "size": rng.uniform(0.7, 0.9)}
    start = dict(zip(_PAIRS, rng.uniform(0.0, 1.0, len(_PAIRS)), strict=True))
    for name in {"vertical", "horizontal"} - {pair}:
        start[name] = 0.3 + 0.4 * start[name]
    place = {name: np.mod(start[name] + (turns[name] * time if name == pair else np.zeros(frames)), 1.0)
             for name in _PAIRS}
    center = np.stack([place["vertical"], place["horizontal"]], axis=1) * size
    radius = (0.22 - 0.07 * difficulty) * min(size) * np.exp(place["size"] - 0.5)
    return center, 2 * np.pi * place["turn"], radius


def _distractor(rng: np.random.Generator, frames: int, size: tuple[int, int], brightness: float
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a small faint shape that goes to and fro, so that it drifts nowhere."""
    short = min(size)
    swing = np.sin(np.linspace(0, 2 * np.pi * rng.uniform(1, 2), frames) + rng.uniform(0, 2 * np.pi))
    start = rng.uniform(0.1, 0.9, 2) * np.array(size)
    center = start + swing[:, None] * rng.uniform(-0.12, 0.12, 2) * short
    radius = np.full(frames, rng.uniform(0.05, 0.09) * short)
    return center, np.full(frames, rng.uniform(0, 2 * np.pi)), radius, _color(rng, brightness, 30)


def _color(rng: np.random.Generator, brightness: float, contrast: float) -> np.ndarray:
    """Return an RGB colour that is lighter than `brightness` by about `contrast` in each channel."""
    return (brightness + contrast * rng.uniform(0.75, 1.25, 3)).astype(np.float32)


def _shake(rng: np.random.Generator, frames: int, amplitude: float) -> np.ndarray:
    """Return the camera's offset per frame, [T, 2] pixels: a smoothed random walk within three amplitudes."""
    steps = rng.standard_normal((frames + 4, 2))
    smooth = np.stack([np.convolve(steps[:, axis], np.ones(5) / 5 ** 0.5, "valid") for axis in (0, 1)], axis=1)
    return np.clip(smooth, -3, 3) * amplitude


@dataclass(frozen=True)
class RenderParameters:
    """What a rendered data set is made from; kept beside it as parameters.json."""

    clips_per_class: int = 20
    seed: int = 0
    size: tuple[int, int] = (112, 112)
    frames: int = 48
    fps: int = 25
    version: int = RENDER_VERSION


def render_dataset(folder: str | Path, clips_per_class: int = 20, seed: int = 0, *,
                   size: tuple[int, int] = (112, 112), frames: int = 48, fps: int = 25,
                   progress: Callable[[int, int], Any] | None = None) -> Path:
    """Render a data set into `folder`, or keep the one that is there if it was made with the same arguments.

    Writes <class>/<clip>.mp4, manifest.csv (path, label, split, difficulty, seed), splits/ as read_folder takes it, and
    parameters.json. In each class the difficulties are spread evenly, and every split has easy and hard clips.
    progress: called with (clips done, clips in all)
    Returns the folder, which is complete or absent. Raises InputError where it holds anything else.
    """
    parameters = RenderParameters(clips_per_class, seed, (size[0], size[1]), frames, fps)
    folder = Path(folder)
    if clips_per_class < 2:
        raise InputError(f"rendered data: needs at least 2 clips per class, to train and to test "
                         f"(got {clips_per_class})")
    if size[0] % 2 or size[1] % 2:
        raise InputError(f"rendered data: height and width must be even (got {size[0]}x{size[1]})")
    if _is_reusable(folder, parameters):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OperationError(f"{folder}: cannot be made ({error.strerror})") from error
    try:
        _render_files(temporary, parameters, progress)
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        os.replace(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and _is_reusable(folder, parameters):
            return folder  # another process was faster
        raise OperationError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_reusable(folder: Path, parameters: RenderParameters) -> bool:
    """Whether the folder holds this very data set; raises InputError where it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    wanted = json.loads(json.dumps(asdict(parameters)))
    try:
        found = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != wanted:
        raise InputError(f"{folder}: holds something else than this rendered data set ({found or 'no parameters.json'},"
                         f" expected {wanted}); remove it or name another folder (--render-dir)")
    return True


def _render_files(folder: Path, parameters: RenderParameters, progress: Callable[[int, int], Any] | None) -> None:
    per_class = parameters.clips_per_class
    rows = []
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for rank in range(per_class):
            difficulty = round((rank + 0.5) / per_class, 4)
            seed = parameters.seed * 1_000_003 + index * per_class + rank
            path = f"{name}/{name}_{rank:04d}.mp4"
            clip = render_clip(name, difficulty, seed, frames=parameters.frames, size=parameters.size)
            write_video(folder / path, clip, fps=parameters.fps)
            rows.append((path, name, _SPLIT_CYCLE[rank % len(_SPLIT_CYCLE)], difficulty, seed))
            if progress:
                progress(len(rows), per_class * len(CLASSES))
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split", "difficulty", "seed"))
        writer.writerows(rows)
    (folder / "splits").mkdir()
    _write_lines(folder / "splits" / "classes.txt", [f"{i} {name}" for i, name in enumerate(CLASSES)])
    for split in ("train", "val", "test"):
        _write_lines(folder / "splits" / f"{split}.txt",
                     [f"{path} {CLASSES.index(name)}" for path, name, part, _, _ in rows if part == split])
    (folder / "parameters.json").write_text(json.dumps(asdict(parameters), indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_difficulties(folder: str | Path) -> dict[str, float]:
    """Return the difficulty of every clip of a rendered data set, by its path as `open_dataset` gives it."""
    folder = Path(folder)
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as stream:
        return {str(folder / row["path"]): float(row["difficulty"]) for row in csv.DictReader(stream)}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
