"""The depthwise kernel against the definition: widths around its strips, channels around its vectors, every mask."""
import native_kernels
import numpy as np
import pytest
from conv_cases import grouped_case, poisoned, values
from test_native_conv import check_case

from dance_deploy.ops import definition, names

CHANNELS = (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 54)     # around the vectors of every instruction set
WIDTHS = (1, 2, 7, 8, 9, 16, 17, 23)                          # around strips of 8
KERNELS = ((3, 3, 3), (5, 1, 1), (1, 3, 3), (3, 1, 1), (1, 1, 1), (2, 2, 2), (1, 5, 7))


def case(seed):
    """A random depthwise convolution."""
    rng = np.random.default_rng(seed)
    return grouped_case(rng, int(rng.choice(CHANNELS)), 1, 1, KERNELS[seed % len(KERNELS)], WIDTHS, largest=(5, 7))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("seed", range(40))
def test_random_depthwise_cases_agree_with_the_definition(lib, isa, seed, channels_last):
    check_case(lib, seed, channels_last, *case(seed))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kind", (None, *names.MASK_NAMES))
def test_a_layer_like_x3ds(lib, isa, kind, channels_last):
    """54 channels fill no whole number of vectors; here the norm of the error counts too."""
    rng = np.random.default_rng(11)
    x, w, b = (values(rng, shape) for shape in ((1, 54, 3, 21, 20), (54, 1, 3, 3, 3), (54,)))
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 54), (1, 21, 20))]
    if kind is not None:
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.5
        mask.flat[0] = True
    for strides in ((1, 1, 1), (1, 2, 2)):
        attributes = dict(pads=(1,) * 6, strides=strides, group=54)
        y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, threads=2,
                                        channels_last=channels_last, **attributes)
        assert definition.check_output(y, definition.reference(x, w, b, *masks, **attributes)) == []


def test_a_fault_stays_in_its_channel(lib, isa):
    """A vector shares its lanes among channels; a kept NaN reaches the outputs that read it, in its channel only."""
    x, w, b = np.ones((1, 33, 1, 4, 12), np.float32), np.ones((33, 1, 1, 3, 3), np.float32), np.zeros(33, np.float32)
    x[0, 32, 0, 1, 5] = np.nan
    masks = [np.ones(shape, bool) for shape in ((1, 1), (1, 33), (1, 4, 12))]
    for channels_last in (False, True):
        y = native_kernels.gated_conv3d(lib, x, w, b, masks, pads=(0, 1, 1, 0, 1, 1), group=33, minimum=0.0,
                                        channels_last=channels_last)
        faulty = np.zeros(y.shape, bool)
        faulty[0, 32, 0, 0:3, 4:7] = True
        np.testing.assert_array_equal(np.isnan(y), faulty)


def test_padding_and_strides_as_large_as_they_may_be(lib, isa):
    """What is far out of range costs neither memory nor time; 32 bits do not hold these positions."""
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 1, 1, 3)
    w, b = np.full((2, 1, 1, 1, 1), 10, np.float32), np.array([0.5, 0.25], np.float32)
    masks = [np.ones(shape, bool) for shape in ((1, 1), (1, 2), (1, 1, 3))]
    far = 1 << 31
    for channels_last in (False, True):
        y = native_kernels.gated_conv3d(lib, x, w, b, masks, strides=(1, 1, far), pads=(0, 0, far, 0, 0, far), group=2,
                                        channels_last=channels_last)
        np.testing.assert_array_equal(y[0, :, 0, 0], [[0.5, 10.5, 0.5], [0.25, 40.25, 0.25]])


def test_products_that_overflow_are_refused(lib):
    """Every extent is small enough alone; the output would have more elements than 48 bits count."""
    conv = native_kernels.Conv(x_shape=(1, 2, 1, 1, 3), w_shape=(2, 1, 1, 1, 1), strides=(1, 1, 1),
                               pads=(0, 1 << 20, 1 << 20, 0, 1 << 20, 1 << 20), dilations=(1, 1, 1), group=2, threads=1,
                               repeats=1)
    assert lib.dance_gated_conv3d(native_kernels.ctypes.byref(conv), *[None] * 9) == 1
