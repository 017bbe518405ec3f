"""GatedConv3d's CUDA kernels, run on the host under sanitizers, against the definition."""
import os
import re

import emulated_cuda
import numpy as np
import pytest
from conv_cases import full_masks, poisoned, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dance_deploy.ops import definition, names

ALGORITHM_NAMES = ("automatic", "direct", "winograd", "depthwise", "plain")


@pytest.fixture(scope="module")
def emulator():
    running = emulated_cuda.Emulator(emulated_cuda.build())
    yield running
    running.close()


def draw_masks(rng, x_shape, rates):
    return [rng.random(mask.shape) < rate for mask, rate in zip(full_masks(x_shape), rates)]


def arithmetic_eps(algorithm, dtype):
    """eps of the sums: halves in the direct and Winograd kernels, float32 in the others."""
    halves = dtype == np.float16 and algorithm in (emulated_cuda.DIRECT, emulated_cuda.WINOGRAD)
    return np.finfo(np.float16).eps if halves else None


def check(emulator, x, w, b, masks, z=None, minimum=names.MIN_DEFAULT, with_norm=False, how=None, **attributes):
    """Run and compare; returns the result. how: layout, masks, algorithm and multiprocessors."""
    result = emulated_cuda.gated_conv3d(emulator, poisoned(x, masks), w, b, masks, z=z, minimum=minimum, **(how or {}),
                                        **attributes)
    expected = definition.reference(x, w, b, *masks, z=z, minimum=minimum,
                                    eps=arithmetic_eps(result.algorithm, x.dtype), **attributes)
    assert definition.check_output(result.y, expected, with_norm=with_norm) == []
    return result


@st.composite
def geometries(draw):
    """(x shape, w shape, attributes): every axis its own, sizes around the borders of groups and tiles."""
    kind = draw(st.sampled_from(["direct", "direct", "direct", "winograd", "depthwise", "grouped"]))
    group = {"direct": 1, "winograd": 1, "depthwise": draw(st.sampled_from([2, 5, 33])),
             "grouped": draw(st.integers(2, 3))}[kind]
    inputs = 1 if kind == "depthwise" else draw(st.sampled_from([1, 3, 4, 5, 8, 9, 17]))
    outputs = 1 if kind == "depthwise" else draw(st.sampled_from([1, 2, 8, 17, 63, 64, 65]))
    if kind == "winograd":
        kernel, strides, dilations = (draw(st.integers(1, 3)), 3, 3), (draw(st.integers(1, 2)), 1, 1), (1, 1, 1)
    else:
        kernel = draw(st.sampled_from([(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (2, 1, 5), (1, 7, 7), (2, 3, 2)]))
        strides = tuple(draw(st.integers(1, 3)) for _ in range(3))
        dilations = tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(3))
    pads = tuple(draw(st.integers(0, 3)) for _ in range(6))
    size = [max(draw(st.integers(1, most)), d * (k - 1) + 1 - p - q)
            for most, k, d, p, q in zip((4, 11, 11), kernel, dilations, pads[:3], pads[3:])]
    x_shape = (draw(st.integers(1, 2)), group * inputs, *size)
    attributes = dict(strides=strides, pads=pads, dilations=dilations, group=group)
    return x_shape, (group * outputs, inputs, *kernel), attributes


RATES = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1), rates=st.tuples(RATES, RATES, RATES), data=st.data())
def test_any_convolution_agrees_with_the_definition(emulator, geometry, seed, rates, data):
    x_shape, w_shape, attributes = geometry
    rng = np.random.default_rng(seed)
    dtype = data.draw(st.sampled_from([np.float32, np.float32, np.float16]))
    how = dict(channels_last=data.draw(st.booleans()), float_masks=data.draw(st.booleans()),
               multiprocessors=data.draw(st.sampled_from([1, 1, 40])))
    allowed = [a for a in range(5) if emulated_cuda.serve(emulator, x_shape, w_shape, dtype=dtype, algorithm=a,
                                                          **attributes)[0] == emulated_cuda.OK]
    how["algorithm"] = data.draw(st.sampled_from(allowed))
    x, w, b = values(rng, x_shape, dtype), values(rng, w_shape, dtype), values(rng, w_shape[:1], dtype)
    masks = draw_masks(rng, x_shape, rates)
    z = None
    if data.draw(st.booleans()):
        z = values(rng, definition.gated_conv3d(x, w, b, *masks, **attributes).shape, dtype)
    check(emulator, x, w, b, masks, z=z, minimum=data.draw(st.sampled_from([0.0, names.MIN_DEFAULT])), how=how,
          **attributes)


