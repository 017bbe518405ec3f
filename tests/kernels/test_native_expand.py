"""A 1x1x1 convolution and the depthwise one behind it in one op, against the definition, on every variant."""
import native_kernels
import numpy as np
import pytest
from conv_cases import draw_masks, poisoned, values

from dance_deploy.ops import definition, names

INPUTS = (1, 3, 16, 24, 50)
OUTPUTS = (2, 7, 8, 15, 16, 17, 31, 54, 65, 70, 130)          # around vectors and blocks of every instruction set
KERNELS = ((3, 3, 3), (1, 3, 3), (5, 1, 1), (3, 3, 3), (1, 5, 5), (2, 2, 2), (3, 2, 7), (1, 1, 1))


def draw(rng, kernel):
    """Arguments of one case: x, w, b, masks, depthwise_w, depthwise_b, and the attributes."""
    strides = tuple(int(s) for s in rng.choice([1, 1, 2, 3], 3))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 1, 2], 3))
    pads = tuple(int(p) for p in rng.integers(0, 4, 6)) if rng.random() < 0.5 else tuple(k // 2 for k in kernel) * 2
    sizes = (int(rng.integers(1, 6)), int(rng.integers(1, 9)), int(rng.choice([1, 2, 7, 14, 15, 29, 40])))
    sizes = [max(s, d * (k - 1) + 1 - p - q) for s, k, d, p, q in zip(sizes, kernel, dilations, pads[:3], pads[3:])]
    inputs, outputs = int(rng.choice(INPUTS)), int(rng.choice(OUTPUTS))
    x, w, b, depthwise_w, depthwise_b = (values(rng, shape) for shape in (
        (int(rng.integers(1, 3)), inputs, *sizes), (outputs, inputs, 1, 1, 1), (outputs,), (outputs, 1, *kernel),
        (outputs,)))
    attributes = dict(strides=strides, pads=pads, dilations=dilations, group=outputs)
    return x, w, b, draw_masks(rng, x.shape), depthwise_w, depthwise_b, attributes


@pytest.mark.parametrize("seed", range(80))
def test_random_cases_agree_with_the_definition(lib, isa, seed):
    rng = np.random.default_rng(seed)
    x, w, b, masks, depthwise_w, depthwise_b, attributes = draw(rng, KERNELS[seed % len(KERNELS)])
    attributes.update(minimum=(0.0, names.MIN_DEFAULT)[seed % 2], swish=seed % 3 == 0,
                      depthwise_minimum=(names.MIN_DEFAULT, 0.0)[seed // 2 % 2])
    expected = definition.expand_depthwise_reference(x, w, b, masks, depthwise_w, depthwise_b, **attributes)
    y = native_kernels.expand_depthwise(lib, poisoned(x, masks), w, b, masks, depthwise_w, depthwise_b,
                                        prepack=seed % 5 > 0, threads=1 + seed % 3, **attributes)
    assert definition.check_output(y, expected, with_norm=False) == []


@pytest.mark.parametrize("kind", (None, *names.MASK_NAMES))
@pytest.mark.parametrize("strides", ((1, 1, 1), (1, 2, 2)))
def test_a_layer_like_x3ds(lib, isa, kind, strides):
    """Large enough for the norm of the error to count, and for several rings; alike from any number of threads."""
    rng = np.random.default_rng(5)
    x, w, b, depthwise_w, depthwise_b = (values(rng, shape) for shape in (
        (1, 24, 9, 40, 41), (54, 24, 1, 1, 1), (54,), (54, 1, 3, 3, 3), (54,)))
    masks = [np.ones(shape, bool) for shape in ((1, 9), (1, 24), (1, 40, 41))]
    if kind is not None:
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.5
    attributes = dict(pads=(1,) * 6, strides=strides, group=54, minimum=0.0, swish=True)
    expected = definition.expand_depthwise_reference(x, w, b, masks, depthwise_w, depthwise_b, **attributes)
    first, *others = (native_kernels.expand_depthwise(lib, poisoned(x, masks), w, b, masks, depthwise_w, depthwise_b,
                                                      threads=threads, **attributes) for threads in (1, 2, 3))
    assert definition.check_output(first, expected) == []
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_what_no_ring_can_hold_is_computed_one_after_the_other(lib, isa):
    """A kernel that mostly reads padding, and strides across it: neither costs memory."""
    x, w, b = np.ones((1, 2, 1, 2, 3), np.float32), np.ones((20, 2, 1, 1, 1), np.float32), np.zeros(20, np.float32)
    masks = [np.ones(shape, bool) for shape in ((1, 1), (1, 2), (1, 2, 3))]
    far = 1 << 20
    for attributes in (dict(pads=(0, 0, far, 0, 0, far), strides=(1, 1, far)), dict(pads=(0, 0, 40, 0, 0, 40),
                                                                                  dilations=(1, 1, 40))):
        kernel = 1 if "strides" in attributes else 3
        depthwise_w = np.ones((20, 1, 1, 1, kernel), np.float32)
        y = native_kernels.expand_depthwise(lib, x, w, b, masks, depthwise_w, b, group=20, **attributes)
        assert (y[..., y.shape[-1] // 2] == 2).all()


@pytest.mark.parametrize("dilation, threads", ((64, 4), (64, 8), (40, 8)))
def test_columns_that_read_padding_alone(lib, isa, dilation, threads):
    """Of several workers, the outer ones' columns lie beside the map altogether."""
    rng, width, pad = np.random.default_rng(dilation), dilation - 8, 2 * dilation - 1
    x, w, b, depthwise_w = (values(rng, shape) for shape in (
        (1, 2, 2, 1, width), (64, 2, 1, 1, 1), (64,), (64, 1, 1, 1, 2)))
    masks = [np.ones(shape, bool) for shape in ((1, 2), (1, 2), (1, 1, width))]
    attributes = dict(pads=(0, 0, pad, 0, 0, pad), dilations=(1, 1, dilation), group=64)
    expected = definition.expand_depthwise_reference(x, w, b, masks, depthwise_w, b, **attributes)
    for _ in range(3):
        y = native_kernels.expand_depthwise(lib, x, w, b, masks, depthwise_w, b, threads=threads, **attributes)
        assert definition.check_output(y, expected, with_norm=False) == []


def test_a_fault_reaches_the_outputs_that_read_it(lib, isa):
    """A kept NaN spreads over all channels of its pixel, and from there to the pixels around it, no further."""
    x, w, b = np.ones((1, 4, 3, 6, 30), np.float32), np.ones((33, 4, 1, 1, 1), np.float32), np.zeros(33, np.float32)
    x[0, 2, 1, 3, 14] = np.nan
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 4), (1, 6, 30))]
    for swish in (False, True):
        y = native_kernels.expand_depthwise(lib, x, w, b, masks, np.ones((33, 1, 1, 3, 3), np.float32), b, minimum=0.0,
                                            depthwise_minimum=0.0, swish=swish, pads=(0, 1, 1, 0, 1, 1), group=33)
        faulty = np.zeros(y.shape, bool)
        faulty[0, :, 1, 2:5, 13:16] = True
        np.testing.assert_array_equal(np.isnan(y), faulty)
