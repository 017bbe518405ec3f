"""bfloat16: the direct kernel against the definition on rounded inputs, Winograd against bounds of its own."""
import ctypes

import native_kernels
import numpy as np
import pytest
from conv_cases import draw_masks, full_masks, poisoned, values

from dance_deploy.ops import definition, names

AUTOMATIC, DIRECT, SIZES = 0, 1, (2, 4)
EPS = 2.0 ** -7                             # from 1 to the next bfloat16
LARGEST = {2: 4, 4: 16}                     # a Winograd element's error, in EPS x S: its tile's others leak into it
NORM = {DIRECT: 3e-3, 2: 4e-3, 4: 1.3e-2}   # of the whole result's error over its norm, normal random numbers


@pytest.fixture(params=native_kernels.bf16_variants())
def bf16(request, lib):
    """Every variant that is compiled in; one this machine lacks is skipped by name."""
    yield from native_kernels.forced(lib, request.param)


def rounded(x):
    """To the nearest bfloat16, ties to even; float32 again."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), nearest)


def draw(rng, block, winograd=False):
    """Shapes, attributes and masks; channel counts around pairs and vectors."""
    channels = int(rng.choice([16, 17, 33, 40, 64] if winograd else [1, 2, 3, 5, 16, 31, 33, 66]))
    outputs = int(rng.choice([1, block // 2 + 1, block - 1, block, block + 1]))
    kernel = (int(rng.choice([1, 3])), 3, 3) if winograd else (
        [(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (3, 7, 7), (2, 1, 5), (1, 9, 8)][rng.integers(7)])
    strides = (int(rng.integers(1, 3)), 1, 1) if winograd else tuple(int(s) for s in rng.integers(1, 4, 3))
    dilations = (1, 1, 1) if winograd else tuple(int(d) for d in rng.choice([1, 1, 2], 3))
    pads = tuple(int(p) for p in rng.integers(0, 3, 6))
    sizes = [max(int(rng.integers(1, 14)), d * (k - 1) + 1 - p - q)
             for k, d, p, q in zip(kernel, dilations, pads[:3], pads[3:])]
    x_shape = (int(rng.integers(1, 3)), channels, *sizes)
    masks = draw_masks(rng, x_shape)
    if winograd:
        masks[1][:, -1] = True    # with no channel there is nothing to transform
    return x_shape, (outputs, channels, *kernel), dict(strides=strides, pads=pads, dilations=dilations), masks


@pytest.mark.parametrize("seed", range(60))
def test_direct_is_the_definition_on_rounded_inputs_with_float32_sums(lib, bf16, seed):
    """Within float32's own bound: inputs and weights are rounded to nearest even, and nothing else coarsely."""
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attributes, masks = draw(rng, native_kernels.block(lib, bf16))
    x, w, b = values(rng, x_shape), values(rng, w_shape), values(rng, (w_shape[0],))
    minimum = float(rng.choice([0.0, names.MIN_DEFAULT]))
    plain = definition.gated_conv3d(x, w, b, *masks, **attributes)
    z = values(rng, plain.shape) if rng.random() < 0.4 else None
    channels_last = rng.random() < 0.5
    exact = channels_last and w_shape[2:] == (1, 1, 1) and not any(attributes["pads"])    # pointwise: in float32
    inputs = (x, w) if exact else (rounded(x), rounded(w))
    reference = definition.reference(*inputs, b, *masks, z=z, minimum=minimum, **attributes)
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, z=z, minimum=minimum, bf16=True,
                                    variant=DIRECT, threads=int(rng.integers(1, 4)), channels_last=channels_last,
                                    **attributes)
    assert definition.check_output(y, reference, with_norm=False) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(30))
def test_winograd_stays_within_its_bound(lib, bf16, seed, size):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attributes, masks = draw(rng, native_kernels.block(lib, bf16), winograd=True)
    x, w, b = values(rng, x_shape), values(rng, w_shape), values(rng, (w_shape[0],))
    used = ctypes.c_int32()
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, bf16=True, variant=size, used=used,
                                    threads=int(rng.integers(1, 4)), channels_last=rng.random() < 0.5, **attributes)
    assert used.value == size
    within(y, x, w, b, masks, LARGEST[size] * EPS, attributes)


@pytest.mark.parametrize("seed", range(40))
def test_winograd_of_small_whole_numbers_is_exact(lib, bf16, seed):
    """2x2 tiles of numbers that stay whole and below 256 when transformed: every unit, index and mask must be right."""
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attributes, masks = draw(rng, native_kernels.block(lib, bf16), winograd=True)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (x_shape, w_shape))
    w, b = 4 * w, np.zeros(w_shape[0], np.float32)
    used = ctypes.c_int32()
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, bf16=True, variant=2, used=used,
                                    threads=int(rng.integers(1, 4)), channels_last=rng.random() < 0.5, **attributes)
    assert used.value == 2
    np.testing.assert_array_equal(y, definition.gated_conv3d(x, w, b, *masks, **attributes))


