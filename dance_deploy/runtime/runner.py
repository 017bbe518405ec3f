"""One bundle ready to run: clips in, predictions with their cost and latency out."""
import math
import time
from typing import Any, List, NamedTuple, Optional

import numpy as np

from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError, OperationError
from dance_deploy.runtime import backends
from dance_deploy.runtime.costs import CostCounter


class LatencyMs(NamedTuple):
    """Milliseconds of one clip: from the normalised clip to the logits. body: the whole network in dense mode."""

    controller: float
    body: float
    total: float


class Result(NamedTuple):
    """What one clip gave.

    logits, scores: float32 [K], scores sum to 1; kept: int64 [L, 3] frames, channels, features kept by each gate;
    masks: one LayerMasks a gate, None in dense mode; macs, bytes: counted from the masks, controller included;
    macs_dense, bytes_dense: of the network without gates.
    """

    logits: Any
    scores: Any
    kept: Any
    masks: Optional[List[backends.LayerMasks]]
    macs: int
    macs_dense: int
    bytes: int
    bytes_dense: int
    latency_ms: LatencyMs


class Runner(object):
    """A bundle loaded into a backend. Use from one thread; close() or leave the `with` block when done."""

    def __init__(self, bundle, backend=backends.DEFAULT, gated=True, dense=False, threads=None, precision=None,
                 tuned_costs=True):
        """bundle: an opened Bundle; gated, dense: what is to be run; threads: CPU threads, None = backend's choice;
        precision, tuned_costs: as in BackendBase.load()."""
        self.manifest = bundle.manifest
        self.backend = backends.create(backend)
        self.backend.load(bundle, gated=gated, dense=dense, threads=threads, precision=precision,
                          tuned_costs=tuned_costs)
        self.costs = CostCounter(bundle.manifest)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.backend.close()

    def infer(self, clip, budget=None):
        """Run controller and gated body.

        clip: float32 [1, 3, T, H, W], normalised; budget: share of the dense MACs to aim at, in (0, 1]; None: the
        bundle's default. Returns a Result. Raises InputError for a wrong clip or budget, OperationError where the
        backend fails.
        """
        budget = checked_budget(self.manifest.budget.default if budget is None else budget)
        start = time.perf_counter()
        body, between = self.backend.run_gated(clip, budget)
        end = time.perf_counter()
        cost = self.costs.gated(body.masks)
        return self._result(body.logits, body.kept, body.masks, cost, _latency(start, between, end))

    def infer_dense(self, clip):
        """Run the network without gates. Returns a Result that keeps everything."""
        start = time.perf_counter()
        logits = self.backend.run_dense(clip)
        end = time.perf_counter()
        return self._result(logits, self.costs.all_kept, None, self.costs.dense, _latency(start, start, end))

    def _result(self, logits, kept, masks, cost, latency):
        if not math.isfinite(logits.sum(dtype=np.float64)):
            raise OperationError("the model returned numbers that are not finite; check the bundle with --self-test")
        dense = self.costs.dense
        return Result(logits, scores_from_logits(logits), kept, masks, cost.macs, dense.macs, cost.bytes, dense.bytes,
                      latency)


def open_runner(path, backend=backends.DEFAULT, gated=True, dense=False, threads=None, precision=None,
                tuned_costs=True):
    """Verify the bundle in the folder `path` and load it: a Runner. Each file is read from disk once."""
    backends.check_name(backend)
    bundle = open_bundle(path, keep=backends.files_needed(gated, dense))
    return Runner(bundle, backend, gated=gated, dense=dense, threads=threads, precision=precision,
                  tuned_costs=tuned_costs)


def checked_budget(budget):
    """`budget` as a float; raises InputError unless it is in (0, 1]."""
    if not (math.isfinite(budget) and 0.0 < budget <= 1.0):
        raise InputError("budget is {}, expected a share of the MACs above 0 and at most 1, for example 0.5".format(
            budget))
    return float(budget)


def scores_from_logits(logits):
    """Softmax of [K] logits: float32 [K]."""
    shifted = np.exp(np.subtract(logits, logits.max(), dtype=np.float64))
    shifted /= shifted.sum()
    return shifted.astype(np.float32)


def _latency(start, between, end):
    return LatencyMs(1e3 * (between - start), 1e3 * (end - between), 1e3 * (end - start))
