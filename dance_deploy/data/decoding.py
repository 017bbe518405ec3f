"""Decoding several videos at once: the decoders work outside of Python's lock, so threads are enough."""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dance_deploy.machine import usable_cores

MOST_THREADS = 8


def decoding_threads() -> int:
    """How many videos to decode at once on this machine."""
    return min(usable_cores(), MOST_THREADS)


@contextmanager
def decoding_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose waiting tasks are dropped where the block ends early, as on an error or Ctrl-C."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