def tiles():
    """Names of the tiles of the table in variants.inc, with element type and rows."""
    with open(os.path.join(emulated_cuda.CUDA, "variants.inc")) as file:
        listed = re.findall(r"^DANCE_CONV_TILE\((gated_conv3d_(f\d\d)_(\d+)x64), ", file.read(), re.MULTILINE)
    assert listed
    return listed


SIZES = {"128": (10, 12), "64": (7, 9), "32": (5, 6)}    # maps that a tile of so many rows fits best


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kind", names.MASK_NAMES + ("blob", "all"))
@pytest.mark.parametrize("name,element,rows", tiles())
def test_every_tile_with_every_kind_of_mask(emulator, name, element, rows, kind, channels_last):
    """A layer of several slabs, groups and column tiles; here the norm of the error counts too."""
    rng = np.random.default_rng(len(kind) + int(rows))
    dtype = {"f32": np.float32, "f16": np.float16}[element]
    x_shape = (1, 20, 3, *SIZES[rows])
    x, w, b = (values(rng, shape, dtype) for shape in (x_shape, (66, 20, 3, 3, 3), (66,)))
    masks = full_masks(x_shape)
    if kind == "blob":
        height, width = np.mgrid[:x_shape[3], :x_shape[4]]
        masks[2][0] = np.hypot(height - 3, width - 4) < 3
    elif kind != "all":
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.5
        mask.flat[0] = True
    how = dict(channels_last=channels_last, algorithm=emulated_cuda.DIRECT)
    assert check(emulator, x, w, b, masks, with_norm=True, how=how, pads=(1,) * 6).variant == name


