"""Magnitudes that the ops hand on with their outputs, and a gate that decides from them, on every variant."""
import native_kernels
import numpy as np
import pytest

from dance_deploy.ops import definition

# N, C, T, H, W; M, kernel; options. All cases with random masks, channels last unless said.
CASES = {
    "winograd 4x4": ((2, 9, 4, 13, 18), (65, 9, 3, 3, 3), {"pads": (1,) * 6, "variant": 4}),
    "winograd 4x4, whole vectors": ((1, 8, 3, 21, 37), (64, 8, 3, 3, 3), {"pads": (1,) * 6, "variant": 4}),
    "winograd 2x2": ((1, 5, 2, 7, 9), (17, 5, 1, 3, 3), {"pads": (0, 1, 1) * 2, "variant": 2}),
    "winograd, shared by all workers": ((1, 128, 2, 17, 18), (256, 128, 3, 3, 3), {"pads": (1,) * 6, "variant": 4}),
    "winograd, channels first": ((1, 5, 2, 9, 11), (17, 5, 3, 3, 3),
                                 {"pads": (1,) * 6, "variant": 4, "channels_last": False}),
    "mixed 4x4": ((2, 9, 4, 13, 18), (65, 9, 3, 3, 3), {"pads": (1,) * 6, "variant": 14}),
    "mixed 2x2, whole vectors": ((1, 8, 3, 21, 37), (64, 8, 3, 3, 3), {"pads": (1,) * 6, "variant": 12}),
    "mixed, shared by all workers": ((1, 128, 2, 17, 18), (256, 128, 3, 3, 3), {"pads": (1,) * 6, "variant": 14}),
    "mixed, channels first": ((1, 8, 2, 9, 11), (17, 8, 3, 3, 3),
                              {"pads": (1,) * 6, "variant": 14, "channels_last": False}),
    "direct": ((2, 6, 5, 9, 8), (70, 6, 3, 3, 3), {"pads": (1,) * 6, "variant": 1}),
    "direct, several row blocks": ((1, 4, 2, 60, 57), (16, 4, 3, 3, 3), {"pads": (1,) * 6, "variant": 1}),
    "direct, strides": ((1, 3, 6, 15, 14), (33, 3, 3, 7, 7), {"pads": (1, 3, 3) * 2, "strides": (1, 2, 2)}),
    "direct, channels first": ((2, 3, 4, 15, 14), (33, 3, 3, 7, 7),
                               {"pads": (1, 3, 3) * 2, "strides": (1, 2, 2), "channels_last": False}),
    "few inputs": ((2, 3, 4, 13, 30), (19, 3, 3, 3, 3), {"pads": (1,) * 6, "variant": 1}),
    "few outputs": ((2, 16, 3, 21, 30), (3, 16, 3, 3, 3), {"pads": (1,) * 6, "variant": 1}),
    "few outputs, channels first": ((1, 17, 3, 9, 12), (7, 17, 3, 3, 3),
                                    {"pads": (1,) * 6, "variant": 1, "channels_last": False}),
    "three groups": ((1, 6, 3, 8, 9), (21, 2, 3, 3, 3), {"pads": (1,) * 6, "group": 3}),
    "pointwise": ((2, 24, 3, 13, 11), (54, 24, 1, 1, 1), {}),
    "pointwise of tiny frames": ((1, 20, 7, 3, 5), (130, 20, 1, 1, 1), {}),
    "pointwise, strides": ((1, 7, 5, 9, 10), (5, 7, 1, 1, 1), {"strides": (2, 2, 2)}),
    "depthwise": ((2, 54, 4, 11, 12), (54, 1, 3, 3, 3), {"pads": (1,) * 6, "group": 54}),
    "depthwise of few channels": ((1, 3, 4, 11, 12), (3, 1, 3, 3, 3), {"pads": (1,) * 6, "group": 3}),
    "padding alone": ((1, 2, 1, 2, 2), (3, 2, 3, 3, 3), {"pads": (3,) * 6, "variant": 1}),
    "bfloat16": ((1, 9, 4, 13, 18), (40, 9, 3, 3, 3), {"pads": (1,) * 6, "bf16": True}),
}
# float32 sums of up to 64 values, in the worst case; the contract's borderline is 1e-5
TOLERANCE = 5e-6


