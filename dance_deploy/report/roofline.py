"""A prediction as a picture: the device's roofs with the layers below them, and the time of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dance_deploy.report.figure import new_figure, save_figure

if TYPE_CHECKING:
    from dance_deploy.bench.predict.prediction import LayerPrediction, Prediction

DENSE, GATED = "#7f7f7f", "#d62728"
_INCHES_A_LAYER, _LEAST_HEIGHT = 0.19, 4.2


def draw_roofline(prediction: Prediction, path: Path) -> None:
    """Write a PNG; raises MissingPackageError without matplotlib, OperationError where `path` cannot be written."""
    layers = [layer for layer in prediction.layers if layer.macs_dense]
    height = max(_LEAST_HEIGHT, _INCHES_A_LAYER * len(layers) + 1.4)
    figure = new_figure(11.5, height, "drawing the prediction")
    roofs, bars = figure.subplots(1, 2)
    figure.suptitle(f"PREDICTED, not measured: {prediction.model} on {prediction.profile}, {prediction.precision}, "
                    f"{prediction.macs_share:.0%} of the dense MACs")
    _draw_roofs(roofs, prediction, layers)
    _draw_bars(bars, prediction, layers)
    save_figure(figure, path)


def _draw_roofs(axes: Any, prediction: Prediction, layers: list[LayerPrediction]) -> None:
    roof = prediction.roof
    points = [(layer.macs_dense / layer.bytes_dense, layer.macs / layer.bytes) for layer in layers]
    shown = [value for point in points for value in point if value > 0]  # a layer of which nothing is kept has no place
    low, high = min(shown), max(shown)
    x = np.geomspace(min(low, roof.balance) / 2, max(high, roof.balance) * 2, 200)
    axes.loglog(x, np.minimum(x * roof.bytes_per_s, roof.macs_per_s) / 1e9, color="black", linewidth=1.2)
    axes.axvline(roof.balance, color="black", linewidth=0.6, linestyle=":")
    axes.annotate(f"{roof.balance:.1f} MAC a byte", (roof.balance, 0.02), xycoords=("data", "axes fraction"),
                  fontsize=7.5, rotation=90, ha="right")
    for color, marker, name, at in ((DENSE, "o", "dense", 0), (GATED, "x", "at the masks", 1)):
        placed = [(p[at], _rate(layer, at)) for p, layer in zip(points, layers) if p[at] > 0]
        axes.scatter([x for x, _ in placed], [rate for _, rate in placed], s=24, color=color, marker=marker, label=name,
                     alpha=0.8)
    axes.set_xlabel("multiply-accumulates per byte (counted)")
    axes.set_ylabel("GMAC/s" + ("" if prediction.assumptions is None else ", by the estimate"))
    axes.set_title(f"roofs: {roof.macs_per_s / 1e9:.0f} GMAC/s, {roof.bytes_per_s / 1e9:.1f} GB/s", fontsize=9)
    if max(_rate(layer, at) for layer in layers for at in (0, 1)) * 1e9 > roof.macs_per_s:
        axes.annotate("above the roof: Winograd executes fewer MACs than are counted", (0.02, 0.97), fontsize=7.5,
                      xycoords="axes fraction", va="top")
    axes.legend(fontsize=8, loc="lower right")


def _rate(layer: LayerPrediction, at: int) -> float:
    macs = (layer.macs_dense, layer.macs)[at]
    ms = _times(layer)[at]
    return macs / ms / 1e6 if ms else 0.0


def _times(layer: LayerPrediction) -> tuple[float, float]:
    if layer.dense_ms is None or layer.ours_ms is None:
        return layer.roofline_dense_ms, layer.roofline_ms
    return layer.dense_ms, layer.ours_ms


def _draw_bars(axes: Any, prediction: Prediction, layers: list[LayerPrediction]) -> None:
    places = np.arange(len(layers))
    for color, name, at, shift in ((DENSE, "dense", 0, -0.2), (GATED, "at the masks", 1, 0.2)):
        axes.barh(places + shift, [_times(layer)[at] for layer in layers], height=0.4, color=color, label=name)
    axes.set_yticks(places, [layer.name[-34:] for layer in layers], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ms, " + ("roofline" if prediction.assumptions is None else "estimate of our kernels, gates apart"))
    axes.legend(fontsize=8, loc="lower right")
