"""The controller in ONNX: the same arithmetic as method.controller.Controller.forward at batch 1.

As plain nodes, for any runtime; and, where our library runs and the op that makes the stem hands its magnitudes on, as
one op of ours, `Thresholds`: forty nodes of a microsecond or two each are 5 % of the time of a small network.
"""

from __future__ import annotations

import numpy as np
from onnx import FunctionProto, helper

from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.method.controller import FED_FLOOR, FRAME_BINS, GRID, OPEN_RAMP, Controller, resampling_matrix
from dance_deploy.ops import names

_EPS = np.float32(1e-12)  # as in method.saliency: an all-zero activation gives 0, not NaN


def emit_controller(builder: OnnxBuilder, controller: Controller, stem: str, stem_shape: tuple[int, ...],
                    budget: str, *, last: bool = False) -> str:
    """Add standard nodes from `stem` and `budget` [1] to tau [L, 3]; returns tau's name.

    stem_shape: (1, C, T, H, W), also where the tensor is [1, T, H, W, C] (last).
    """
    a = builder.node("Abs", [stem], "controller.abs")
    # one pass over the large tensor serves frames and channels
    means = builder.reduce("ReduceMean", a, [2, 3] if last else [3, 4], "controller.per_channel_frame")
    # one axis after the other: ONNX Runtime has a fast way for that (1.31: 0.5 ms instead of 2.3 for 64x16x56x56;
    # channels last 0.4, and 3.8 where the frames come first)
    per_pixel = builder.reduce("ReduceMean", a, [4 if last else 2], "controller.per_pixel")
    parts = _parts(controller, stem_shape)
    given = {name: _constant(builder, name, value) for name, value in parts.items() if name not in ("asked", "fed")}
    asked, fed = parts["asked"], parts["fed"]
    pieces = [_constant(builder, name, value) for name, value in (
        ("low", asked[None, :-1]), ("high", asked[None, 1:]), ("start", fed[:1].reshape(1, 1)),
        ("slope", (np.diff(fed) / np.diff(asked)).astype(np.float32)[None]))]
    return _thresholds(builder, means, per_pixel, 2 if last else 1, _fed_budget(builder, budget, *pieces), given,
                       builder.ints(*stem_shape[3:]))


def emit_thresholds(builder: OnnxBuilder, controller: Controller, stem_shape: tuple[int, ...], budget: str,
                    magnitudes: tuple[str, str]) -> str:
    """The same as one op, from the stem's magnitudes (names.MAGNITUDES)."""
    given = [_constant(builder, name, value) for name, value in _parts(controller, stem_shape).items()]
    return builder.node(names.THRESHOLDS, [*magnitudes, budget, *given], "tau", domain=names.DOMAIN)


def thresholds_function(opset: int) -> FunctionProto:
    """The op `Thresholds` as a function of standard ops."""
    inputs = names.THRESHOLDS_INPUTS
    builder = OnnxBuilder(names.THRESHOLDS, opset, reserved=(*inputs, "tau"))
    given = {name: name for name in inputs}
    edges = {name: [builder.node("Unsqueeze", [_slice(builder, name, *ends), builder.ints(0)], f"{name}_{part}")
                    for part, ends in (("low", (0, -1)), ("high", (1, 1 << 30)))] for name in ("asked", "fed")}
    (low, high), (fed_low, fed_high) = edges["asked"], edges["fed"]
    slope = builder.node("Div", [builder.node("Sub", [fed_high, fed_low], "rise"),
                                 builder.node("Sub", [high, low], "run")], "slope")
    start = builder.node("Unsqueeze", [_slice(builder, "fed", 0, 1), builder.ints(0)], "start")
    size = _slice(builder, builder.node("Shape", [names.MAGNITUDES[1]], "shape"), 2, 4)
    fed = _fed_budget(builder, "budget", low, high, start, slope)
    tau = _thresholds(builder, *names.MAGNITUDES, 2, fed, given, size)
    builder.rename(tau, "tau")
    return helper.make_function(names.DOMAIN, names.THRESHOLDS, inputs, ["tau"], builder.nodes_with_constants(),
                                [helper.make_opsetid("", opset)])


