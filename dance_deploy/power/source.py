"""What every power source is: open, read, close, with monotonic timestamps and the sensor's own rail labels.

A source knows nothing of windows, joules of a run or baselines (energy.py does), and takes the folder, command and
clock that it reads as arguments, so that captured trees and logs replay.
"""
import math
import threading
import time
from typing import Any, Dict, NamedTuple, Optional

from dance_deploy.errors import InputError, OperationError

POWER, COUNTER = "power", "counter"

LEAST_INTERVAL_S = 0.001
MOST_INTERVAL_S = 3600.0


class Reading(NamedTuple):
    """One sample.

    time_s: monotonic clock, taken when the values were there; rails_mw: instantaneous milliwatts by rail, empty for a
    counter source; a rail that could not be read now is absent, never 0; extra: what came along (temps_c, ...);
    energy_j: counter sources only: joules by rail since open(), never falling, wraps undone; a rail whose counter lost
    its thread (reset, wrapped unseen) is absent once, and energy across that reading counts as unknown.
    """

    time_s: float
    rails_mw: Dict[str, float]
    extra: Optional[Dict[str, Any]] = None
    energy_j: Optional[Dict[str, float]] = None


class Source(object):
    """Base of the power sources. open() first; read() blocks until the next sample; close() may be called from another
    thread and more than once, and wakes a read() that waits.

    name:        how the command line calls it
    kind:        POWER (readings carry rails_mw) or COUNTER (they carry energy_j)
    rails:       labels as the sensor has them; known after open()
    total_rail:  the label that is the total, or None
    total_rails: the labels whose sum is the total: (total_rail,) unless a board has no input rail; () if not known
    scope:       what the total stands for, in words ("module", "board", "CPU package and memory", ...)
    estimate:    True where the figures are no measurement of the load (a battery's own gauge)
    warnings:    lines to show with every figure (labels that seem permuted, ...); known after open()
    """

    name = ""
    kind = POWER
    scope = ""
    estimate = False

    def __init__(self):
        self.rails = ()
        self.total_rail = None
        self.warnings = []
        self._total_rails = None

    @property
    def total_rails(self):
        if self._total_rails is not None:
            return self._total_rails
        return () if self.total_rail is None else (self.total_rail,)

    @total_rails.setter
    def total_rails(self, labels):
        self._total_rails = tuple(labels)
        self.total_rail = labels[0] if len(labels) == 1 else None

    def open(self):
        """Find the sensors. Raises OperationError where there is nothing to read, saying why and what to do."""
        raise NotImplementedError

    def read(self):
        """The next Reading. Raises OperationError when the source died, was closed, or gives nothing any more."""
        raise NotImplementedError

    def close(self):
        """Stop; wakes a waiting read()."""

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()


class PolledSource(Source):
    """A source that is asked: read() waits for the next multiple of the interval, then calls sample().

    interval_s: time between samples; a sample that comes late is not made up for: the next tick follows. clock:
    seconds, monotonic. wait: wait(seconds) -> True where close() came meanwhile; default: a real wait.
    """

    def __init__(self, interval_s=0.1, clock=time.monotonic, wait=None):
        super(PolledSource, self).__init__()
        self.interval_s = checked_interval(interval_s)
        self._clock = clock
        self._closed = threading.Event()
        self._wait = self._closed.wait if wait is None else wait
        self._next_s = None

    def sample(self):
        """(rails_mw, energy_j or None, extra or None) now. Raises OperationError where nothing can be read."""
        raise NotImplementedError

    def read(self):
        now = self._clock()
        if self._next_s is None:
            self._next_s = now
        if now < self._next_s and self._wait(self._next_s - now) or self._closed.is_set():
            raise OperationError("power source '{}' was closed".format(self.name))
        # the middle of the reading: sysfs takes up to some milliseconds a rail
        before = self._clock()
        rails_mw, energy_j, extra = self.sample()
        after = self._clock()
        # the next tick of the grid, skipping those that passed meanwhile
        self._next_s += self.interval_s * max(1.0, math.ceil((after - self._next_s) / self.interval_s))
        return Reading(before + (after - before) / 2.0, rails_mw, extra, energy_j)

    def close(self):
        self._closed.set()


def checked_interval(interval_s):
    """`interval_s` as a float; raises InputError unless it is from 1 ms to an hour."""
    if not LEAST_INTERVAL_S <= interval_s <= MOST_INTERVAL_S:
        raise InputError("sampling interval is {:g} ms, expected {:g} to {:g} ms, for example 100".format(
            interval_s * 1e3, LEAST_INTERVAL_S * 1e3, MOST_INTERVAL_S * 1e3))
    return float(interval_s)