def check_means(got, y):
    for array, expected in zip(got, definition.magnitudes(y)):
        np.testing.assert_allclose(array, expected, rtol=TOLERANCE)


def draw(name, dtype=np.float32):
    x_shape, w_shape, options = CASES[name]
    rng = np.random.default_rng(len(name))
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    n, c, t, h, width = x_shape
    masks = [rng.random(shape) < 0.7 for shape in ((n, t), (n, c), (n, h, width))]
    if name.startswith("mixed"):
        masks[2] = rng.random((n, h, width)) < np.linspace(0, 1, width)    # tiles of both kinds
    return x, w, b, masks, {"channels_last": True, **options}


@pytest.mark.parametrize("name", CASES)
def test_means_are_those_of_what_is_written(lib, isa, name):
    x, w, b, masks, options = draw(name)
    poisoned = x.copy()
    for keep, axes in zip(masks, ((1, 3, 4), (2, 3, 4), (1, 2))):
        poisoned[np.broadcast_to(~np.expand_dims(keep, axes), x.shape)] = np.nan
    z = np.random.default_rng(3).standard_normal(native_kernels.gated_conv3d(lib, x, w, b, masks, **options).shape)
    for minimum, extra in ((0.0, None), (-3.4028234663852886e38, z.astype(np.float32))):
        options["minimum"] = minimum
        alone = native_kernels.gated_conv3d(lib, poisoned, w, b, masks, extra, **options)
        found = []
        for threads in (1, 2, 5):
            means = []
            y = native_kernels.gated_conv3d(lib, poisoned, w, b, masks, extra, magnitudes=means, threads=threads,
                                            **options)
            np.testing.assert_array_equal(y, alone)
            found.append([m.tobytes() for m in means])
        assert found[0] == found[1] == found[2], "results depend on the number of threads"
        check_means(means, y)


@pytest.mark.parametrize("kernel", ((1, 1, 1), (1, 3, 3)))
@pytest.mark.parametrize("outputs", range(1, 19))
def test_means_of_fewer_channels_than_a_vector(lib, isa, outputs, kernel):
    rng = np.random.default_rng(outputs)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 5, 2, 11, 13), (outputs, 5, *kernel)))
    b = rng.standard_normal(outputs).astype(np.float32)
    masks = [np.ones(shape, bool) for shape in ((1, 2), (1, 5), (1, 11, 13))]
    for value in (0.0, np.inf, np.nan):
        x[0, 3, 1, 4, 5] = value
        means = []
        y = native_kernels.gated_conv3d(lib, x, w, b, masks, magnitudes=means, channels_last=True, minimum=0.0)
        for array, expected in zip(means, definition.magnitudes(y)):
            np.testing.assert_array_equal(np.isfinite(array), np.isfinite(expected))
            np.testing.assert_allclose(array[np.isfinite(expected)], expected[np.isfinite(expected)], rtol=TOLERANCE)


@pytest.mark.parametrize("name", ("direct", "direct, channels first", "depthwise"))
def test_means_of_float16(lib, isa, name):
    x, w, b, masks, options = draw(name, np.float16)
    means = []
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, magnitudes=means, **options)
    check_means(means, y)


@pytest.mark.parametrize("name", ("winograd 4x4", "mixed 4x4", "direct", "pointwise", "depthwise"))
def test_nothing_kept_leaves_the_magnitudes_of_the_bias(lib, isa, name):
    x, w, b, masks, options = draw(name)
    for i in range(3):
        means = []
        none = [mask & (i != j) for j, mask in enumerate(masks)]
        y = native_kernels.gated_conv3d(lib, x, w, b, none, magnitudes=means, **options)
        check_means(means, y)
        np.testing.assert_allclose(means[0], np.broadcast_to(np.abs(b), means[0].shape), rtol=TOLERANCE)


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("name", ("winograd 4x4", "direct", "pointwise", "depthwise"))
def test_a_fault_shows_in_the_means_of_its_slices_alone(lib, isa, name, value):
    x, w, b, masks, options = draw(name)
    masks = [np.ones_like(mask) for mask in masks]
    x[0, 1, 1, 4, 5] = value
    means = []
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, magnitudes=means, **options)
    assert not np.isfinite(y).all()
    for array, expected in zip(means, definition.magnitudes(y)):
        np.testing.assert_array_equal(np.isfinite(array), np.isfinite(expected))
        clean = np.isfinite(expected)
        np.testing.assert_allclose(array[clean], expected[clean], rtol=TOLERANCE)


