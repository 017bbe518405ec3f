"""The controller as plain ONNX nodes: the same arithmetic as method.controller.Controller.forward at batch 1."""

from __future__ import annotations

import numpy as np

from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.method.controller import FRAME_BINS, GRID, OPEN_RAMP, Controller, resampling_matrix

_EPS = np.float32(1e-12)  # as in method.saliency: an all-zero activation gives 0, not NaN


def emit_controller(builder: OnnxBuilder, controller: Controller, stem: str, stem_shape: tuple[int, ...],
                    budget: str, magnitudes: tuple[str, str] | None = None, *, last: bool = False) -> str:
    """Add nodes from `stem` and `budget` [1] to tau [L, 3]; returns tau's name.

    stem_shape: (1, C, T, H, W), also where the tensor is [1, T, H, W, C] (last); magnitudes: of stem
    (names.MAGNITUDES), where the op that makes it writes them.
    """
    fed = _fed_budget(builder, controller, budget)
    floor = builder.constant("controller.floor", np.array(0.01, np.float32))
    log = builder.node("Log", [builder.node("Max", [fed, floor], "controller.fed_floored")], "controller.fed_log")
    features = [*_statistics(builder, stem, stem_shape, magnitudes, last), fed, log]
    x = builder.node("Concat", features, "controller.features", axis=1)
    for name in ("hidden", "output"):
        layer = controller.get_submodule(name)
        weight, bias = (builder.constant(f"controller.{name}.{k}", layer.get_parameter(k).detach().cpu().numpy())
                        for k in ("weight", "bias"))
        x = builder.node("Gemm", [x, weight, bias], f"controller.{name}", transB=1)
        if name == "hidden":
            x = builder.node("Relu", [x], "controller.relu")
    share = builder.node("Sigmoid", [x], "controller.sigmoid")
    rows = builder.node("Reshape", [share, builder.ints(controller.gates, 3)], "controller.rows")
    scale = builder.constant("controller.tau_scale", controller.tau_scale.detach().cpu().numpy())
    scaled = builder.node("Mul", [rows, scale], "controller.scaled")
    return builder.node("Mul", [scaled, _opening(builder, fed)], "tau")


def _fed_budget(builder: OnnxBuilder, controller: Controller, budget: str) -> str:
    """The calibrated piecewise linear map, [1, 1]."""
    asked, fed = (getattr(controller, k).detach().cpu().numpy() for k in ("asked", "fed"))
    low, high = (builder.constant(f"controller.{k}", v[None]) for k, v in (("low", asked[:-1]), ("high", asked[1:])))
    slope = builder.constant("controller.slope", (np.diff(fed) / np.diff(asked)).astype(np.float32)[None])
    start = builder.constant("controller.start", fed[:1].reshape(1, 1))
    wanted = builder.node("Reshape", [budget, builder.ints(1, 1)], "controller.budget")
    clamped = builder.node("Min", [builder.node("Max", [wanted, low], "controller.from_low"), high], "controller.part")
    part = builder.node("Mul", [builder.node("Sub", [clamped, low], "controller.over_low"), slope], "controller.sloped")
    return builder.node("Add", [builder.reduce("ReduceSum", part, [1], "controller.sum", keepdims=1), start],
                        "controller.fed")


def _opening(builder: OnnxBuilder, fed: str) -> str:
    one, zero, ramp = (builder.constant(f"controller.{k}", np.array(v, np.float32))
                       for k, v in (("one", 1.0), ("zero", 0.0), ("ramp", OPEN_RAMP)))
    left = builder.node("Div", [builder.node("Sub", [one, fed], "controller.left"), ramp], "controller.ramped")
    return builder.node("Clip", [left, zero, one], "controller.opening")


def _statistics(builder: OnnxBuilder, stem: str, stem_shape: tuple[int, ...], magnitudes: tuple[str, str] | None,
                last: bool) -> list[str]:
    """Normalised magnitudes of the stem: resampled frames, channels, and the grid, each [1, n]."""
    _, _, t, h, w = stem_shape
    over_channels, over_frames = (2, 1) if last or magnitudes else (1, 2)    # axes of the means over pixels
    if magnitudes is None:
        a = builder.node("Abs", [stem], "controller.abs")
        # one pass over the large tensor serves frames and channels
        means = builder.reduce("ReduceMean", a, [2, 3] if last else [3, 4], "controller.per_channel_frame")
        # one axis after the other: ONNX Runtime has a fast way for that (1.31: 0.5 ms instead of 2.3 for 64x16x56x56;
        # channels last 0.4, and 3.8 where the frames come first)
        per_pixel = builder.reduce("ReduceMean", a, [4 if last else 2], "controller.per_pixel")
    else:
        means, per_pixel = magnitudes
    frames = _relative(builder, builder.reduce("ReduceMean", means, [over_channels], "controller.frames"),
                       "controller.frames")
    channels = _relative(builder, builder.reduce("ReduceMean", means, [over_frames], "controller.channels"),
                         "controller.channels")
    pixels = builder.reduce("ReduceMean", per_pixel, [1], "controller.pixels")
    flat = builder.node("Reshape", [pixels, builder.ints(1, h * w)], "controller.pixels_flat")
    grid = builder.node("Reshape", [_relative(builder, flat, "controller.pixels"), builder.ints(h, w)],
                        "controller.pixels_grid")
    bins = builder.constant("controller.frame_bins", resampling_matrix(t, FRAME_BINS))
    rows = builder.constant("controller.grid_rows", np.ascontiguousarray(resampling_matrix(h, GRID[0]).T))
    columns = builder.constant("controller.grid_columns", resampling_matrix(w, GRID[1]))
    binned = builder.node("MatMul", [frames, bins], "controller.frames_binned")
    cells = builder.node("MatMul", [builder.node("MatMul", [rows, grid], "controller.grid_h"), columns],
                         "controller.grid")
    return [binned, channels, builder.node("Reshape", [cells, builder.ints(1, GRID[0] * GRID[1])],
                                           "controller.grid_flat")]


def _relative(builder: OnnxBuilder, m: str, name: str) -> str:
    eps = builder.constant("controller.eps", np.array(_EPS, np.float32))
    mean = builder.reduce("ReduceMean", m, [1], name + "_mean", keepdims=1)
    return builder.node("Div", [m, builder.node("Max", [mean, eps], name + "_floor")], name + "_relative")
