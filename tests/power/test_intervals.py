"""Intervals on seeded noise whose truth is known, and what they allow us to say."""
import math

import numpy as np
import pytest

from dance_deploy.power import intervals
from dance_deploy.power.intervals import INCONCLUSIVE, LESS, MORE, SAME, Interval

RUNS = 100


def windows(seed, mean_j, count, noise=0.02, drift=0.0):
    random = np.random.RandomState(seed)
    return mean_j * (1.0 + noise * random.randn(count) + drift * np.arange(count))


@pytest.mark.parametrize("count", [5, 10, 30])
def test_the_interval_covers_the_truth(count):
    hits = 0
    for seed in range(RUNS):
        interval = intervals.mean_interval(windows(seed, 12.0, count))
        assert interval.low <= interval.estimate <= interval.high
        hits += interval.low <= 12.0 <= interval.high
    assert 90 <= hits


@pytest.mark.parametrize("count", [10, 30])
def test_skewed_windows_are_covered_too(count):
    hits = 0
    for seed in range(RUNS):
        values = np.random.RandomState(seed).gamma(8.0, 1.5, count)    # mean 12, long tail to the right
        interval = intervals.mean_interval(values)
        hits += interval.low <= 12.0 <= interval.high
    assert 90 <= hits


def test_a_long_tail_makes_the_interval_longer_on_its_side():
    found = [intervals.mean_interval(np.random.RandomState(seed).exponential(1.0, 12)) for seed in range(20)]
    assert np.mean([interval.high - interval.estimate for interval in found]) > \
        1.2 * np.mean([interval.estimate - interval.low for interval in found])


@pytest.mark.parametrize("ratio", [1.0, 0.97])
def test_the_ratio_is_covered_although_both_drift(ratio):
    hits = 0
    for seed in range(RUNS):
        drift = np.linspace(0.0, 0.2, 16) * 12.0
        found = intervals.ratio_interval(windows(seed, 12.0, 16) + drift,
                                         windows(1000 + seed, 12.0 * ratio, 16) + drift * ratio)
        hits += found.low <= ratio <= found.high
        assert found.half_width < 0.05     # the drift of 20 % is not in it
    assert 90 <= hits


def verdicts(ratio, count, seeds=range(RUNS)):
    found = [intervals.verdict(intervals.ratio_interval(windows(seed, 12.0, count),
                                                        windows(5000 + seed, 12.0 * ratio, count)), 0.02)
             for seed in seeds]
    return {word: found.count(word) for word in (LESS, MORE, SAME, INCONCLUSIVE)}


def test_idle_against_idle_is_no_difference():
    found = verdicts(1.0, 40)
    assert found[SAME] >= 90 and found[LESS] + found[MORE] <= 5


def test_three_percent_at_two_percent_noise_needs_enough_windows():
    enough, few = verdicts(0.97, 30), verdicts(0.97, 3)
    assert enough[LESS] >= 99 and enough[MORE] == enough[SAME] == 0
    assert few[INCONCLUSIVE] == RUNS
    assert verdicts(1.03, 30)[MORE] >= 99
    assert verdicts(0.97, 5)[INCONCLUSIVE] >= 50


@pytest.mark.parametrize("noise", [0.005, 0.01])
def test_stopping_when_the_interval_is_tight_does_not_spoil_it(noise):
    """As record --precision 1 and compare do: another run until half the interval is below 1 %."""
    hits_mean = hits_ratio = 0
    for seed in range(RUNS):
        a, b = windows(seed, 12.0, 20, noise), windows(7000 + seed, 12.0, 20, noise)
        for count in range(4, 21):
            mean = intervals.mean_interval(a[:count])
            if mean.half_width <= 0.01:
                break
        for count in range(8, 21):
            ratio = intervals.ratio_interval(a[:count], b[:count])
            if ratio.half_width <= 0.01:
                break
        hits_mean += mean.low <= 12.0 <= mean.high
        hits_ratio += ratio.low <= 1.0 <= ratio.high
    assert hits_mean >= 90 and hits_ratio >= 90


def test_too_few_or_useless_values_are_unknown_not_narrow():
    for values in ([], [5.0], [5.0, 5.0], [5.0, 5.1, 5.2]):
        assert not intervals.mean_interval(values).finite
    assert intervals.mean_interval([]).half_width == math.inf
    for a, b in (([], []), ([1.0], [1.0]), ([0.0] * 5, [1.0] * 5), ([1.0] * 5, [-1.0] * 5), ([1.0] * 5, [1.0] * 4)):
        found = intervals.ratio_interval(a, b)
        assert not found.finite
        assert intervals.verdict(found, 0.02) == INCONCLUSIVE


def test_equal_values_have_no_width():
    assert intervals.mean_interval([2.0] * 6) == Interval(2.0, 2.0, 2.0)
    rounding = [3000.0, 3000.0, 3000.0 + 4e-13, 3000.0]      # the same power, summed up in another order
    found = intervals.mean_interval(rounding)
    assert found.low == found.estimate == found.high


def test_a_difference_counts_the_spread_of_both():
    values, baseline = windows(3, 10.0, 12, 0.01), windows(4, 4.0, 12, 0.2)
    alone = intervals.mean_interval(values)
    both = intervals.difference_interval(values, baseline)
    assert both.estimate == pytest.approx(values.mean() - baseline.mean())
    assert both.high - both.low > 3.0 * (alone.high - alone.low)


def test_the_same_data_give_the_same_interval():
    values = windows(1, 10.0, 9)
    assert intervals.mean_interval(values) == intervals.mean_interval(values)
    assert intervals.mean_interval(values, seed=1) != intervals.mean_interval(values)


def test_many_windows_do_not_take_much_memory():
    import tracemalloc
    values = windows(1, 10.0, 200000)
    tracemalloc.start()
    interval = intervals._draws([len(values)], 0)
    next(interval)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 64 << 20
