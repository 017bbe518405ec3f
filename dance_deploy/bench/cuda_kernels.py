"""`dance-bench kernels --backend cuda`: the CUDA kernels layer by layer against cuDNN, masks and table as on a CPU."""

from __future__ import annotations

import statistics
from typing import Callable, Sequence

import numpy as np

from dance_deploy.bench.conv_graph import input_of, weights_of
from dance_deploy.bench.cuda_gpu import Gpu
from dance_deploy.bench.cuda_peers import RIVALS, Ours, Peer
from dance_deploy.bench.keep_cases import DENSE, keep_cases, masks_of
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, OURS, dense_way, unequal_pads, way
from dance_deploy.bench.kernels import LayerResult, Settings, result_of
from dance_deploy.bench.layers import Layer
from dance_deploy.errors import OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime.backends import LayerMasks

AGREES = 1e-3  # of the norm: room for Winograd in float32, far below a wrong kernel
PEAK_BLOCKS = 16  # a multiprocessor
PEAK_RUNS = 15


def bench_cuda_kernels(gpu: Gpu, layers: Sequence[Layer], against: Sequence[str], settings: Settings,
                       progress: Callable[[str], None] = lambda text: None) -> list[LayerResult]:
    """Measure layer after layer, peers in turn on one stream. Raises OperationError where results do not agree."""
    results = []
    for i, layer in enumerate(layers):
        progress(f"layer {i + 1} of {len(layers)}: {layer.label}")
        results.append(_bench_layer(gpu, layer, against, settings))
    return results


def fma_peak(gpu: Gpu) -> float:
    """MACs a millisecond of a loop of float32 FMAs in registers, here and now: what kernels are held against."""
    blocks = gpu.multiprocessors() * PEAK_BLOCKS
    out = gpu.empty((blocks,))
    found: list[int] = []

    def launch() -> None:
        found.append(gpu.library.fma_peak(out.data_ptr(), blocks, gpu.stream()))

    gpu.ms(launch)  # warms up
    taken = statistics.median(gpu.ms(launch) for _ in range(PEAK_RUNS))
    return found[0] / taken


def _bench_layer(gpu: Gpu, layer: Layer, against: Sequence[str], settings: Settings) -> LayerResult:
    geometry, seed = layer.geometry, settings.seed
    ours = Ours(gpu, geometry, seed)
    peers: dict[str, Peer] = {OURS: ours, **{name: RIVALS[name](gpu, geometry, seed) for name in against}}
    cases = keep_cases(geometry)
    for name, peer in peers.items():
        _check(layer, f"'{name}'", peer.output(dense_way(name)), _expected(gpu, geometry, seed))
    for case in cases:
        masks = masks_of(case, geometry, seed)
        _check(layer, f"our kernel keeping {case.rate:.0%} of {case.kind}", ours.output(way(AUTOMATIC, case)),
               _expected(gpu, geometry, seed, masks))
    turns = [(OURS, what) for what in [way(AUTOMATIC, case) for case in cases] + [way(DIRECT, DENSE), GATE]]
    turns += [(name, dense_way(name)) for name in against]
    rounds: dict[str, list[float]] = {}
    for number in range(settings.rounds + 1):  # the first warms up
        at = number % len(turns)
        times: dict[str, list[float]] = {}
        for _ in range(settings.runs if number else 1):
            for name, what in turns[at:] + turns[:at]:
                times.setdefault(what if name == OURS else name, []).append(peers[name].ms(what))
        for what, taken in times.items() if number else ():
            rounds.setdefault(what, []).append(statistics.median(taken))
    return result_of(layer, cases, dict.fromkeys(cases, ours.variants[AUTOMATIC]), rounds, seed)


def _expected(gpu: Gpu, geometry: Conv3dGeometry, seed: int, masks: LayerMasks | None = None) -> np.ndarray:
    """Y by torch's conv3d of what the masks keep: no kernel of ours has a part in it."""
    torch = gpu.torch
    x = input_of(geometry, seed)
    if masks is not None:
        frame, channel, feature = masks
        x = x * frame[:, None, None] * channel[:, None, None, None] * feature
    x = torch.nn.functional.pad(gpu.tensor(x), unequal_pads(geometry))
    w, b = (gpu.tensor(array) for array in weights_of(geometry, seed))
    y = torch.nn.functional.conv3d(x, w, b, geometry.strides, tuple(map(min, geometry.pads[:3], geometry.pads[3:])),
                                   geometry.dilations, geometry.group)
    return gpu.array(y)


def _check(layer: Layer, who: str, found: np.ndarray, expected: np.ndarray) -> None:
    error = float(np.linalg.norm(found.astype(np.float64) - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
    if not error <= AGREES:
        raise OperationError(f"layer '{layer.label}': {who} computes another result than torch's conv3d of the same "
                             f"input (relative {error:.1e}), so its time means nothing")


def lines_of_peak(results: Sequence[LayerResult], peak: float) -> list[str]:
    """What share of the peak the dense direct kernels reach. peak: MACs a millisecond."""
    shares = ", ".join(f"{r.layer.label} {share_of_peak(r, peak):.2f}" for r in results)
    return [f"FP32 FMA peak, measured with FMAs in registers alone: {peak / 1e9:.2f} TMAC/s; the direct kernels' share "
            "of it, dense:", "  " + shares]


def share_of_peak(result: LayerResult, peak: float) -> float:
    """MACs of the dense layer over the time of the direct kernel, over the peak."""
    return result.macs / result.ms(way(DIRECT, DENSE)) / peak
