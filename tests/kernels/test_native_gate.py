"""ActivationGate's kernels against the definition, on every variant."""
import native_kernels
import numpy as np
import pytest

from dance_deploy.ops import definition


def run(lib, x, tau, **options):
    return definition.GateMasks(*native_kernels.activation_gate(lib, x, tau, **options))


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_are_within_the_contract(lib, isa, seed):
    rng = np.random.default_rng(seed)
    shape = [int(rng.integers(1, 3)), *(int(rng.choice([1, 2, 15, 16, 17, 33])) for _ in range(2)),
             *(int(rng.integers(1, 40)) for _ in range(2))]
    dtype = np.float16 if rng.random() < 0.3 else np.float32
    slab_scale, pixel_scale = rng.gamma(1.0, 1.0, (*shape[:3], 1, 1)), rng.gamma(1.0, 1.0, (shape[0], 1, 1, *shape[3:]))
    x = (rng.standard_normal(shape) * slab_scale * pixel_scale).astype(dtype)
    tau = rng.choice([0.0, 0.5, 0.9, 1.0, 1.3], (shape[0], 3)).astype(np.float32)
    masks = run(lib, x, tau, channels_last=bool(rng.random() < 0.5), threads=int(rng.integers(1, 4)))
    assert definition.check_masks(x, tau, masks) == []


BIG = 2.0 ** 24    # float32 sums that hold it lose every 1 added later


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("step", range(3))
def test_long_sums_lose_nothing(lib, isa, step, channels_last):
    """Two slices whose magnitudes differ by 5e-5, the larger one with its big value first: naive sums swap them."""
    shape, slices = [((1, 2, 2, 300, 300), lambda x: x.transpose(2, 0, 1, 3, 4)),
                     ((1, 2, 1, 300, 600), lambda x: x.transpose(1, 0, 2, 3, 4)),
                     ((1, 64, 64, 1, 2), lambda x: x.transpose(4, 0, *((2, 1) if channels_last else (1, 2)), 3))][step]
    x = np.ones(shape, np.float32)
    larger, smaller = (one.reshape(-1) for one in np.ones_like(slices(x)))
    larger[0] = smaller[-1] = BIG
    smaller[:int(5e-5 * BIG)] = 0
    slices(x)[0] = larger.reshape(slices(x)[0].shape)
    slices(x)[1] = smaller.reshape(slices(x)[1].shape)
    tau = np.zeros((1, 3), np.float32)
    tau[0, step] = 1
    masks = run(lib, x, tau, channels_last=channels_last)
    assert definition.check_masks(x, tau, masks) == []
    assert masks[step].reshape(-1).tolist() == [True, False]


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
def test_exact_sums_give_the_definitions_masks(lib, isa, channels_last, dtype):
    """Small integers: sums are exact, and some magnitudes lie exactly on the threshold."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        x = rng.integers(-2, 3, (2, 8, 4, 4, 8)).astype(dtype)
        tau = rng.choice([0.0, 0.5, 1.0], (2, 3)).astype(np.float32)
        for got, expected in zip(run(lib, x, tau, channels_last=channels_last), definition.activation_gate(x, tau)):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("shape", [(1, 3, 3, 7, 7), (1, 7, 5, 9, 11), (2, 33, 4, 17, 30), (1, 64, 2, 5, 3)])
def test_all_that_attain_the_largest_are_kept(lib, isa, shape, channels_last):
    """However sums are rounded: those of 0.1, and of the same integers in another order in each frame."""
    tau = np.full((shape[0], 3), 1.01, np.float32)
    masks = run(lib, np.full(shape, 0.1, np.float32), tau, channels_last=channels_last)
    assert all(mask.all() for mask in masks)
    n, c, t, h, w = shape
    rng = np.random.default_rng(0)
    frames = [rng.permutation(np.arange(n * c * h * w) % 5).reshape(n, c, h, w) for _ in range(t)]
    x = np.stack(frames, 2).astype(np.float32)
    masks = run(lib, x, tau, channels_last=channels_last)
    assert definition.check_masks(x, tau, masks) == []
    np.testing.assert_array_equal(masks.frame_keep, definition.activation_gate(x, tau).frame_keep)


@pytest.mark.parametrize("channels_last", (False, True))
def test_zero_thresholds_keep_everything_whatever_x_holds(lib, isa, channels_last):
    x = np.zeros((1, 3, 2, 5, 4), np.float32)
    x[0, 1, 0, 2, 2], x[0, 2, 1] = np.nan, np.inf
    assert all(m.all() for m in run(lib, x, np.zeros((1, 3), np.float32), channels_last=channels_last))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_a_fault_upstream_is_never_hidden(lib, isa, channels_last, value):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 20, 5, 9, 8)).astype(np.float32)
    x[0, 3, 1, 2, 4] = value
    tau = np.full((1, 3), 1.1, np.float32)
    masks = run(lib, x, tau, channels_last=channels_last)
    for got, expected in zip(masks, definition.activation_gate(x, tau)):
        np.testing.assert_array_equal(got, expected)
    assert masks.frame_keep[0, 1] and masks.channel_keep[0, 3] and masks.feature_keep[0, 2, 4]


@pytest.mark.parametrize("channels_last", (False, True))
def test_sums_beyond_float32_are_still_sums(lib, isa, channels_last):
    x = np.full((1, 70, 2, 40, 30), np.float32(3e38))
    x[0, :, 1] = 1e38
    tau = np.full((1, 3), 1.0, np.float32)
    masks = run(lib, x, tau, channels_last=channels_last)
    assert masks.frame_keep.tolist() == [[True, False]] and masks.channel_keep.all()
    assert definition.check_masks(x, tau, masks) == []


def test_result_does_not_depend_on_threads_and_each_n_is_as_if_alone(lib, isa):
    rng = np.random.default_rng(4)
    x, tau = rng.standard_normal((3, 17, 4, 33, 40)).astype(np.float32), np.full((3, 3), 1.0, np.float32)
    for channels_last in (False, True):
        alone = [np.concatenate(masks) for masks in zip(
            *(run(lib, x[n:n + 1], tau[n:n + 1], channels_last=channels_last) for n in range(3)))]
        for threads in (1, 2, 5):
            for got, expected in zip(run(lib, x, tau, channels_last=channels_last, threads=threads), alone):
                np.testing.assert_array_equal(got, expected)