@pytest.mark.parametrize("variant", (DIRECT, 2))
@pytest.mark.parametrize("channels", (20, 35))
@pytest.mark.parametrize("side", (6, 30))
def test_dropped_channels_of_small_and_large_maps_are_exact(lib, bf16, side, channels, variant):
    """Weights of kept channels are put together in the inner loop where few rows share them, else once a call."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-4, 5, (2, channels, 2, side, side)).astype(np.float32)
    w, b = 4 * rng.integers(-4, 5, (70, channels, 3, 3, 3)).astype(np.float32), np.zeros(70, np.float32)
    masks = full_masks(x.shape)
    for rate in (0.1, 0.5, 0.9):
        masks[1][...] = rng.random(masks[1].shape) < rate
        masks[1][:, rng.integers(channels)] = True
        y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, bf16=True, variant=variant,
                                        channels_last=True, pads=(1,) * 6, threads=2)
        np.testing.assert_array_equal(y, definition.gated_conv3d(x, w, b, *masks, pads=(1,) * 6))


def within(y, x, w, b, masks, eps, attributes):
    """Every element within eps x S of the definition, S as in the ops' contract."""
    terms = np.prod(w.shape[1:], dtype=np.float64)
    reference = definition.reference(x, w, b, *masks, eps=eps / (2 * np.sqrt(terms + 2)), **attributes)
    assert definition.check_output(y, reference, with_norm=False) == []


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("rate", (1.0, 0.7, 0.3))
@pytest.mark.parametrize("variant", (DIRECT, *SIZES))
def test_a_real_layer_loses_no_more_than_bfloat16_does(lib, bf16, variant, rate, channels_last):
    rng = np.random.default_rng(7)
    frames, rows = (3, 14) if bf16 == "emulated_amx" else (5, 32)    # emulated instructions take their time
    x, w, b = values(rng, (1, 70, frames, rows, 22)), values(rng, (66, 70, 3, 3, 3)), values(rng, (66,))
    masks = [rng.random(mask.shape) < rate for mask in full_masks(x.shape)]
    how = dict(channels_last=channels_last, pads=(1,) * 6)
    one, three = (native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, bf16=True, variant=variant,
                                              threads=threads, **how) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)
    reference = definition.reference(x, w, b, *masks, pads=(1,) * 6)
    error = np.linalg.norm(one - reference.y) / np.linalg.norm(reference.y)
    assert 1e-4 < error < NORM[variant]    # below: this was not bfloat16


def test_every_choice_of_channels_is_paired_right(lib, bf16):
    """All 256 masks of 8 channels, and 128 of 7: each kept channel has a weight of its own."""
    for channels in (8, 7):
        masks = full_masks((1, channels, 1, 3, 3))
        w = np.zeros((channels, channels, 1, 3, 3), np.float32)
        w[range(channels), range(channels), 0, 1, 1] = 1
        x = np.broadcast_to(np.arange(1, channels + 1, dtype=np.float32)[:, None, None, None], (1, channels, 1, 3, 3))
        for bits in range(1 << channels):
            masks[1][0] = [bits >> c & 1 for c in range(channels)]
            y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, np.zeros(channels, np.float32), masks,
                                            bf16=True, channels_last=bits % 2 == 0, pads=(0, 1, 1) * 2)
            np.testing.assert_array_equal(y, np.where(masks[1][0][:, None, None, None], x, 0))


def test_faults_show_and_extremes_are_what_bfloat16_has(lib, bf16):
    """NaN stays NaN and an infinity reaches its output; what is above bfloat16's range becomes infinite."""
    x = np.array([np.nan, np.inf, -np.inf, 3.4e38, 1.0, -0.0, 65280.0], np.float32).reshape(1, 1, 1, 1, 7)
    masks = full_masks(x.shape)
    one, zero = np.ones((2, 1, 1, 1, 1), np.float32), np.zeros(2, np.float32)
    y = native_kernels.gated_conv3d(lib, x, one, zero, masks, bf16=True, minimum=float("-inf"))
    np.testing.assert_array_equal(y[0, 1, 0, 0], [np.nan, np.inf, -np.inf, np.inf, 1, 0, 65280])


def test_numbers_below_the_smallest_normal_one_may_count_as_zero(lib, bf16):
    """The products of AVX512-BF16 and AMX take subnormal numbers for zeros: at most 2^-126 each is lost."""
    x = np.full((1, 4, 1, 1, 5), 2.0 ** -130, np.float32)
    w, b = np.full((3, 4, 1, 1, 1), 2.0, np.float32), np.zeros(3, np.float32)
    y = native_kernels.gated_conv3d(lib, x, w, b, full_masks(x.shape), bf16=True)
    assert (np.abs(y - 2.0 ** -127) <= 2.0 ** -127).all()


def test_nothing_kept_gives_exactly_the_clamped_bias(lib, bf16):
    rng = np.random.default_rng(5)
    x, w, b = values(rng, (2, 20, 3, 4, 5)), values(rng, (20, 20, 3, 3, 3)), values(rng, (20,))
    for none in range(3):
        masks = full_masks(x.shape)
        masks[none][...] = False
        for channels_last in (False, True):
            y = native_kernels.gated_conv3d(lib, np.full_like(x, np.nan), w, b, masks, minimum=0.0, bf16=True,
                                            channels_last=channels_last, pads=(1,) * 6)
            np.testing.assert_array_equal(y, np.broadcast_to(np.maximum(b, 0)[:, None, None, None], y.shape))


def test_weights_take_half_the_memory(lib, bf16):
    x, w = np.empty((1, 64, 3, 9, 9), np.float32), np.zeros((64, 64, 3, 3, 3), np.float32)
    sizes = []
    for half in (False, True):
        conv = native_kernels.Conv((ctypes.c_int64 * 5)(*x.shape), (ctypes.c_int64 * 5)(*w.shape), strides=(1, 1, 1),
                                   dilations=(1, 1, 1), group=1, variant=DIRECT, bf16=half)
        lib.dance_packed_bytes.restype = ctypes.c_int64
        sizes.append(lib.dance_packed_bytes(ctypes.byref(conv), ctypes.c_void_p(w.ctypes.data)))
    assert sizes[0] >= w.nbytes and sizes[1] <= sizes[0] // 2 + 64
