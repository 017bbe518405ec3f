"""Draws what a gate keeps of a clip, over its frames, and what each layer costs; one row a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dance_deploy.clips import Window, normalize, windows
from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError
from dance_deploy.manifest import Manifest
from dance_deploy.report.figure import new_figure, save_figure
from dance_deploy.runtime.backends import LayerMasks
from dance_deploy.runtime.runner import Result, open_runner
from dance_deploy.video import frames

SHOWN_FRAMES = 5
DROPPED_BRIGHTNESS = 0.25


def draw_kept_maps(bundle: Path, videos: list[str], output: Path, budget: float | None = None, gate: int = 0) -> None:
    """Draw one gate's kept frames and features over each video's middle window, beside the MACs of every gated layer.

    bundle: folder of a bundle; output: the PNG to write; budget: None for the bundle's own; gate: 0 is the first.
    Raises InputError for a bad bundle, video, budget or gate.
    """
    figure = new_figure(2.1 * SHOWN_FRAMES + 4.0, 2.1 * len(videos), "drawing what is kept")
    axes = figure.subplots(len(videos), SHOWN_FRAMES + 1, squeeze=False, width_ratios=[1.0] * SHOWN_FRAMES + [1.2])
    with open_runner(bundle) as runner:
        manifest = runner.manifest
        if not 0 <= gate < len(manifest.gates):
            raise InputError(f"gate {gate}: the bundle has gates 0 to {len(manifest.gates) - 1}")
        for row, video in zip(axes, videos):
            window = _middle_window(video, manifest)
            result = runner.infer(normalize(window.frames, manifest.clip), budget)
            _draw_frames(row[:-1], window, result.masks[gate], f"{Path(video).name}: {_title(manifest, result)}")
            _draw_layers(row[-1], manifest, result)
    save_figure(figure, output)


def _middle_window(video: str, manifest: Manifest) -> Window:
    found = list(windows(frames(video, resize=manifest.clip.resize), manifest.clip))
    return found[len(found) // 2]


def _title(manifest: Manifest, result: Result) -> str:
    best = int(np.argmax(result.scores))
    return (f"{manifest.model.labels[best]} {result.scores[best]:.0%} with "
            f"{result.macs / result.macs_dense:.0%} of the MACs (counted)")


def _draw_frames(axes: Any, window: Window, masks: LayerMasks, title: str) -> None:
    count = window.frames.shape[0]
    frame_keep = masks[0]
    for i, axis in enumerate(axes):
        frame = round(i * (count - 1) / (len(axes) - 1))
        # a layer may have fewer frames than the clip, where an earlier one has a stride in time
        is_kept = frame_keep[frame * len(frame_keep) // count]
        axis.imshow(shaded(window.frames[frame], masks[2] & is_kept))
        axis.set_xlabel(f"frame {frame}{'' if is_kept else ', dropped'}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_title(title, fontsize=9, loc="left")


def shaded(image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """image [H, W, 3] uint8 with what keep [h, w] bool drops darkened; each entry covers its part of the image."""
    height, width, _ = image.shape
    rows = np.arange(height) * keep.shape[0] // height
    columns = np.arange(width) * keep.shape[1] // width
    brightness = np.where(keep[rows][:, columns], 1.0, DROPPED_BRIGHTNESS)
    return (image * brightness[..., None]).astype(np.uint8)


def _draw_layers(axis: Any, manifest: Manifest, result: Result) -> None:
    shares = []
    for gate, masks in zip(manifest.gates, result.masks or ()):
        costs = [ConvCost(conv) for conv in gate.convs]
        shares.append(sum(c.gated(*masks).macs for c in costs) / sum(c.dense().macs for c in costs))
    axis.barh(range(len(shares)), shares, color="tab:blue")
    axis.barh(range(len(shares)), [1 - s for s in shares], left=shares, color="0.9")
    axis.set_yticks(range(len(shares)), [gate.name for gate in manifest.gates], fontsize=6)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=7)
    axis.set_title("MACs a gated layer", fontsize=9)
