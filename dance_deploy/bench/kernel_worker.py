"""One peer of `dance-bench kernels` in a process of its own.

    python -m dance_deploy.bench.kernel_worker PEER THREADS SEED CLOCK

Answers each JSON line of stdin by one: {"layer": geometry} -> {"check": some values of the output}, then
{"ways": [[names]], "runs": n} -> {"ms": {name: median}}, and, ours only, {"variant": case} -> {"variant": name}.
Ways of one list take turns, each after a run of its own that is not timed, so that no way is charged with weights that
the one before it drove out of the caches; lists are measured one after the other. Ends when stdin does.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from dance_deploy.bench.keep_cases import KeepCase, masks_of
from dance_deploy.bench.kernel_peers import CLOCKS, PEERS, costs_entry, dense_way
from dance_deploy.bench.native import library, variant_used
from dance_deploy.errors import DanceError, OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime import kernels

SETTLE_S = 0.02  # threads of whoever ran before wait in a loop for a while, and would take our cores
SAMPLES = 64  # values of the output that are compared among peers


class Server:
    """Holds the layer that is being measured."""

    def __init__(self, peer: str, threads: int, seed: int, clock: str) -> None:
        self.peer, self.threads, self.seed, self.clock = peer, threads, seed, CLOCKS[clock]
        self.geometry: Conv3dGeometry | None = None
        self.loaded: Any = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What one line of stdin is answered by; raises DanceError."""
        if "layer" in asked:
            fields: list[Any] = [tuple(v) if isinstance(v, list) else v for v in asked["layer"]]
            return {"check": self._load(Conv3dGeometry(*fields))}
        if "variant" in asked:
            if self.geometry is None:
                raise OperationError("asked for a layer's variant before any layer was given")
            masks = masks_of(KeepCase(*asked["variant"]), self.geometry, self.seed)
            lib = library()
            return {"variant": variant_used(lib, self.geometry, masks, costs_entry(kernels.library_path()))}
        times: dict[str, float] = {}
        for ways in asked["ways"]:
            times.update(self._take_turns(ways, asked["runs"]))
        return {"ms": times}

    def _take_turns(self, ways: list[str], runs: int) -> dict[str, float]:
        time.sleep(SETTLE_S)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, taken in times.items():
                self.loaded.ms(way)
                taken.append(self.loaded.ms(way))
        return {way: statistics.median(taken) for way, taken in times.items()}

    def _load(self, geometry: Conv3dGeometry) -> list[float]:
        self.loaded = None  # its memory goes before the next one comes
        self.geometry, self.loaded = geometry, PEERS[self.peer](geometry, self.threads, self.seed, self.clock)
        way = dense_way(self.peer)
        self.loaded.ms(way)
        y = self.loaded.output(way).ravel()
        return y[np.linspace(0, y.size - 1, SAMPLES).astype(int)].tolist()


def main(peer: str, threads: str, seed: str, clock: str) -> int:
    """Serve until stdin ends; an error is one JSON line too."""
    server = Server(peer, int(threads), int(seed), clock)
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except DanceError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
