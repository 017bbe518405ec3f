"""ActivationGate's CUDA kernels, run on the host under sanitizers, against the definition."""
import emulated_cuda
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dance_deploy.ops import definition


@pytest.fixture(scope="module")
def emulator():
    running = emulated_cuda.Emulator(emulated_cuda.build())
    yield running
    running.close()


@st.composite
def cases(draw):
    """x [N, C, T, H, W] of small integers (exact sums, many ties) or spread floats; tau [N, 3]."""
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 31, 33, 70])), draw(st.integers(1, 5)),
             draw(st.integers(1, 12)), draw(st.integers(1, 13)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        x = rng.integers(-3, 4, shape).astype(np.float32)
    else:
        x = rng.standard_normal(shape)
        for axis in range(1, 5):
            x = x * rng.random([e if i == axis else 1 for i, e in enumerate(shape)])
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    tau = [draw(st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.2, 1e6])) for _ in range(3 * shape[0])]
    return x.astype(dtype), np.array(tau, np.float32).reshape(-1, 3)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), channels_last=st.booleans(), float_masks=st.booleans())
def test_masks_agree_with_the_definition(emulator, case, channels_last, float_masks):
    x, tau = case
    masks = emulated_cuda.activation_gate(emulator, x, tau, channels_last, float_masks)
    assert definition.check_masks(x, tau, masks) == []


@pytest.mark.parametrize("channels_last", (False, True))
def test_a_large_map_is_summed_in_slices(emulator, channels_last):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((1, 2, 2, 70, 71)) * rng.random((1, 1, 1, 70, 71))).astype(np.float32)
    tau = np.array([[0.9, 0.9, 1.0]], np.float32)
    masks = emulated_cuda.activation_gate(emulator, x, tau, channels_last)
    assert definition.check_masks(x, tau, masks) == []


@pytest.mark.parametrize("channels_last", (False, True))
def test_tau_of_zero_keeps_everything_and_a_nan_hides_nothing(emulator, channels_last):
    x = np.ones((1, 4, 3, 5, 5), np.float32)
    x[0, :, 1:] = 0
    x[0, 2, 2, 3, 3] = np.nan
    for tau in ((0, 0, 0), (1, 1, 1)):
        masks = emulated_cuda.activation_gate(emulator, x, np.array([tau], np.float32), channels_last)
        assert all(mask.all() for mask in masks)


@pytest.mark.parametrize("channels_last", (False, True))
def test_a_slice_with_an_infinity_is_kept(emulator, channels_last):
    x = np.ones((1, 4, 3, 5, 5), np.float32)
    x[0, 1, 2, 3, 4] = np.inf
    frame, channel, feature = emulated_cuda.activation_gate(emulator, x, np.ones((1, 3), np.float32), channels_last)
    assert frame.tolist() == [[False, False, True]] and channel.tolist() == [[False, True, False, False]]
    assert feature.sum() == 1 and feature[0, 3, 4]


@pytest.mark.parametrize("channels_last", (False, True))
def test_a_magnitude_exactly_on_its_threshold_is_kept(emulator, channels_last):
    x = np.ones((1, 4, 2, 4, 4), np.float32)
    x[0, :, 0] = 3
    frame, channel, feature = emulated_cuda.activation_gate(emulator, x, np.array([[0.5, 1, 1]], np.float32),
                                                            channels_last)
    assert frame.all() and channel.all() and feature.all()


def test_an_empty_extent_is_refused(emulator):
    assert emulator.ask(1, [1, 0, 1, 1, 1, 0, 0, 0], [])[0] == emulated_cuda.BAD_SHAPE


def test_what_no_grid_holds_is_refused(emulator):
    assert emulator.ask(1, [70000, 1, 1, 1, 1, 0, 0, 0], [])[0] == emulated_cuda.TOO_LARGE
