"""The distribution of magnitudes per kind, after each phase of training: what AVA and AAP do to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dance_deploy.report.figure import new_figure, save_figure

STAGES = {"dense": "before AVA", "ava": "after AVA", "aap": "after AAP"}
COLORS = {"dense": "#7f7f7f", "ava": "#1f77b4", "aap": "#d62728"}
LARGEST = 3.0  # the histograms reach from 0 to this many times the mean


def draw_magnitudes(events: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw the "magnitudes" events of a metrics file as a PNG; returns whether there were any.

    Raises MissingPackageError without matplotlib, OperationError where `path` cannot be written.
    """
    stages = {e["stage"]: e["kinds"] for e in events if e.get("event") == "magnitudes" and e.get("stage") in STAGES}
    if not stages:
        return False
    kinds = list(next(iter(stages.values())))
    figure = new_figure(4.4 * len(kinds), 3.9, "drawing the magnitudes")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for stage, name in STAGES.items():
            if stage in stages:
                _draw_stage(axes, stages[stage][kind], name, COLORS[stage])
        axes.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
        axes.set_title(kind)
        axes.set_xlabel("magnitude / mean of the kind")
        axes.set_ylabel("share of the slices, all gates")
        axes.set_xlim(0.0, LARGEST)
        axes.legend(fontsize=7.5, loc="upper right")
    save_figure(figure, path)
    return True


def _draw_stage(axes: Any, spread: dict[str, Any], name: str, color: str) -> None:
    shares = np.asarray(spread["histogram"], dtype=np.float64)
    edges = np.linspace(0.0, LARGEST, len(shares) + 1)
    label = f"{name}: CV² {spread['variation']:.2f}, Hoyer {spread['hoyer']:.2f}"
    axes.stairs(shares, edges, color=color, label=label, linewidth=1.4)
    axes.stairs(shares, edges, color=color, fill=True, alpha=0.12)
