"""Times of every variant of every case, by C calls: no ONNX Runtime between."""

from __future__ import annotations

import ctypes
import time
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from dance_deploy.bench.keep_cases import masks_of
from dance_deploy.bench.native import conv_of
from dance_deploy.bench.tune.cases import TuneCase, TuneLayer
from dance_deploy.errors import OperationError

VARIANTS = (1, 2, 4)  # direct, Winograd 2x2, 4x4: as c_api.h numbers them
RUNS = 2  # of a variant in its turn, after one to warm up; the fastest counts


class Timed(NamedTuple):
    """A case with its masks (uint8) and milliseconds [rounds, 3] in the order of VARIANTS."""

    case: TuneCase
    masks: list[np.ndarray]
    ms: np.ndarray

    def log_ratios(self) -> np.ndarray:
        """[2]: logarithms of the 2x2 and 4x4 tiles' time over the direct kernel's, formed within a round; medians."""
        logs = np.log(self.ms)
        return np.median(logs[:, 1:] - logs[:, :1], axis=0)

    def relative(self) -> np.ndarray:
        """[3]: time of each variant over that of the fastest."""
        logs = np.concatenate([[0.0], self.log_ratios()])
        return np.exp(logs - logs.min())


def unsteadiness(timed: Sequence[Timed]) -> float:
    """By which share times' ratios differ between rounds: the mean distance from the middle, of the middle case."""
    def of(one: Timed) -> float:
        logs = np.log(one.ms)
        ratios = logs[:, 1:] - logs[:, :1]
        return float(np.abs(ratios - np.median(ratios, axis=0)).mean())

    return float(np.median([of(one) for one in timed]))


class Plan(NamedTuple):
    """How to measure. seconds: about how long to take for all, as far as `least` and `most` rounds allow."""

    threads: int
    bf16: bool
    seconds: float
    least: int
    most: int
    seed: int


def measure(lib: ctypes.CDLL, cases: Sequence[TuneCase], plan: Plan, progress: Callable[[str], None]) -> list[Timed]:
    """Time all cases, layer by layer; variants take turns. Raises OperationError where the library refuses one."""
    layers = list(dict.fromkeys(case.layer for case in cases))
    found, begun = [], time.monotonic()
    for i, layer in enumerate(layers):
        progress(f"layer {i + 1} of {len(layers)}: {layer.label}")
        # what the layers before left of their time is for those to come
        until = time.monotonic() + (plan.seconds - (time.monotonic() - begun)) / (len(layers) - i)
        with _Loaded(lib, layer, plan) as loaded:
            found += _time_layer(loaded, [case for case in cases if case.layer == layer], plan, until)
    return found


def _time_layer(loaded: "_Loaded", cases: list[TuneCase], plan: Plan, until: float) -> list[Timed]:
    masks = [[np.ascontiguousarray(mask, np.uint8) for mask in masks_of(case.keep, case.layer.geometry, case.seed)]
             for case in cases]
    rounds: list[list[list[float]]] = []
    while len(rounds) < plan.least or (len(rounds) < plan.most and time.monotonic() < until):
        number = len(rounds) % len(VARIANTS)
        # the order turns, so that none always runs after the same neighbour
        order = VARIANTS[number:] + VARIANTS[:number]
        taken = [{variant: loaded.ms(variant, mask) for variant in order} for mask in masks]
        rounds.append([[ms[variant] for variant in VARIANTS] for ms in taken])
    times = np.array(rounds)
    return [Timed(case, mask, times[:, i]) for i, (case, mask) in enumerate(zip(cases, masks))]


class _Loaded:
    """One layer with its weights packed, as a session holds it."""

    def __init__(self, lib: ctypes.CDLL, layer: TuneLayer, plan: Plan) -> None:
        g, rng = layer.geometry, np.random.default_rng(plan.seed)
        self.lib, self.threads = lib, plan.threads
        weights = (g.out_channels, g.in_channels, *g.kernel)
        self.arrays = [rng.standard_normal(shape, dtype=np.float32)
                       for shape in ((1, *g.in_size, g.in_channels), weights, (g.out_channels,))]
        self.y = np.empty((1, *g.out_size, g.out_channels), np.float32)
        self.times, self.used = np.empty((RUNS + 1, 2)), ctypes.c_int32()
        # what a gate's neighbour does in a network: negative values are clipped
        self.conv = conv_of(g, threads=plan.threads, repeats=RUNS + 1, minimum=0.0, bf16=plan.bf16,
                            used=ctypes.pointer(self.used))
        self.conv.packed = lib.dance_pack(ctypes.byref(self.conv), _pointer(self.arrays[1]))
        if not self.conv.packed:
            raise OperationError(f"layer {layer.label}: there is no memory for its weights")
        self.label = layer.label

    def __enter__(self) -> "_Loaded":
        return self

    def __exit__(self, *_: Any) -> None:
        self.lib.dance_unpack(self.conv.packed)

    def ms(self, variant: int, masks: list[np.ndarray]) -> float:
        """Milliseconds of the fastest run; the processor's where one thread computes: other work disturbs them less."""
        self.conv.variant = variant
        arrays = [*self.arrays, *masks]
        status = self.lib.dance_gated_conv3d(ctypes.byref(self.conv), *map(_pointer, arrays), None, _pointer(self.y),
                                             _pointer(self.times))
        if status != 0 or self.used.value != variant:
            raise OperationError(f"layer {self.label}: the kernels refuse variant {variant} (status {status}); build "
                                 "them anew with: make -C kernels")
        return 1e3 * float(self.times[1:, 1 if self.threads == 1 else 0].min())


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
