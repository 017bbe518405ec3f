"""Energy of a stream of windows that follow each other without end: what dance-run --power shows.

A window's energy is what the machine took from the end of the window before to its own end: decoding, waiting and the
work between are in it, and a video's windows sum up to the video.
"""
import time
from typing import NamedTuple

from dance_deploy.power.energy import LEAST_SAMPLES, Energies
from dance_deploy.power.intervals import Interval, difference_interval, mean_interval
from dance_deploy.power.sampling import Sampler
from dance_deploy.power.summary import above_idle, block_powers_mw
from dance_deploy.power.trace import period_of, trace_from_readings

# enough for the usual period to be known, however short the windows
_KEPT_READINGS = 64
_MOST_BLOCKS = 40


class VideoEnergy(NamedTuple):
    """energy_j, above_idle_j: Intervals, a window's joules, estimate NaN where unknown; seconds: of the video's
    windows; missing_s: of them, not measured; samples; period_s: as they came; windows: their number."""

    energy_j: Interval
    above_idle_j: Interval
    seconds: float
    missing_s: float
    samples: int
    period_s: float
    windows: int


class Meter(object):
    """Samples an opened source, measures idle first, and tells each window's joules once the samples are there."""

    def __init__(self, source, idle_s=5.0, clock=time.monotonic, sleep=time.sleep):
        self._sampler = Sampler(source, clock)
        self._kind, self._rails, self._total_rails = source.kind, tuple(source.rails), tuple(source.total_rails)
        self._idle_s, self._clock, self._sleep = idle_s, clock, sleep
        self._idle_mw = []
        self._mark_s = clock()
        self._spans = []
        self._blocks = _Blocks()
        self._period_s = 1.0

    def __enter__(self):
        self._sampler.start()
        if self._idle_s > 0.0:
            start_s = self._clock()
            self._sleep(self._idle_s)
            end_s = self._clock()
            self._sampler.wait_for_sample(end_s, self._period_s)
            self._idle_mw = block_powers_mw(self._energies(), start_s, end_s)
        return self

    def __exit__(self, *_):
        self._sampler.stop()

    @property
    def error(self):
        """Why there are no more samples, or None."""
        return self._sampler.error

    def begin_video(self):
        """The next window starts now."""
        self._mark_s, self._spans, self._blocks = self._clock(), [], _Blocks()

    def close_window(self):
        """A window ends now, and the next one starts. The device must have finished its work."""
        now_s = self._clock()
        self._spans.append((self._mark_s, now_s))
        self._mark_s = now_s

    def ready(self):
        """[joules of the total, or None where they cannot be told], one for each window, oldest first, that samples
        reach by now and that was not told before."""
        count = len(self._spans) if self._sampler.over else sum(self._sampler.reached(end) for _, end in self._spans)
        if not count:
            return []
        energies, found = self._energies(), []
        for start_s, end_s in self._spans[:count]:
            energy = energies.window(start_s, end_s)
            self._blocks.add(energy.total.measured_j, end_s - start_s, energy.total.missing_s, energy.samples)
            found.append(energy.total.energy_j)
        del self._spans[:count]
        self._sampler.forget_before(self._spans[0][0] if self._spans else self._mark_s, _KEPT_READINGS)
        return found

    def settle(self):
        """Wait for the samples of the last window: then as ready(), and all windows are told."""
        if self._spans and not self._sampler.wait_for_sample(self._spans[-1][1], self._period_s):
            return self.ready() + self._give_up()
        return self.ready()

    def video(self):
        """The VideoEnergy of the windows told since begin_video()."""
        return self._blocks.video_energy(self._idle_mw, self._period_s)

    def _give_up(self):
        """None for each window that samples never reached: the source is silent."""
        count, spans = len(self._spans), self._spans
        for start_s, end_s in spans:
            self._blocks.add(0.0, end_s - start_s, end_s - start_s, 0)
        self._spans = []
        return [None] * count

    def _energies(self):
        trace = trace_from_readings(self._sampler.readings(), self._kind, self._rails)
        period_s = period_of(trace).median_s
        self._period_s = period_s if period_s == period_s else self._period_s
        return Energies(trace, self._total_rails)


class _Block(NamedTuple):
    joules: float
    seconds: float
    missing_s: float
    samples: int
    windows: int


class _Blocks(object):
    """Sums over stretches of consecutive windows, at most _MOST_BLOCKS of them however long the video."""

    def __init__(self):
        self._blocks = []
        self._size = 1

    def add(self, joules, seconds, missing_s, samples):
        new = _Block(joules, seconds, missing_s, samples, 1)
        if self._blocks and self._blocks[-1].windows < self._size:
            self._blocks[-1] = _merged(self._blocks[-1:] + [new])
        else:
            self._blocks.append(new)
        if len(self._blocks) > _MOST_BLOCKS:
            self._blocks, self._size = _halved(self._blocks), 2 * self._size

    def video_energy(self, idle_mw, period_s):
        if not self._blocks:
            unknown = difference_interval((), ())
            return VideoEnergy(unknown, unknown, 0.0, 0.0, 0, period_s, 0)
        whole = _merged(self._blocks)
        energy = above = difference_interval((), ())
        if not whole.missing_s and whole.samples >= LEAST_SAMPLES:
            full = _full(self._blocks)
            while min(block.samples for block in full) < LEAST_SAMPLES and len(full) > 1:
                full = _full(_halved(full))
            each = [(block.joules / block.windows, block.seconds / block.windows) for block in full]
            energy = _around(whole.joules / whole.windows, mean_interval([joules for joules, _ in each]))
            if idle_mw:
                idle_j = 1e-3 * sum(idle_mw) / len(idle_mw) * whole.seconds
                above = _around((whole.joules - idle_j) / whole.windows, above_idle(each, idle_mw))
        return VideoEnergy(energy, above, whole.seconds, whole.missing_s, whole.samples, period_s, whole.windows)


def _around(estimate, interval):
    """`interval`, that of the full blocks, with the estimate of all of them."""
    return Interval(estimate, min(interval.low, estimate), max(interval.high, estimate))


def _merged(blocks):
    return _Block(*[sum(values) for values in zip(*blocks)])


def _full(blocks):
    """Those with as many windows as the first: the last one may hold fewer."""
    return [block for block in blocks if block.windows == blocks[0].windows]


def _halved(blocks):
    """Neighbours merged two by two."""
    return [_merged(blocks[i:i + 2]) for i in range(0, len(blocks), 2)]
