"""Loss, accuracy and share of MACs over the epochs of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_deploy.report.figure import new_figure, save_figure

PHASES = {"dense": "dense", "static": "static", "ava": "AVA", "aap": "AAP"}
TRAINING = "#b0b0b0"


def draw_history(events: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw the "epoch" and "evaluation" events of a metrics file as a PNG; returns whether there were any.

    Raises MissingPackageError without matplotlib, OperationError where `path` cannot be written.
    """
    epochs = [e for e in events if e.get("event") == "epoch"]
    if not epochs:
        return False
    # epochs count on over the phases
    place = {(e["phase"], e["epoch"]): n for n, e in enumerate(epochs, 1)}
    figure = new_figure(9.0, 7.0, "drawing the history")
    loss, accuracy, share = figure.subplots(3, 1, sharex=True)
    steps = list(place.values())
    loss.plot(steps, [_number(e.get("loss")) for e in epochs], color=TRAINING)
    loss.set_ylabel("loss")
    accuracy.plot(steps, [_number(e.get("accuracy")) for e in epochs], color=TRAINING, label="training, augmented")
    _draw_evaluations(accuracy, share, events, place)
    with_share = [(n, e["share"]) for n, e in zip(steps, epochs, strict=True) if e.get("share") is not None]
    if with_share:
        share.plot(*zip(*with_share, strict=True), color=TRAINING, label="training, budgets drawn at random")
    share.set_ylabel("share of MACs")
    share.set_xlabel("epoch, over all phases")
    accuracy.set_ylabel("top-1")
    for axes in (accuracy, share):
        axes.set_ylim(0.0, 1.05)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    _mark_phases((loss, accuracy, share), epochs)
    save_figure(figure, path)
    return True


def _draw_evaluations(accuracy: Any, share: Any, events: Sequence[dict[str, Any]],
                      place: dict[tuple[str, int], int]) -> None:
    """Validation points: one line per budget (None: without gates)."""
    lines: dict[float | None, list[tuple[int, float, float]]] = {}
    for event in events:
        at = place.get((event.get("phase", ""), event.get("epoch", 0)))
        if event.get("event") == "evaluation" and at is not None:
            for score in event["scores"]:
                lines.setdefault(score["budget"], []).append((at, score["clip_top1"], score["share"]))
    for budget, points in lines.items():
        where, top1, spent = zip(*points, strict=True)
        name = "without gates" if budget is None else f"budget {budget:g}"
        style = {"marker": "o", "markersize": 3, "linewidth": 1, "label": f"validation clips, {name}"}
        color = accuracy.plot(where, top1, **style)[0].get_color()
        if budget is not None:
            share.plot(where, spent, color=color, **style)


def _mark_phases(all_axes: tuple[Any, ...], epochs: Sequence[dict[str, Any]]) -> None:
    for n, event in enumerate(epochs, 1):
        if n == 1 or event["phase"] != epochs[n - 2]["phase"]:
            for axes in all_axes:
                axes.axvline(n - 0.5, color="black", linewidth=0.6, linestyle=":")
            all_axes[0].text(n, 0.98, PHASES.get(event["phase"], event["phase"]), va="top", fontsize=8,
                             transform=all_axes[0].get_xaxis_transform())


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
