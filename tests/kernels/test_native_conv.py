"""GatedConv3d's kernels against the definition: random geometries, masks and values, on every variant."""
import ctypes
import functools

import native_kernels
import numpy as np
import pytest
from conv_cases import draw_masks, poisoned, values

from dance_deploy.ops import definition, names


def draw_geometry(rng, block):
    """A random convolution whose axes all differ where they can; sizes sit around the tiles' borders."""
    depthwise = rng.random() < 0.2
    group = int(rng.choice([2, 17, block - 1, block, block + 1])) if depthwise else int(rng.choice([1, 1, 1, 2, 3]))
    inputs = 1 if depthwise else int(rng.choice([1, 2, 5, 16, 17, 33]))
    outputs = 1 if depthwise else int(rng.choice([1, 2, block // 2 + 1, block - 1, block, block + 1]))
    kernel = [(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (3, 7, 7), (2, 1, 5), (1, 9, 8), (5, 3, 1)][rng.integers(8)]
    strides = tuple(int(s) for s in rng.integers(1, 4, 3))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 2], 3))
    pads = tuple(int(p) for p in rng.integers(0, 4, 6))
    sizes = [max(int(rng.integers(1, 14)), d * (k - 1) + 1 - p - q)
             for k, d, p, q in zip(kernel, dilations, pads[:3], pads[3:])]
    x_shape = (int(rng.integers(1, 3)), group * inputs, *sizes)
    attributes = dict(strides=strides, pads=pads, dilations=dilations, group=group)
    return x_shape, (group * outputs, inputs, *kernel), attributes


def check(y, reference):
    assert definition.check_output(y, reference, with_norm=False) == []


def check_case(lib, seed, channels_last, x, w, b, masks, z, attributes):
    """A case against the definition; clamp, prepacking and threads change with its seed."""
    minimum = (0.0, names.MIN_DEFAULT)[seed % 2]
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, z=z, minimum=minimum,
                                    channels_last=channels_last, prepack=seed % 3 > 0, threads=1 + seed % 3,
                                    **attributes)
    check(y, definition.reference(x, w, b, *masks, z=z, minimum=minimum, **attributes))


@pytest.mark.parametrize("seed", range(60))
def test_random_cases_agree_with_the_definition(lib, isa, seed):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attributes = draw_geometry(rng, native_kernels.block(lib, isa))
    dtype = np.float16 if rng.random() < 0.2 else np.float32
    x, w, b = (values(rng, shape, dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    masks = draw_masks(rng, x_shape)
    minimum = float(rng.choice([0.0, names.MIN_DEFAULT]))
    plain = definition.gated_conv3d(x, w, b, *masks, **attributes)
    z = values(rng, plain.shape, dtype) if rng.random() < 0.4 else None
    reference = definition.reference(x, w, b, *masks, z=z, minimum=minimum, **attributes)
    given = [m.astype(np.float32) * -0.5 for m in masks] if rng.random() < 0.3 else masks
    how = dict(threads=int(rng.integers(1, 4)), channels_last=rng.random() < 0.5, prepack=rng.random() < 0.5)
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, given, z=z, minimum=minimum, **how, **attributes)
    check(y, reference)


@functools.lru_cache(maxsize=None)
def layer(kind):
    """(x, w, b, masks, its Reference) of a layer with several blocks, tiles and passes over the weights."""
    rng = np.random.default_rng(7)
    x, w, b = (values(rng, shape) for shape in ((1, 70, 3, 30, 29), (66, 70, 3, 3, 3), (66,)))
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 70), (1, 30, 29))]
    if kind == "blob":
        rows, columns = np.mgrid[:30, :29]
        masks[2][0] = np.hypot(rows - 9, columns - 14) < 10
    elif kind != "all":
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.4
        mask.flat[0] = True
    return x, w, b, masks, definition.reference(x, w, b, *masks, pads=(1,) * 6)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kind", ("all", "blob") + names.MASK_NAMES)
def test_a_real_layer_with_one_kind_of_mask(lib, isa, kind, channels_last):
    """Here the norm of the error counts too."""
    x, w, b, masks, reference = layer(kind)
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, channels_last=channels_last, pads=(1,) * 6, threads=2)
    assert definition.check_output(y, reference) == []


def test_kernels_of_more_positions_than_a_bit_set_has(lib, isa):
    """9x9 positions of a frame do not fit 64 bits, 70 of a row neither."""
    rng = np.random.default_rng(3)
    for x_shape, w_shape in (((1, 3, 2, 12, 13), (5, 3, 2, 9, 9)), ((1, 2, 1, 2, 80), (3, 2, 1, 1, 70))):
        x, w, b = (values(rng, shape) for shape in (x_shape, w_shape, w_shape[:1]))
        masks = draw_masks(rng, x_shape)
        masks[0][...] = masks[1][...] = True
        y = native_kernels.gated_conv3d(lib, x, w, b, masks, pads=(0, 2, 3, 0, 2, 3))
        check(y, definition.reference(x, w, b, *masks, pads=(0, 2, 3, 0, 2, 3)))


