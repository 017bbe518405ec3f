"""The controller: thresholds in range, open at budget 1, calibrated map."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.method.controller import TAU_MAX, TAU_START, Controller, resampling_matrix  # noqa: E402
from dance_deploy.method.training.calibration import ALL_OPEN, ASKED, fed_for  # noqa: E402


def controller(**options):
    torch.manual_seed(1)
    return Controller(4, 3, **options)


def test_budget_1_opens_every_gate_and_thresholds_start_rising_as_the_budget_falls():
    budgets = torch.tensor([1.0, 0.7, 0.5, 0.2])
    tau = controller()(torch.rand(1, 4, 5, 6, 7).expand(4, -1, -1, -1, -1), budgets)
    assert tau.shape == (4, 3, 3) and (tau[0] == 0).all()
    assert tau[2].detach().numpy() == pytest.approx(TAU_START, abs=0.1)
    assert (tau[1:] > tau[:-1]).all()


def test_kinds_that_may_not_be_pruned_have_no_threshold():
    tau = controller(kinds=("features",))(torch.rand(1, 4, 5, 6, 7), torch.tensor([0.3]))
    assert (tau[..., :2] == 0).all() and (tau[..., 2] > 0).all()


def test_thresholds_are_bounded_whatever_the_weights():
    c = controller()
    torch.nn.init.normal_(c.output.weight, std=1e3)
    tau = c(torch.rand(8, 4, 5, 6, 7) * 1e6, torch.linspace(0.05, 1, 8))
    assert (tau >= 0).all() and (tau <= torch.tensor(TAU_MAX)).all()
    assert TAU_MAX[0] < 1.0  # frames nearly alike are all kept or nearly so, never one of them


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 40), bins=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_resampling_averages_equal_parts(length, bins, seed):
    signal = np.random.default_rng(seed).random(length)
    # every value split into `bins` equal pieces: then a bin is `length` whole pieces
    expected = np.repeat(signal, bins).reshape(bins, length).mean(1)
    bound = (length + 2) * float(np.finfo(np.float32).eps)
    assert signal @ resampling_matrix(length, bins) == pytest.approx(expected, rel=bound)


def test_features_do_not_depend_on_the_clips_size_or_scale():
    c = controller()
    ones = torch.ones(1, 4, 5, 6, 7)
    assert torch.allclose(c.features(ones), c.features(3.0 * torch.ones(1, 4, 9, 11, 8)))


@settings(max_examples=50, deadline=None)
@given(points=st.lists(st.tuples(st.integers(1, 99), st.integers(0, 100)), min_size=1, max_size=8,
                       unique_by=lambda p: p[0]), asked=st.integers(0, 100))
def test_calibrated_map_is_piecewise_linear(points, asked):
    grid = [0.0, *(a / 100 for a, _ in sorted(points)), 1.0]
    fed = sorted(f / 100 for _, f in points)
    fed = [fed[0], *fed, fed[-1]]
    c = controller()
    c.calibrate(grid, fed)
    value = c.fed_budget(torch.tensor([asked / 100])).item()
    # a dozen float32 operations on numbers up to 1, divided by gaps of at least 0.01
    assert value == pytest.approx(np.interp(asked / 100, grid, fed), abs=100 * 12 * float(np.finfo(np.float32).eps))


def test_calibrated_map_survives_saving():
    c = controller()
    c.calibrate([0.0, 0.3, 0.6, 1.0], [0.1, 0.2, 0.7, 0.9])
    fresh = controller()
    fresh.load_state_dict(c.state_dict())
    assert fresh.asked.tolist() == c.asked.tolist() and fresh.fed.tolist() == c.fed.tolist()


@settings(max_examples=50, deadline=None)
@given(shares=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=12))
def test_fed_budgets_rise_with_the_asked_ones_and_meet_them(shares):
    fed_grid = np.linspace(0.1, 1.0, len(shares))
    asked = np.linspace(0.05, 1.0, 20)
    fed = fed_for(asked, fed_grid, shares)
    assert all(a <= b for a, b in zip(fed, fed[1:], strict=False))
    rising = np.maximum.accumulate(shares)
    reached = np.interp(fed, fed_grid, rising)
    for budget, share in zip(asked, reached, strict=True):
        # never above what was asked, unless the cheapest that was measured is
        assert share <= max(budget, rising[0]) + 1e-6


def test_the_end_of_a_calibrated_map_opens_every_gate_whatever_the_rounding():
    c = controller()
    c.calibrate([0.0, *ASKED, 1.0], [0.1, *torch.linspace(0.13, 0.97, len(ASKED)).tolist(), ALL_OPEN])
    tau = c(torch.rand(1, 4, 5, 6, 7).expand(3, -1, -1, -1, -1), torch.tensor([1.0, 0.95, 0.9]))
    assert tau[0].max() == 0.0 and 0.0 < tau[1].max() < tau[2].max()
