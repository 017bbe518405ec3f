"""Energy accounting against traces whose energy is known in closed form."""
import math

import numpy as np
import pytest
from power_trees import trace_of

from dance_deploy.power.energy import Energies
from dance_deploy.power.source import COUNTER, Reading
from dance_deploy.power.summary import block_powers_mw
from dance_deploy.power.trace import column, gap_limit_s, period_of, trace_from_readings


def total(trace, start_s, end_s):
    return Energies(trace, trace.rails).window(start_s, end_s).total


def test_linear_power_is_exact_between_any_edges():
    # 2 W + 0.5 W/s x t: trapezoids with interpolated edges have no error on it; only rounding is left
    times_s = np.cumsum(np.random.RandomState(1).uniform(0.05, 0.15, 200))
    trace = trace_of(times_s, 2000.0 + 500.0 * times_s)
    for start_s, end_s in ((1.0, 9.0), (times_s[3], times_s[90]), (2.345, 2.745)):
        exact_j = 2.0 * (end_s - start_s) + 0.25 * (end_s ** 2 - start_s ** 2)
        found = total(trace, start_s, end_s)
        assert found.energy_j == pytest.approx(exact_j, rel=1e-12)
        assert found.average_mw == pytest.approx(1e3 * exact_j / (end_s - start_s), rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_a_load_with_bursts_is_within_one_percent(seed):
    """Idle 2 W, bursts to 7 W of 0.3 to 1.5 s with edges of 20 ms, jittered sampling at 100 ms, sensor steps of 40 mW,
    2 % noise, over 60 s."""
    random = np.random.RandomState(seed)
    edges_s = np.cumsum(random.uniform(0.3, 1.5, 160))
    fine_s = np.arange(0.0, 62.0, 0.001)
    busy = np.searchsorted(edges_s, fine_s) % 2
    power_w = np.convolve(2.0 + 5.0 * busy, np.ones(20) / 20.0, mode="same")
    times_s = np.arange(0.0, 62.0, 0.1) + random.uniform(0.0, 0.03, 620)
    sampled = np.interp(times_s, fine_s, power_w) * (1.0 + 0.02 * random.randn(len(times_s)))
    trace = trace_of(times_s, 40.0 * np.round(1e3 * sampled / 40.0))
    inside = (fine_s >= 1.0) & (fine_s < 61.0)
    assert total(trace, 1.0, 61.0).energy_j == pytest.approx(power_w[inside].sum() * 0.001, rel=0.01)


def test_neighbouring_windows_add_up():
    times_s = np.arange(0.0, 20.0, 0.1)
    trace = trace_of(times_s, 3000.0 + 1000.0 * np.sin(times_s))
    edges_s = [0.5, 1.23, 7.7, 13.0, 19.0]
    parts = [total(trace, a, b).energy_j for a, b in zip(edges_s, edges_s[1:])]
    assert sum(parts) == pytest.approx(total(trace, edges_s[0], edges_s[-1]).energy_j, rel=1e-12)


def test_average_and_peak():
    trace = trace_of([0, 1, 2, 3, 4], [1000, 1000, 5000, 1000, 1000])
    found = total(trace, 0.5, 3.5)
    assert (found.peak_mw, found.energy_j) == (5000.0, pytest.approx(0.5 + 3.0 + 3.0 + 0.5))


def test_a_gap_makes_the_energy_unknown_and_not_smaller_or_guessed():
    times_s = np.array([t for t in np.arange(0.0, 10.0, 0.1) if not 4.05 < t < 5.95])
    trace = trace_of(times_s, np.full(len(times_s), 2000.0))
    across = total(trace, 1.0, 9.0)
    assert across.energy_j is None
    assert across.missing_s == pytest.approx(2.0)
    assert across.measured_j == pytest.approx(2.0 * 6.0)
    assert across.average_mw == pytest.approx(2000.0)
    beside = total(trace, 6.5, 9.0)
    assert (beside.energy_j, beside.missing_s) == (pytest.approx(5.0), 0.0)
    part = total(trace, 4.5, 7.0)    # starts inside the gap
    assert (part.energy_j, part.missing_s) == (None, pytest.approx(1.5))


@pytest.mark.parametrize("gap_s, known", [(0.0, 20), (1.6, (10, 19)), (8.0, 0)])
def test_idle_is_told_beside_a_gap_where_half_of_it_was_measured(gap_s, known):
    time_s = np.arange(0.0, 10.05, 0.05)
    time_s = time_s[(time_s <= 1.0) | (time_s >= 1.0 + gap_s)]
    found = block_powers_mw(Energies(trace_of(time_s, np.full(len(time_s), 1500.0)), ["VDD_IN"]), 0.0, 10.0)
    assert found == [pytest.approx(1500.0)] * len(found)
    low, high = known if isinstance(known, tuple) else (known, known)
    assert low <= len(found) <= high


def test_a_source_that_died_leaves_the_rest_unknown():
    trace = trace_of(np.arange(0.0, 5.0, 0.1), np.full(50, 2000.0))
    found = total(trace, 2.0, 8.0)
    assert (found.energy_j, found.missing_s) == (None, pytest.approx(8.0 - 4.9))
    before = total(trace, -3.0, 1.0)
    assert (before.energy_j, before.missing_s) == (None, pytest.approx(3.0))
    after = total(trace, 20.0, 21.0)
    assert (after.energy_j, after.measured_j, after.average_mw) == (None, 0.0, None)
    assert after.missing_s == pytest.approx(1.0)


def test_a_rail_that_vanishes_is_unknown_and_the_others_are_not():
    readings = [Reading(0.1 * i, {"IN": 3000.0, "CPU": 1000.0} if i < 50 else {"IN": 3000.0}) for i in range(100)]
    found = Energies(trace_from_readings(readings), ("IN", "CPU")).window(1.0, 9.0)
    assert found.rails["IN"].energy_j == pytest.approx(24.0)
    assert (found.rails["CPU"].energy_j, found.rails["CPU"].missing_s) == (None, pytest.approx(9.0 - 4.9))
    assert found.total.energy_j is None    # the sum is not known either


def test_total_of_a_label_that_is_not_there_is_none():
    trace = trace_of([0, 1, 2], [1, 1, 1])
    assert column(trace, ("OTHER",)) is None
    assert Energies(trace, ("OTHER",)).window(0.0, 2.0).total is None
    assert Energies(trace, ()).window(0.0, 2.0).total is None


def test_windows_shorter_than_the_period_are_not_told():
    trace = trace_of(np.arange(0.0, 10.0, 1.0), np.full(10, 2000.0))
    short = Energies(trace, trace.rails).window(3.2, 3.7)
    assert (short.samples, short.total.energy_j) == (0, None)
    assert short.total.measured_j == pytest.approx(1.0)     # for sums over windows
    assert total(trace, 3.2, 4.9).energy_j is None          # one sample: all of it is interpolation
    assert total(trace, 3.2, 5.2).energy_j == pytest.approx(4.0)


def test_clock_steps_of_a_source_are_dropped_and_counted():
    times_s = [0.0, 0.1, 0.2, -50.0, 0.2, 0.3, 0.4]
    trace = trace_of(times_s, [1000.0] * 7)
    assert trace.dropped == 2 and (np.diff(trace.time_s) > 0).all()
    assert total(trace, 0.0, 0.4).energy_j == pytest.approx(0.4)
    # a jump ahead is a gap like any other
    ahead = trace_of([0.0, 0.1, 0.2, 100.0, 100.1], [1000.0] * 5)
    assert total(ahead, 0.0, 100.1).energy_j is None


def test_nan_times_never_enter():
    assert trace_of([0.0, math.nan, 0.1], [1, 1, 1]).dropped == 1


@pytest.mark.parametrize("count", [0, 1])
def test_almost_no_samples(count):
    trace = trace_of(np.arange(count), np.ones(count))
    found = total(trace, 0.0, 1.0)
    assert (found.energy_j, found.measured_j) == (None, 0.0)
    assert found.missing_s == pytest.approx(1.0)
    assert math.isnan(period_of(trace).median_s)
    assert gap_limit_s(trace) == math.inf


def test_counters_give_differences_across_gaps_and_not_across_resets():
    times_s = np.array([0.0, 1.0, 2.0, 12.0, 13.0, 14.0])
    trace = trace_of(times_s, [0.0, 3.0, 6.0, 50.0, 53.0, 56.0], kind=COUNTER)
    assert total(trace, 0.5, 13.5).energy_j == pytest.approx(54.5 - 1.5)
    assert total(trace, 0.0, 14.0).peak_mw == pytest.approx(4400.0)
    reset = trace_of(times_s, [0.0, 3.0, np.nan, 6.0, 9.0, 12.0], kind=COUNTER)
    assert total(reset, 0.0, 14.0).energy_j is None
    assert total(reset, 12.0, 14.0).energy_j == pytest.approx(6.0)


def test_the_period_is_what_came_not_what_was_asked():
    trace = trace_of(np.arange(0.0, 103.0, 1.03), np.ones(100))
    assert period_of(trace).median_s == pytest.approx(1.03)
    assert period_of(trace).samples == 100
