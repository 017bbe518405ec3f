"""One peer in a process of its own, so that no runtime's threads disturb another's.

    python -m dance_deploy.bench.worker BUNDLE PEER CASE

CASE is JSON. Loads, warms up, prints {"ready": logits} as one JSON line; then for each line N on stdin runs N times and
prints {"ms": [...], "memory_mb": ..., "peak_mb": ...}: resident memory of the process now and at its peak. Ends when
stdin does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from dance_deploy.bench.peers import PEERS, Case
from dance_deploy.bundle import open_bundle
from dance_deploy.errors import DanceError

WARM_UP_RUNS = 2


def _resident_mb() -> float | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:  # not Linux
        return None


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main(path: str, peer: str, case: str) -> int:
    """Serve one peer until stdin ends; an error is one JSON line too."""
    try:
        run = PEERS[peer](open_bundle(path), Case(**json.loads(case)))
        logits = [run() for _ in range(WARM_UP_RUNS)][-1]
    except DanceError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}), flush=True)
        return error.exit_code
    print(json.dumps({"ready": logits.ravel().tolist()}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps({"ms": times, "memory_mb": _resident_mb(), "peak_mb": _peak_mb()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
