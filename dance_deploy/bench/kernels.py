"""`dance-bench kernels`: our kernels layer by layer, at many keep rates, against dense runtimes, as ratios."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from dance_deploy.bench.keep_cases import DENSE, KINDS, KeepCase, keep_cases, masks_of
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, OURS, dense_way, way
from dance_deploy.bench.layers import Layer
from dance_deploy.bench.process import PeerProcess
from dance_deploy.cost import ConvCost
from dance_deploy.errors import OperationError

CUDA = "cuda"  # the clock of the CUDA kernels: events on the GPU
CUDA_RIVALS = ("cudnn", "cudnn2d")  # its 3D convolution; the same as a 2D one a kernel frame, added up
NEVER_SLOWER = 1.02  # than our own dense time: the promise for any mask


class Spread(NamedTuple):
    """Median and quartiles over the rounds."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Spread":
        """Of one value a round."""
        low, middle, high = np.percentile(values, [25, 50, 75])
        return cls(float(middle), float(low), float(high))


@dataclass
class CaseResult:
    """One kind and rate of masks on one layer. kept_macs: share, counted; variant: what the kernels chose.

    over_dense: time over our own dense time; over_ideal: over our dense time of the same variant x kept_macs, where
    Winograd of either tile, or mixed with single pixels, counts as one. direct_over_ideal: the same of the direct
    kernel alone, None where it was not measured.
    """

    case: KeepCase
    kept_macs: float
    variant: str
    ms: float
    over_dense: Spread
    over_ideal: Spread
    direct_over_ideal: Spread | None = None