@pytest.mark.parametrize("group", (1, 2, 20))
@pytest.mark.parametrize("channels_last", (False, True))
def test_nothing_kept_gives_exactly_the_clamped_bias_and_sum(lib, isa, channels_last, group):
    rng = np.random.default_rng(5)
    x, w, b = (values(rng, shape) for shape in ((2, 20, 3, 4, 5), (20, 20 // group, 3, 3, 3), (20,)))
    z = values(rng, (2, 20, 3, 4, 5))
    for none in range(3):
        masks = [np.ones(shape, bool) for shape in ((2, 3), (2, 20), (2, 4, 5))]
        masks[none][...] = False
        y = native_kernels.gated_conv3d(lib, np.full_like(x, np.nan), w, b, masks, z=z, minimum=0.0, group=group,
                                        channels_last=channels_last, pads=(1,) * 6)
        np.testing.assert_array_equal(y, np.maximum(b[:, None, None, None] + z, 0))


def test_one_kept_entry_of_each_kind(lib, isa):
    rng = np.random.default_rng(6)
    x, w, b = (values(rng, shape) for shape in ((1, 18, 4, 6, 7), (9, 18, 3, 3, 3), (9,)))
    masks = [np.zeros(shape, bool) for shape in ((1, 4), (1, 18), (1, 6, 7))]
    masks[0][0, 2] = masks[1][0, 11] = masks[2][0, 3, 6] = True
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks, np.inf), w, b, masks, pads=(1,) * 6)
    check(y, definition.reference(x, w, b, *masks, pads=(1,) * 6))


def test_a_kept_fault_shows(lib, isa):
    """NaN stays NaN through the clamp; an infinity reaches every output that reads it."""
    x, w, b = np.ones((1, 1, 1, 3, 3), np.float32), np.ones((2, 1, 1, 1, 1), np.float32), np.zeros(2, np.float32)
    x[0, 0, 0, 1, 1], x[0, 0, 0, 2, 2] = np.nan, np.inf
    masks = [np.ones(shape, bool) for shape in ((1, 1), (1, 1), (1, 3, 3))]
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, minimum=0.0)
    np.testing.assert_array_equal(y[0, 1], x[0, 0])


@pytest.mark.parametrize("group", (1, 24))
def test_result_does_not_depend_on_threads_and_each_n_is_as_if_alone(lib, isa, group):
    rng = np.random.default_rng(8)
    x, w, b = (values(rng, shape) for shape in ((3, 24, 4, 15, 14), (24, 24 // group, 3, 3, 3), (24,)))
    masks = [rng.random(shape) < 0.6 for shape in ((3, 4), (3, 24), (3, 15, 14))]
    together = [native_kernels.gated_conv3d(lib, x, w, b, masks, threads=threads, group=group, pads=(1,) * 6)
                for threads in (1, 2, 5)]
    alone = np.concatenate([native_kernels.gated_conv3d(lib, x[n:n + 1], w, b, [m[n:n + 1] for m in masks], group=group,
                                                        pads=(1,) * 6) for n in range(3)])
    for y in together:
        np.testing.assert_array_equal(y, alone)


def test_packing_ahead_changes_nothing(lib, isa):
    rng = np.random.default_rng(9)
    for group in (1, 3, 30):
        x, w, b = (values(rng, shape) for shape in ((2, 30, 3, 5, 6), (30, 30 // group, 1, 3, 3), (30,)))
        # all pixels: the way for few of them packs weights of its own, which it does ahead only
        masks = [rng.random(shape) < rate for shape, rate in (((2, 3), 0.7), ((2, 30), 0.7), ((2, 5, 6), 2))]
        ahead, each = (native_kernels.gated_conv3d(lib, x, w, b, masks, prepack=prepack, group=group)
                       for prepack in (True, False))
        np.testing.assert_array_equal(ahead, each)


def test_float16_rounds_as_numpy_does(lib, isa):
    """Every half there is, through a 1x1x1 convolution with weight 1: exact, and back."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 1, 1, 256, 256)
    masks = [np.ones(shape, bool) for shape in ((1, 1), (1, 1), (1, 256, 256))]
    one, zero = np.ones((1, 1, 1, 1, 1), np.float16), np.zeros(1, np.float16)
    y = native_kernels.gated_conv3d(lib, halves, one, zero, masks, minimum=float("-inf"))
    numbers = ~np.isnan(halves)
    np.testing.assert_array_equal(y[numbers], halves[numbers])
    assert np.isnan(y[~numbers]).all()
    large = halves[(halves > 2.0 ** -13) & (halves < 2.0 ** 15)].reshape(1, 1, 1, 1, -1)
    half_step = (np.spacing(large) / np.float16(2)).astype(np.float16)    # exactly between two halves: ties to even
    masks[2] = np.ones((1, 1, large.shape[-1]), bool)
    y = native_kernels.gated_conv3d(lib, large, one, zero, masks, z=half_step)
    np.testing.assert_array_equal(y, (large.astype(np.float32) + half_step.astype(np.float32)).astype(np.float16))


def test_a_geometry_that_does_not_fit_is_refused(lib):
    conv = native_kernels.Conv(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 3, 3), strides=(1, 1, 1),
                               dilations=(1, 1, 1), group=1, threads=1, repeats=1)
    nothing = [None] * 9
    assert lib.dance_gated_conv3d(ctypes.byref(conv), *nothing) == 1
