"""Joules of a stream of windows: windows add up, none is told before its samples are there, memory does not grow."""
import math
import threading

import numpy as np
import pytest

from dance_deploy.errors import OperationError
from dance_deploy.power.meter import _MOST_BLOCKS, Meter, _Blocks
from dance_deploy.power.source import Reading, Source


class Stepped(Source):
    """Replays power(t) at 10 Hz: a test lets time pass with run_to(); dies at `until_s`."""
    name = "stepped"

    def __init__(self, power_w, until_s=math.inf):
        super().__init__()
        self.rails = ("IN",)
        self.total_rails = ("IN",)
        self.now_s, self.sample, self._until_s = 0.0, 0, until_s
        self._power_w, self._change, self._closed = power_w, threading.Condition(), False

    def open(self):
        pass

    def clock(self):
        return self.now_s

    def run_to(self, time_s):
        with self._change:
            self.now_s = time_s
            self._change.notify_all()

    def sleep(self, seconds):
        self.run_to(self.now_s + seconds)

    def read(self):
        with self._change:
            time_s = self.sample / 10.0
            # a wait for a sample that is due next, as by settle(), lets it come
            while time_s > self.now_s + 0.1 and not self._closed:
                self._change.wait()
            if self._closed or time_s >= self._until_s:
                raise OperationError("it broke")
            self.sample += 1
            return Reading(time_s, {"IN": 1e3 * self._power_w(time_s)})

    def close(self):
        with self._change:
            self._closed = True
            self._change.notify_all()


def metered(source, idle_s=0.0):
    return Meter(source, idle_s=idle_s, clock=source.clock, sleep=source.sleep)


def test_windows_add_up_to_the_video():
    source = Stepped(lambda t: 4.0 + math.sin(t))
    with metered(source) as meter:
        meter.begin_video()
        told, edges_s = [], np.cumsum([0.0, 0.31, 0.57, 0.22, 1.4, 0.9])
        for end_s in edges_s[1:]:
            source.run_to(float(end_s))
            meter.close_window()
            told += meter.ready()
        told += meter.settle()
        video = meter.video()
    assert len(told) == 5 and None not in told
    exact_j = 4.0 * edges_s[-1] + 1.0 - math.cos(edges_s[-1])
    assert sum(told) == pytest.approx(exact_j, rel=0.01)
    assert video.energy_j.estimate * 5 == pytest.approx(sum(told), rel=1e-9)
    assert (video.windows, video.missing_s, video.seconds) == (5, 0.0, pytest.approx(edges_s[-1]))


def test_short_windows_are_unknown_alone_and_known_together():
    source = Stepped(lambda t: 3.0)
    with metered(source, idle_s=2.0) as meter:
        start_s = source.now_s
        meter.begin_video()
        told = []
        for i in range(1, 401):
            source.run_to(start_s + 0.03 * i)
            meter.close_window()
            told += meter.ready()
        told += meter.settle()
        video = meter.video()
    assert told == [None] * 400
    assert video.energy_j.estimate == pytest.approx(3.0 * 0.03, rel=1e-6)
    assert video.above_idle_j.estimate == pytest.approx(0.0, abs=1e-6)
    assert video.energy_j.finite and video.energy_j.low <= video.energy_j.estimate <= video.energy_j.high
    assert video.period_s == pytest.approx(0.1)


def test_a_source_that_dies_leaves_the_rest_unknown():
    source = Stepped(lambda t: 3.0, until_s=2.0)
    with metered(source) as meter:
        meter.begin_video()
        for end_s in (1.0, 3.0, 4.0):
            source.run_to(end_s)
            meter.close_window()
        told = meter.settle()
        video, error = meter.video(), meter.error
    assert told == [pytest.approx(3.0), None, None]
    assert error == "it broke"
    assert math.isnan(video.energy_j.estimate) and video.missing_s == pytest.approx(4.0 - 1.9)


def test_long_runs_do_not_grow():
    source = Stepped(lambda t: 3.0)
    with metered(source) as meter:
        meter.begin_video()
        for i in range(1, 301):
            source.run_to(float(i))
            meter.close_window()
            while source.sample / 10.0 <= i - 1:    # let the sampling thread keep up
                threading.Event().wait(0.001)
            meter.ready()
        meter.settle()
        assert len(meter._sampler.readings()) < 300
        assert meter.video().windows == 300


def test_blocks_keep_the_sums():
    blocks = _Blocks()
    joules = np.random.RandomState(0).uniform(1.0, 2.0, 1000)
    for value in joules:
        blocks.add(value, 1.0, 0.0, 10)
    assert len(blocks._blocks) <= _MOST_BLOCKS
    video = blocks.video_energy([], 0.1)
    assert video.energy_j.estimate == pytest.approx(joules.mean())
    assert (video.windows, video.samples, video.seconds) == (1000, 10000, 1000.0)
    assert video.energy_j.low < joules.mean() < video.energy_j.high
    assert math.isnan(video.above_idle_j.estimate)


def test_a_video_without_windows():
    video = _Blocks().video_energy([2000.0] * 5, 0.1)
    assert video.windows == 0 and math.isnan(video.energy_j.estimate)