@dataclass
class LayerResult:
    """One layer. round_ms: way or peer -> a figure a round; best_peer: the fastest dense runtime, or None."""

    layer: Layer
    macs: int
    round_ms: dict[str, list[float]]
    dense_variant: str
    cases: list[CaseResult]
    best_peer: str | None
    over_best: Spread | None = None
    direct_over: dict[str, Spread] = field(default_factory=dict)
    break_even: dict[str, float | None] = field(default_factory=dict)

    def ms(self, what: str) -> float:
        """Median over the rounds of a way or a peer."""
        return float(np.median(self.round_ms[what]))

    @property
    def dense_ms(self) -> float:
        """Our own dense time, by the variant that is chosen."""
        return self.ms(way(AUTOMATIC, DENSE))

    @property
    def worst(self) -> CaseResult | None:
        """The case that is slowest against our own dense time."""
        return max(self.cases, key=lambda c: c.over_dense.median, default=None)

    @property
    def never_slower(self) -> bool:
        """Whether no mask that was tried takes longer than our own dense time and 2 %."""
        return self.worst is None or self.worst.over_dense.median <= NEVER_SLOWER

    def to_json(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {"layer": self.layer.label, "times": self.layer.times, "geometry": self.layer.geometry._asdict(),
                "macs": self.macs, "round_ms": self.round_ms, "dense_variant": self.dense_variant,
                "dense_ms": self.dense_ms, "best_peer": self.best_peer,
                "dense_over_best_peer": self.over_best and self.over_best._asdict(),
                "direct_over": {peer: s._asdict() for peer, s in self.direct_over.items()},
                "cases": [{**c.case._asdict(), "kept_macs": c.kept_macs, "variant": c.variant, "ms": c.ms,
                           "over_dense": c.over_dense._asdict(), "over_ideal": c.over_ideal._asdict(),
                           "direct_over_ideal": c.direct_over_ideal and c.direct_over_ideal._asdict()}
                          for c in self.cases],
                "break_even_kept_macs": self.break_even, "never_slower": self.never_slower}


class Settings(NamedTuple):
    """rounds: how often peers take turns; runs: of each in its turn, their median is the round's figure;
    clock: a name of CLOCKS, or CUDA."""

    threads: int
    rounds: int
    runs: int
    seed: int
    clock: str = "wall"


def bench_kernels(layers: Sequence[Layer], against: Sequence[str], settings: Settings,
                  progress: Callable[[str], None] = lambda text: None) -> list[LayerResult]:
    """Measure layer after layer; peers alternate within each. Raises DanceError where a peer fails."""
    workers: list[PeerProcess] = []
    try:
        for peer in dict.fromkeys((OURS, *against)):
            workers.append(PeerProcess("dance_deploy.bench.kernel_worker", peer, peer, str(settings.threads),
                                       str(settings.seed), settings.clock))
        results = []
        for i, layer in enumerate(layers):
            progress(f"layer {i + 1} of {len(layers)}: {layer.label}")
            results.append(_bench_layer(layer, workers, settings))
        return results
    finally:
        for worker in workers:
            worker.close()


def _bench_layer(layer: Layer, workers: list[PeerProcess], settings: Settings) -> LayerResult:
    geometry = layer.geometry
    _check_same_answer(layer, {w.peer: w.ask(json.dumps({"layer": list(geometry)}))["check"] for w in workers})
    cases = keep_cases(geometry)
    variants = {case: workers[0].ask(json.dumps({"variant": case}))["variant"] for case in cases}
    ours = [[way(AUTOMATIC, case) for case in cases], [GATE]]  # each list has threads of its own
    if any(variant != "direct" for variant in variants.values()):
        ours.append([way(DIRECT, case) for case in cases])
    ways = {w.peer: ours if w.peer == OURS else [[dense_way(w.peer)]] for w in workers}
    rounds: dict[str, list[float]] = {}
    for number in range(settings.rounds + 1):
        # the order turns, so that none always runs after the same neighbour; the first round warms up
        for worker in workers[number % len(workers):] + workers[:number % len(workers)]:
            taken = worker.ask(json.dumps({"ways": ways[worker.peer], "runs": settings.runs if number else 1}))["ms"]
            for name, ms in taken.items() if number else ():
                rounds.setdefault(name if worker.peer == OURS else worker.peer, []).append(ms)
    return result_of(layer, cases, variants, rounds, settings.seed)


def _check_same_answer(layer: Layer, samples: dict[str, list[float]]) -> None:
    base = np.array(samples[OURS])
    for peer, values in samples.items():
        error = np.linalg.norm(np.array(values) - base) / max(float(np.linalg.norm(base)), 1e-30)
        if not error <= 1e-3:
            raise OperationError(f"layer '{layer.label}': '{peer}' computes another result than ours (relative "
                                 f"{error:.1e}), so their times cannot be compared")


def result_of(layer: Layer, cases: Sequence[KeepCase], variants: dict[KeepCase, str], rounds: dict[str, list[float]],
              seed: int) -> LayerResult:
    """Ratios from what was measured; each is formed within a round."""
    cost = ConvCost(layer.geometry)
    macs = cost.dense().macs
    dense = np.array(rounds[way(AUTOMATIC, DENSE)])
    direct = np.array(rounds.get(way(DIRECT, DENSE), dense))
    found = []
    for case in cases[1:]:
        taken = np.array(rounds[way(AUTOMATIC, case)])
        share = cost.gated(*masks_of(case, layer.geometry, seed)).macs / macs
        same = dense if (variants[case] == "direct") == (variants[DENSE] == "direct") else direct
        alone = rounds.get(way(DIRECT, case))
        found.append(CaseResult(case, share, variants[case], float(np.median(taken)), Spread.of(taken / dense),
                                _over_ideal(taken, same, share),
                                None if alone is None else _over_ideal(np.array(alone), direct, share)))
    peers = [name for name in rounds if name != GATE and " " not in name]
    best = min(peers, key=lambda name: float(np.median(rounds[name])), default=None)
    result = LayerResult(layer, macs, rounds, variants[DENSE], found, best)
    if best is not None:
        result.over_best = Spread.of(dense / np.array(rounds[best]))
        result.direct_over = {peer: Spread.of(direct / np.array(rounds[peer])) for peer in peers}
    for kind in KINDS:
        of_kind = [(c.kept_macs, c.ms) for c in found if c.case.kind == kind]
        if of_kind:
            result.break_even[kind] = break_even(of_kind, result.dense_ms, result.ms(GATE))
    return result


def _over_ideal(taken: np.ndarray, dense: np.ndarray, share: float) -> Spread:
    return Spread.of(taken / (dense * share)) if share > 0 else Spread(float("inf"), float("inf"), float("inf"))


def break_even(points: Sequence[tuple[float, float]], dense_ms: float, gate_ms: float) -> float | None:
    """Highest share of MACs at which gate and gated convolution together are faster than the dense one, or None.

    points: (share, ms of the gated convolution); the dense time stands at share 1; straight lines between.
    """
    line = sorted([*points, (1.0, dense_ms)], reverse=True)
    for (high, slow), (low, fast) in zip(line, line[1:]):
        if fast + gate_ms < dense_ms:
            # above zero at `high`, below it at `low`
            above, below = slow + gate_ms - dense_ms, fast + gate_ms - dense_ms
            return high if above <= 0 else low + (high - low) * below / (below - above)
    return None