def _parts(controller: Controller, stem_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What the controller has learnt and what follows from the stem's shape, as names.THRESHOLDS_INPUTS has it."""
    t, h, w = stem_shape[2:]
    found = {"frame_bins": resampling_matrix(t, FRAME_BINS),
             "grid_rows": np.ascontiguousarray(resampling_matrix(h, GRID[0]).T),
             "grid_columns": resampling_matrix(w, GRID[1])}
    learnt = {"asked": controller.asked, "fed": controller.fed, "tau_scale": controller.tau_scale}
    for layer in ("hidden", "output"):
        learnt[layer + "_W"], learnt[layer + "_B"] = controller.get_submodule(layer).parameters()
    found.update((name, value.detach().cpu().numpy()) for name, value in learnt.items())
    return {name: found[name] for name in names.THRESHOLDS_INPUTS if name in found}


def _constant(builder: OnnxBuilder, name: str, value: np.ndarray) -> str:
    return builder.constant("controller." + name, value)


def _slice(builder: OnnxBuilder, x: str, begin: int, end: int) -> str:
    return builder.node("Slice", [x, builder.ints(begin), builder.ints(end)], x + "_part")


def _thresholds(builder: OnnxBuilder, channel_magnitude: str, pixel_magnitude: str, channel_axis: int, fed: str,
                given: dict[str, str], size: str) -> str:
    """tau [L, 3]; channel_magnitude: means over pixels, its axes 1 and 2 are T and C (channel_axis: which is C);
    pixel_magnitude: over channels, [1, T, H, W]; fed: [1, 1]; given: names of the tensors of _parts; size: H, W."""
    floor = builder.constant("controller.floor", np.array(FED_FLOOR, np.float32))
    log = builder.node("Log", [builder.node("Max", [fed, floor], "controller.fed_floored")], "controller.fed_log")
    frames, channels = (
        _relative(builder, builder.reduce("ReduceMean", channel_magnitude, [axis], name), name)
        for name, axis in (("controller.frames", channel_axis), ("controller.channels", 3 - channel_axis)))
    pixels = builder.reduce("ReduceMean", pixel_magnitude, [1], "controller.pixels")
    flat = builder.node("Reshape", [pixels, builder.ints(1, -1)], "controller.pixels_flat")
    grid = builder.node("Reshape", [_relative(builder, flat, "controller.pixels"), size], "controller.pixels_grid")
    binned = builder.node("MatMul", [frames, given["frame_bins"]], "controller.frames_binned")
    rows = builder.node("MatMul", [given["grid_rows"], grid], "controller.grid_h")
    cells = builder.node("MatMul", [rows, given["grid_columns"]], "controller.grid")
    cells = builder.node("Reshape", [cells, builder.ints(1, -1)], "controller.grid_flat")
    x = builder.node("Concat", [binned, channels, cells, fed, log], "controller.features", axis=1)
    x = builder.node("Gemm", [x, given["hidden_W"], given["hidden_B"]], "controller.hidden", transB=1)
    x = builder.node("Relu", [x], "controller.relu")
    x = builder.node("Gemm", [x, given["output_W"], given["output_B"]], "controller.output", transB=1)
    share = builder.node("Sigmoid", [x], "controller.sigmoid")
    rows = builder.node("Reshape", [share, builder.ints(-1, 3)], "controller.rows")
    scaled = builder.node("Mul", [rows, given["tau_scale"]], "controller.scaled")
    return builder.node("Mul", [scaled, _opening(builder, fed)], "tau")


def _fed_budget(builder: OnnxBuilder, budget: str, low: str, high: str, start: str, slope: str) -> str:
    """The calibrated piecewise linear map, [1, 1]; low, high, slope: of each piece, [1, n]; start: [1, 1]."""
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


def _relative(builder: OnnxBuilder, m: str, name: str) -> str:
    eps = builder.constant("controller.eps", np.array(_EPS, np.float32))
    mean = builder.reduce("ReduceMean", m, [1], name + "_mean", keepdims=1)
    return builder.node("Div", [m, builder.node("Max", [mean, eps], name + "_floor")], name + "_relative")
