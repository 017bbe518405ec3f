"""`dance-bench model`: a bundle against dense runtimes, in one run, interleaved, as ratios."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np

from dance_deploy.bench.forced import forced_masks
from dance_deploy.bench.peers import DESCRIPTIONS, FLOAT32_ONLY, Case, golden_clip
from dance_deploy.bench.process import PeerProcess
from dance_deploy.bundle import Bundle, open_bundle
from dance_deploy.errors import OperationError
from dance_deploy.runtime.runner import Runner

BASE = "gated"
# largest relative difference between peers with nothing dropped: above, they do not compute the same network
SAME_ANSWER = {"fp32": 1e-3, "bf16": 5e-2}


@dataclass
class Accuracy:
    """Logits on the golden clip against float32's, with the same masks or none: largest difference over their range."""

    difference: float
    same_label: bool


@dataclass
class Figures:
    """One peer's times: median of each round in ms; ratio of each round to our gated time.

    memory_mb, peak_mb: resident memory of the peer's process after the last round (None where the system does not say)
    and at its peak, loading included; the interpreter and the runtime's own libraries are part of both. accuracy: where
    this is not float32.
    """

    peer: str
    round_ms: list[float]
    ratios: list[float]
    memory_mb: float | None
    peak_mb: float
    accuracy: Accuracy | None = None

    @property
    def median_ms(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.round_ms)

    def ratio(self) -> tuple[float, float, float]:
        """Median, first and third quartile of the ratios to our gated time."""
        low, middle, high = np.percentile(self.ratios, [25, 50, 75])
        return float(middle), float(low), float(high)


@dataclass
class Outcome:
    """What one benchmark found. macs_share: of the dense MACs, counted, for the gated run."""

    bundle: str
    model: str
    case: Case
    macs_share: float
    figures: list[Figures]

    def to_json(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {"bundle": self.bundle, "model": self.model, **self.case._asdict(), "macs_share": self.macs_share,
                "peers": [{"peer": f.peer, "median_ms": f.median_ms, "round_ms": f.round_ms,
                           "time_over_gated": dict(zip(("median", "q1", "q3"), f.ratio())),
                           "memory_mb": f.memory_mb, "peak_mb": f.peak_mb,
                           **({"accuracy": vars(f.accuracy)} if f.accuracy else {})} for f in self.figures]}


class Worker:
    """A peer's process."""

    def __init__(self, bundle: Path, peer: str, case: Case) -> None:
        self.peer = peer
        self._process = PeerProcess("dance_deploy.bench.worker", peer, str(bundle), peer, json.dumps(case._asdict()))
        try:
            self.logits = np.array(self._process.answer()["ready"])
        except BaseException:
            self._process.close()
            raise
        self.memory_mb: float | None = None
        self.peak_mb = 0.0

    def times_ms(self, runs: int) -> list[float]:
        """Run the golden clip `runs` times; milliseconds of each."""
        answer = self._process.ask(str(runs))
        self.memory_mb, self.peak_mb = answer["memory_mb"], answer["peak_mb"]
        return answer["ms"]

    def close(self) -> None:
        """End the process."""
        self._process.close()


def bench_model(path: Path, against: Sequence[str], case: Case, *, rounds: int, runs: int,
                progress: Callable[[str], None] = lambda text: None) -> Outcome:
    """Time our gated body, our kernels with nothing dropped, and the dense peers `against`, alternating.

    A round runs each peer `runs` times, one after the other; its median is the round's figure, and the ratio to our
    gated time is taken within the round, so that a machine that slows down slows both sides of it.
    """
    bundle = open_bundle(path)
    share = _macs_share(bundle, case)
    workers: list[Worker] = []
    try:
        exact = ("float32",) if case.precision != "fp32" else ()
        for peer in dict.fromkeys((BASE, "kept", *exact, *against)):
            progress(f"loading {DESCRIPTIONS[peer]}")
            workers.append(Worker(path, peer, case))
        _check_same_answer([worker for worker in workers if worker.peer not in (BASE, "float32")], case.precision)
        accuracies = _accuracies(path, case, workers) if exact else {}
        medians: dict[str, list[float]] = {worker.peer: [] for worker in workers}
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            # the order turns, so that none always runs after the same neighbour
            for worker in workers[number % len(workers):] + workers[:number % len(workers)]:
                medians[worker.peer].append(statistics.median(worker.times_ms(runs)))
    finally:
        for worker in workers:
            worker.close()
    figures = [Figures(worker.peer, times, [t / base for t, base in zip(times, medians[BASE])], worker.memory_mb,
                       worker.peak_mb, accuracies.get(worker.peer))
               for worker in workers for times in [medians[worker.peer]]]
    return Outcome(str(path), bundle.manifest.model.name, case, share, figures)


def _macs_share(bundle: Bundle, case: Case) -> float:
    with Runner(bundle) as runner:
        if case.rates is None:
            result = runner.infer(golden_clip(bundle), case.budget)
            return result.macs / result.macs_dense
        masks = forced_masks(bundle.manifest.gates, case.rates, case.pattern, case.seed)
        return runner.costs.gated(masks).macs / runner.costs.dense.macs


def _accuracies(path: Path, case: Case, workers: list[Worker]) -> dict[str, Accuracy]:
    """Of each peer that computes in case.precision."""
    logits = {worker.peer: worker.logits for worker in workers}
    if "onnxruntime" in logits:
        dense = logits["onnxruntime"]
    else:
        worker = Worker(path, "onnxruntime", case)
        worker.close()
        dense = worker.logits
    return {peer: Accuracy(float(np.abs(found - exact).max() / (np.ptp(exact) or 1.0)),
                           bool(np.argmax(found) == np.argmax(exact)))
            for peer, found in logits.items() if peer not in FLOAT32_ONLY
            for exact in [logits["float32"] if peer == BASE else dense]}


def _check_same_answer(dense: list[Worker], precision: str) -> None:
    """All peers with nothing dropped must compute the same logits, or their times mean nothing."""
    for worker in dense[1:]:
        size = max(float(np.linalg.norm(dense[0].logits)), 1e-30)
        error = float(np.linalg.norm(worker.logits - dense[0].logits)) / size
        if not error <= SAME_ANSWER[precision]:
            raise OperationError(f"'{worker.peer}' computes other logits than '{dense[0].peer}' (relative "
                                 f"{error:.1e}), so their times cannot be compared")
