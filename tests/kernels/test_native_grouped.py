"""Convolutions of several groups, some narrower than a vector, against the definition: every way to compute them."""
import native_kernels
import numpy as np
import pytest
from conv_cases import grouped_case, poisoned, values
from test_native_conv import check_case

from dance_deploy.ops import definition, names

# (groups, inputs, outputs of one): lanes shared by whole groups, by parts of groups, over one register and over two;
# groups as wide as a vector or wider; and so few channels that no vector is full
GROUPS = ((32, 4, 4), (8, 4, 4), (6, 2, 2), (5, 4, 4), (9, 4, 2), (16, 2, 4), (7, 3, 5), (11, 5, 3), (4, 8, 8),
          (3, 8, 8), (3, 16, 16), (2, 16, 8), (2, 33, 4), (17, 1, 2), (3, 12, 20), (2, 17, 65), (2, 3, 3), (4, 16, 12))
KERNELS = ((3, 3, 3), (1, 1, 1), (1, 3, 3), (3, 1, 1), (2, 2, 2), (1, 1, 5), (1, 3, 3))
WIDTHS = (1, 2, 7, 8, 9, 17)


def case(seed):
    """A random grouped convolution."""
    rng = np.random.default_rng(seed)
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    return grouped_case(rng, *GROUPS[seed % len(GROUPS)], kernel, WIDTHS, largest=(3, 5), padded=0.7)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("seed", range(3 * len(GROUPS)))
def test_random_grouped_cases_agree_with_the_definition(lib, isa, seed, channels_last):
    check_case(lib, seed, channels_last, *case(seed))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kind", (None, *names.MASK_NAMES))
@pytest.mark.parametrize("width", (4, 8, 16, 20))
def test_a_layer_like_resnexts(lib, isa, width, kind, channels_last):
    """Large enough for the norm of the error to count, and computed alike whatever the number of threads."""
    rng = np.random.default_rng(width)
    groups = 8
    x, w, b = (values(rng, shape, np.float32) for shape in (
        (1, groups * width, 3, 11, 20), (groups * width, width, 3, 3, 3), (groups * width,)))
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, groups * width), (1, 11, 20))]
    if kind is not None:
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.5
        mask.flat[0] = True
    for strides in ((1, 1, 1), (1, 2, 2)):
        attributes = dict(pads=(1,) * 6, strides=strides, group=groups)
        y, again = (native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks,
                                                threads=threads, channels_last=channels_last, **attributes)
                    for threads in (1, 3))
        assert definition.check_output(y, definition.reference(x, w, b, *masks, **attributes)) == []
        np.testing.assert_array_equal(y, again)


def test_a_fault_stays_in_its_group(lib, isa):
    """A vector shares its lanes among groups; a kept NaN reaches the outputs that read it, in its group only."""
    for groups, width in ((8, 4), (4, 8), (3, 16)):
        channels = groups * width
        x, w = np.ones((1, channels, 1, 4, 12), np.float32), np.ones((channels, width, 1, 3, 3), np.float32)
        b = np.zeros(channels, np.float32)
        x[0, width + 1, 0, 1, 5] = np.nan
        masks = [np.ones(shape, bool) for shape in ((1, 1), (1, channels), (1, 4, 12))]
        for channels_last in (False, True):
            y = native_kernels.gated_conv3d(lib, x, w, b, masks, pads=(0, 1, 1, 0, 1, 1), group=groups, minimum=0.0,
                                            channels_last=channels_last)
            faulty = np.zeros(y.shape, bool)
            faulty[0, width:2 * width, 0, 0:3, 4:7] = True
            np.testing.assert_array_equal(np.isnan(y), faulty)