@pytest.mark.parametrize("algorithm", range(1, 5), ids=ALGORITHM_NAMES[1:])
@pytest.mark.parametrize("channels_last", (False, True))
def test_nothing_kept_gives_exactly_the_clamped_bias_and_sum(emulator, channels_last, algorithm):
    rng = np.random.default_rng(5)
    group = 6 if algorithm == emulated_cuda.DEPTHWISE else 1
    x_shape, w_shape = (2, 6, 3, 14, 15), (6, 6 // group, 3, 3, 3)
    x, w, b, z = (values(rng, shape) for shape in (x_shape, w_shape, (6,), x_shape))
    for none in range(3):
        masks = full_masks(x_shape)
        masks[none][...] = False
        result = emulated_cuda.gated_conv3d(emulator, np.full_like(x, np.nan), w, b, masks, z=z, minimum=0.0,
                                            channels_last=channels_last, algorithm=algorithm, group=group,
                                            pads=(1,) * 6)
        np.testing.assert_array_equal(result.y, np.maximum(b[:, None, None, None] + z, np.float32(0)))


@pytest.mark.parametrize("multiprocessors", (1, 30))
def test_every_clip_as_if_alone_and_every_run_the_same(emulator, multiprocessors):
    """Bit for bit, whatever the order in which threads run; so no sum depends on a race or on its neighbours."""
    rng = np.random.default_rng(2)
    x, w, b = (values(rng, shape) for shape in ((3, 12, 3, 7, 6), (70, 12, 3, 3, 3), (70,)))
    masks = draw_masks(rng, x.shape, (0.7, 0.6, 0.7))
    how = dict(pads=(1,) * 6, algorithm=emulated_cuda.DIRECT, multiprocessors=multiprocessors)
    runs = [emulated_cuda.gated_conv3d(emulator, x, w, b, masks, **how).y for _ in range(2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    if multiprocessors == 1:    # with more, fewer clips are cut into more parts
        alone = [emulated_cuda.gated_conv3d(emulator, x[n:n + 1], w, b, [m[n:n + 1] for m in masks], **how).y
                 for n in range(3)]
        np.testing.assert_array_equal(runs[0], np.concatenate(alone))


def test_many_multiprocessors_split_the_reduction(emulator):
    rng = np.random.default_rng(4)
    x, w, b = (values(rng, shape) for shape in ((1, 40, 2, 5, 5), (64, 40, 3, 3, 3), (64,)))
    masks = draw_masks(rng, x.shape, (1, 0.8, 0.8))
    how = dict(algorithm=emulated_cuda.DIRECT)
    few = check(emulator, x, w, b, masks, how=dict(how, multiprocessors=1), pads=(1,) * 6)
    many = check(emulator, x, w, b, masks, how=dict(how, multiprocessors=20), pads=(1,) * 6)
    assert many.launches == few.launches + 1


@pytest.mark.parametrize("algorithm", range(1, 5), ids=ALGORITHM_NAMES[1:])
def test_the_masks_do_not_change_what_is_launched(emulator, algorithm):
    """A CUDA graph that was captured with one set of masks serves all others."""
    rng = np.random.default_rng(6)
    group = 5 if algorithm == emulated_cuda.DEPTHWISE else 1
    x, w, b = (values(rng, shape) for shape in ((1, 5, 3, 14, 14), (5, 5 // group, 3, 3, 3), (5,)))
    launches = {emulated_cuda.gated_conv3d(emulator, x, w, b, draw_masks(rng, x.shape, (rate,) * 3), pads=(1,) * 6,
                                           group=group, algorithm=algorithm).launches for rate in (0, 0.5, 1)}
    assert len(launches) == 1


def needed_multiplications(x_shape, w_shape, masks, **attributes):
    """Multiplications by what is kept and in range: the sum of a convolution of ones."""
    ones, bias = (np.ones(shape, np.float32) for shape in (x_shape, w_shape)), np.zeros(w_shape[0], np.float32)
    return float(definition.gated_conv3d(*ones, bias, *masks, **attributes).sum(dtype=np.float64))


# executed over needed multiplications at most: what rows of a tile, warps and slabs may leave
EXECUTED = {"all": 1.05, "frames": 1.06, "channels": 1.05, "blob": 1.26, "random": 1.58, "none": 0}


@pytest.mark.parametrize("kind", EXECUTED)
def test_what_is_dropped_is_not_computed(emulator, kind):
    rng = np.random.default_rng(11)
    x_shape, w_shape = (1, 32, 6, 16, 16), (64, 32, 3, 3, 3)
    masks = full_masks(x_shape)
    if kind == "frames":
        masks[0][0, ::2] = False
    elif kind == "channels":
        masks[1][0, 1::2] = False
    elif kind == "blob":
        height, width = np.mgrid[:16, :16]
        masks[2][0] = np.hypot(height - 6, width - 9) < 6
    elif kind == "random":
        masks[2][0] = rng.random((16, 16)) < 0.5
    elif kind == "none":
        masks[0][...] = False
    x, w, b = values(rng, x_shape), values(rng, w_shape), values(rng, w_shape[:1])
    check(emulator, x, w, b, masks, pads=(1,) * 6, how=dict(algorithm=emulated_cuda.DIRECT, channels_last=True))
    needed = needed_multiplications(x_shape, w_shape, masks, pads=(1,) * 6)
    assert needed <= emulator.fmas <= EXECUTED[kind] * needed


@pytest.mark.parametrize("index", (0, 1))
def test_winograd_does_half_the_products_for_half_the_frames_or_channels(emulator, index):
    rng = np.random.default_rng(12)
    x, w, b = (values(rng, shape) for shape in ((1, 32, 8, 16, 16), (64, 32, 1, 3, 3), (64,)))
    how = dict(algorithm=emulated_cuda.WINOGRAD, channels_last=True)
    masks = full_masks(x.shape)
    check(emulator, x, w, b, masks, how=how, pads=(0, 1, 1) * 2)
    dense = emulator.fmas
    masks[index][0, ::2] = False
    check(emulator, x, w, b, masks, how=how, pads=(0, 1, 1) * 2)
    assert emulator.fmas == dense / 2 and dense == 36 * 8 * 16 * 32 * 64


def test_an_infinity_or_nan_that_is_kept_shows(emulator):
    rng = np.random.default_rng(8)
    x, w, b = (values(rng, shape) for shape in ((1, 8, 1, 6, 6), (8, 8, 1, 3, 3), (8,)))
    x[0, 3, 0, 2, 2] = np.nan
    result = emulated_cuda.gated_conv3d(emulator, x, w, b, full_masks(x.shape), minimum=0.0, pads=(0, 1, 1, 0, 1, 1),
                                        algorithm=emulated_cuda.DIRECT)
    assert np.isnan(result.y[0, :, 0, 1:4, 1:4]).all() and not np.isnan(result.y[0, :, 0, 5]).any()


def test_halves_do_not_lose_long_sums(emulator):
    """Half sums alone are wrong by 1 % here; the norm must stay below 0.5 %."""
    rng = np.random.default_rng(9)
    x, w, b = (values(rng, shape, np.float16) for shape in ((1, 512, 1, 3, 3), (8, 512, 1, 3, 3), (8,)))
    check(emulator, np.abs(x), w, b, full_masks(x.shape), with_norm=True, pads=(0, 1, 1, 0, 1, 1),
          how=dict(algorithm=emulated_cuda.DIRECT))


REFUSED = [
    (emulated_cuda.BAD_SHAPE, dict(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 3, 3))),
    (emulated_cuda.BAD_SHAPE, dict(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 1, 1), strides=(1, 0, 1))),
    (emulated_cuda.BAD_SHAPE, dict(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 1, 1), group=3)),
    (emulated_cuda.BAD_SHAPE, dict(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 1, 1), pads=(0, 0, -1, 0, 0, 0))),
    (emulated_cuda.BAD_SHAPE, dict(x_shape=(0, 4, 1, 2, 2), w_shape=(4, 4, 1, 1, 1))),
    (emulated_cuda.TOO_LARGE, dict(x_shape=(1, 1024, 64, 256, 256), w_shape=(4, 1024, 1, 1, 1))),
    (emulated_cuda.TOO_LARGE, dict(x_shape=(1, 4, 64, 256, 256), w_shape=(1024, 4, 1, 1, 1))),
    (emulated_cuda.TOO_LARGE, dict(x_shape=(1, 4, 1, 2, 2), w_shape=(4, 4, 1, 1, 1), pads=(0, 0, 2**40, 0, 0, 0))),
    (emulated_cuda.TOO_LARGE, dict(x_shape=(2**62, 2**62, 1, 2, 2), w_shape=(4, 2**62, 1, 1, 1))),
    (emulated_cuda.UNSUPPORTED, dict(x_shape=(1, 4, 1, 9, 9), w_shape=(4, 4, 1, 9, 9), algorithm=emulated_cuda.DIRECT)),
    (emulated_cuda.UNSUPPORTED, dict(x_shape=(1, 4, 1, 9, 9), w_shape=(4, 2, 1, 1, 1), group=2,
                                     algorithm=emulated_cuda.DIRECT)),
    (emulated_cuda.UNSUPPORTED, dict(x_shape=(1, 4, 1, 9, 9), w_shape=(4, 4, 1, 1, 1),
                                     algorithm=emulated_cuda.DEPTHWISE)),
    (emulated_cuda.UNSUPPORTED, dict(x_shape=(1, 4, 1, 9, 9), w_shape=(4, 4, 1, 3, 3), strides=(1, 1, 2),
                                     algorithm=emulated_cuda.WINOGRAD)),
]


@pytest.mark.parametrize("status,geometry", REFUSED)
def test_what_cannot_be_done_is_refused_by_a_status(emulator, status, geometry):
    assert emulated_cuda.serve(emulator, **geometry)[0] == status


def test_kernels_beyond_a_pattern_of_64_positions_are_served(emulator):
    rng = np.random.default_rng(3)
    x, w, b = (values(rng, shape) for shape in ((1, 3, 2, 12, 13), (5, 3, 2, 9, 9), (5,)))
    assert check(emulator, x, w, b, draw_masks(rng, x.shape, (1, 1, 0.7)),
                 pads=(0, 2, 3, 0, 2, 3)).algorithm == emulated_cuda.PLAIN


PAD = (1,) * 6
SERVED = [  # the table in kernels/cuda/README.md
    (emulated_cuda.DIRECT, (1, 8, 4, 9, 9), (8, 8, 3, 3, 3), dict(strides=(2, 2, 2), dilations=(1, 2, 2), pads=PAD)),
    (emulated_cuda.DIRECT, (1, 12288, 1, 2, 2), (8, 12288, 1, 1, 1), {}),
    (emulated_cuda.PLAIN, (1, 12289, 1, 2, 2), (8, 12289, 1, 1, 1), {}),
    (emulated_cuda.DIRECT, (1, 4, 32, 8, 8), (8, 4, 32, 4, 4), {}),
    (emulated_cuda.PLAIN, (1, 4, 33, 8, 8), (8, 4, 33, 2, 2), {}),
    (emulated_cuda.PLAIN, (1, 4, 32, 8, 8), (8, 4, 32, 5, 5), {}),     # 800 positions in all
    (emulated_cuda.WINOGRAD, (1, 16, 2, 14, 14), (32, 16, 3, 3, 3), dict(pads=PAD)),
    (emulated_cuda.DEPTHWISE, (1, 6, 2, 8, 8), (6, 1, 3, 3, 3), dict(group=6, pads=PAD)),
    (emulated_cuda.PLAIN, (1, 6, 2, 8, 8), (12, 1, 3, 3, 3), dict(group=6, pads=PAD)),
    (emulated_cuda.PLAIN, (1, 32, 2, 14, 14), (32, 8, 3, 3, 3), dict(group=4, pads=PAD)),
]


@pytest.mark.parametrize("algorithm,x,w,attributes", SERVED)
def test_which_geometry_is_served_by_what(emulator, algorithm, x, w, attributes):
    assert emulated_cuda.serve(emulator, x, w, **attributes)[:2] == (emulated_cuda.OK, algorithm)
