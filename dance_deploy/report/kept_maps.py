"""Draws what the first gates keep of a clip, over its frames, and what each layer costs; one row a video.

    python -m dance_deploy.report.kept_maps BUNDLE VIDEO [VIDEO...] -o kept.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

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

app = typer.Typer(add_completion=False)


@app.command()
def draw(
    bundle: Annotated[Path, typer.Argument(help="The folder that dance-export wrote.")],
    videos: Annotated[list[str], typer.Argument(help="Video files; the middle window of each is drawn.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")],
    budget: Annotated[float | None, typer.Option(help="Share of MACs to aim at (default: the bundle's).")] = None,
    gate: Annotated[int, typer.Option(help="Number of the gate to draw, 0 being the first.")] = 0,
) -> None:
    """Draw kept frames and features of one gate over each video's frames, beside the MACs of every gated layer."""
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
    count, height, width, _ = window.frames.shape
    feature_keep, frame_keep = masks[2], masks[0]
    rows = np.arange(height) * feature_keep.shape[0] // height
    columns = np.arange(width) * feature_keep.shape[1] // width
    bright = np.where(feature_keep[rows][:, columns], 1.0, DROPPED_BRIGHTNESS)[..., None]
    for i, axis in enumerate(axes):
        frame = round(i * (count - 1) / (len(axes) - 1))
        # a layer may have fewer frames than the clip, where an earlier one has a stride in time
        is_kept = frame_keep[frame * len(frame_keep) // count]
        image = window.frames[frame] * (bright if is_kept else DROPPED_BRIGHTNESS)
        axis.imshow(image.astype(np.uint8))
        axis.set_xlabel(f"frame {frame}{'' if is_kept else ', dropped'}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_title(title, fontsize=9, loc="left")


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


if __name__ == "__main__":
    from dance_deploy.cli.entry import run

    run(app)