@pytest.mark.parametrize("threads", (1, 3))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("shape", ((1, 1, 1, 1, 1), (2, 3, 2, 5, 7), (1, 64, 3, 23, 29), (2, 70, 1, 1, 9),
                                   (1, 17, 2, 16, 2)))
def test_layout_ops_hand_on_means_too(lib, isa, shape, dtype, threads):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y, means = native_kernels.to_channels_last(lib, x, threads)
    np.testing.assert_array_equal(y, np.transpose(x, (0, 2, 3, 4, 1)))
    check_means(means, x)
    if min(shape[2:]) > 1:
        pooled, means = native_kernels.max_pool3d(lib, x, (2, 2, 2), (1, 2, 2), (0, 1, 1, 1, 0, 0), threads)
        check_means(means, pooled)


def means_of(x):
    return [np.ascontiguousarray(m, np.float32) for m in definition.magnitudes(x)]


@pytest.mark.parametrize("seed", range(40))
def test_a_gate_decides_from_means_as_the_contract_says(lib, isa, seed):
    rng = np.random.default_rng(seed)
    shape = [int(rng.integers(1, 3)), *(int(rng.choice([1, 2, 15, 16, 17, 33])) for _ in range(2)),
             *(int(rng.integers(1, 40)) for _ in range(2))]
    scale = rng.gamma(1.0, 1.0, (*shape[:3], 1, 1)) * rng.gamma(1.0, 1.0, (shape[0], 1, 1, *shape[3:]))
    scale *= rng.choice([1.0, 1e-30, 1e30])
    x = (rng.standard_normal(shape) * scale).astype(np.float32)
    tau = rng.choice([0.0, 0.5, 0.9, 1.0, 1.3], (shape[0], 3)).astype(np.float32)
    kept = []
    masks = native_kernels.activation_gate(lib, x, tau, channels_last=True, threads=int(rng.integers(1, 4)),
                                           magnitudes=means_of(x), kept=kept)
    assert definition.check_masks(x, tau, definition.GateMasks(*masks)) == []
    assert kept == [[int(mask[n].sum()) for mask in masks] for n in range(shape[0])]


def test_a_gate_that_drops_no_channels_never_reads_the_activation(lib, isa):
    x = np.random.default_rng(1).standard_normal((2, 20, 3, 9, 8)).astype(np.float32)
    tau = np.array([[1.0, 0.0, 1.0], [0.9, 0.0, 0.0]], np.float32)
    expected = definition.activation_gate(x, tau)
    unread = np.full_like(x, np.nan)
    for got, mask in zip(native_kernels.activation_gate(lib, unread, tau, True, magnitudes=means_of(x)), expected):
        np.testing.assert_array_equal(got, mask)


@pytest.mark.parametrize("value", (np.nan, np.inf, 3e38))
def test_where_means_say_too_little_the_activation_is_read(lib, isa, value):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 20, 5, 9, 8)).astype(np.float32)
    x[0, 3, 1] = value
    tau = np.full((1, 3), 1.1, np.float32)
    with np.errstate(over="ignore"):
        given = [np.where(m > 1e37, np.inf, m).astype(np.float32) for m in definition.magnitudes(x)]
    masks = native_kernels.activation_gate(lib, x, tau, True, magnitudes=given)
    assert definition.check_masks(x, tau, definition.GateMasks(*masks)) == []
    assert masks[0][0, 1] and masks[1][0, 3]


@pytest.mark.parametrize("scale", (1e-44, 1e-38))
def test_magnitudes_below_float32_are_told_apart(lib, isa, scale):
    x = np.full((1, 3, 2, 40, 40), 0, np.float32)
    x[0, 0, 0, 0, 0], x[0, 0, 1, 0, :2] = scale, scale
    tau = np.array([[1.0, 0.0, 0.0]], np.float32)
    means = means_of(x)
    masks = native_kernels.activation_gate(lib, x, tau, True, magnitudes=means)
    assert masks[0].tolist() == [[False, True]]
