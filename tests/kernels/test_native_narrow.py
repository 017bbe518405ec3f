"""Layers of few input or output channels, and few dropped ones, against the definition: loops of their own."""
import native_kernels
import numpy as np
import pytest
from conv_cases import full_masks

from dance_deploy.ops import definition

KERNELS = [(3, 3, 3), (3, 3, 3), (1, 3, 3), (3, 1, 1), (2, 1, 5), (1, 7, 7), (2, 3, 2)]


def draw(rng, inputs, outputs, strides=None):
    """x, w, b, masks and attributes of a random layer with these channels."""
    kernel = KERNELS[rng.integers(len(KERNELS))]
    strides = strides or tuple(int(s) for s in rng.choice([1, 1, 2, 3], 3))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 1, 2], 3))
    pads = tuple(int(p) for p in rng.integers(0, 3, 6))
    size = [max(int(rng.integers(1, most)), d * (k - 1) + 1 - p - q)
            for most, k, d, p, q in zip((5, 12, 32), kernel, dilations, pads[:3], pads[3:])]
    x = rng.standard_normal((int(rng.integers(1, 3)), inputs, *size)).astype(np.float32)
    w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((outputs, inputs, *kernel), outputs))
    n, c, t, h, width = x.shape
    masks = [rng.random(shape) < rng.choice([0.3, 0.7, 0.9, 1.0, 1.0]) for shape in ((n, t), (n, c), (n, h, width))]
    if rng.random() < 0.5:  # what lies together: whole tiles that read nothing
        rows, columns = np.mgrid[:h, :width]
        masks[2][...] = np.hypot(rows - h / 3, columns - width / 2) < width / 4
    return x, w, b, masks, dict(strides=strides, pads=pads, dilations=dilations)


def poisoned(x, masks):
    frame, channel, feature = masks
    kept = frame[:, None, :, None, None] & channel[:, :, None, None, None] & feature[:, None, None]
    return np.where(kept, x, np.float32(np.nan))


@pytest.mark.parametrize("outputs", (1, 2, 3, 4, 5, 7, 13, 17))
@pytest.mark.parametrize("inputs", (1, 3, 4, 7, 8, 9, 16, 33))
def test_narrow_layers_agree_with_the_definition(lib, isa, inputs, outputs):
    rng = np.random.default_rng(100 * inputs + outputs)
    x, w, b, masks, attributes = draw(rng, inputs, outputs)
    shape = definition.gated_conv3d(x, w, b, *masks, **attributes).shape
    z = rng.standard_normal(shape).astype(np.float32) if rng.random() < 0.4 else None
    dtype = np.float16 if rng.random() < 0.2 else np.float32
    x, w, b, z = (a if a is None else a.astype(dtype) for a in (x, w, b, z))
    reference = definition.reference(x, w, b, *masks, z=z, minimum=0.0, **attributes)
    for channels_last in (False, True):
        how = dict(channels_last=channels_last, variant=int(rng.integers(2)), prepack=rng.random() < 0.9)
        y = native_kernels.gated_conv3d(lib, poisoned(x, masks).astype(dtype), w, b, masks, z=z, minimum=0.0, **how,
                                        **attributes)
        assert definition.check_output(y, reference, with_norm=False) == []


@pytest.mark.parametrize("outputs", (1, 2, 3, 4, 5, 8, 9, 13, 15, 16, 17, 33, 65))
@pytest.mark.parametrize("inputs", (1, 2, 4, 7, 8, 13, 16, 17))
def test_few_kept_pixels_agree_with_the_definition(lib, isa, inputs, outputs):
    """From the inputs' side, wherever there is no dilation along W."""
    rng = np.random.default_rng(1000 * inputs + outputs)
    kernel = [(3, 3, 3), (3, 3, 3), (1, 3, 3), (2, 1, 5), (3, 2, 4), (1, 7, 7)][rng.integers(6)]
    strides = tuple(int(s) for s in rng.choice([1, 1, 2, 2, 3, 4], 3))
    dilations = (*(int(d) for d in rng.integers(1, 4, 2)), 1)
    pads = tuple(int(p) for p in rng.integers(0, 4, 6))
    size = [max(most, d * (k - 1) + 1) for most, d, k in zip((5, 14, int(rng.integers(9, 41))), dilations, kernel)]
    x = rng.standard_normal((2, inputs, *size)).astype(np.float32)
    w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((outputs, inputs, *kernel), outputs))
    n, c, t, h, width = x.shape
    masks = [rng.random(shape) < rate for shape, rate in (((n, t), 0.8), ((n, c), rng.choice([0.6, 1])),
                                                          ((n, h, width), rng.choice([0.02, 0.08, 0.2, 0.6])))]
    attributes = dict(strides=strides, pads=pads, dilations=dilations)
    shape = definition.gated_conv3d(x, w, b, *masks, **attributes).shape
    z = rng.standard_normal(shape).astype(np.float32) if rng.random() < 0.5 else None
    reference = definition.reference(x, w, b, *masks, z=z, minimum=0.0, **attributes)
    for dtype, channels_last in ((np.float32, True), (np.float32, False), (np.float16, True)):
        poison, weights, bias, extra = (a if a is None else a.astype(dtype) for a in (poisoned(x, masks), w, b, z))
        if dtype == np.float16:
            reference = definition.reference(x.astype(dtype), weights, bias, *masks, z=extra, minimum=0.0, **attributes)
        run = []
        for threads in (1, 3):
            means = []
            how = dict(channels_last=channels_last, threads=threads, magnitudes=means, variant=3, **attributes)
            y = native_kernels.gated_conv3d(lib, poison, weights, bias, masks, z=extra, minimum=0.0, **how)
            run.append([a.tobytes() for a in (y, *means)])
        assert definition.check_output(y, reference, with_norm=False) == []
        assert run[0] == run[1], "results depend on the number of threads"
        for got, expected in zip(means, definition.magnitudes(y)):
            np.testing.assert_allclose(got, expected, rtol=5e-6)


@pytest.mark.parametrize("value", (np.inf, np.nan))
@pytest.mark.parametrize("kept, variant", [(0.1, 3), (0.1, 1), (1.0, 1)])
@pytest.mark.parametrize("outputs", (1, 2, 3, 4, 5, 13, 16, 17))
@pytest.mark.parametrize("inputs", (1, 3, 7, 13, 15, 16, 17))
def test_a_fault_stays_where_it_is_read(lib, isa, inputs, outputs, kept, variant, value):
    """Lanes past a pixel's channels or a block's outputs multiply by zeros: what is there must not be another's."""
    rng = np.random.default_rng(inputs)
    x, w = np.ones((1, inputs, 3, 12, 31), np.float32), np.ones((outputs, inputs, 3, 3, 3), np.float32)
    masks = [np.ones((1, 3), bool), np.ones((1, inputs), bool), rng.random((1, 12, 31)) < kept]
    row, column = 5, 17
    masks[2][0, row, column] = True
    x[0, rng.integers(inputs), 1, row, column] = value
    b = np.zeros(outputs, np.float32)
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, channels_last=True, variant=variant,
                                    pads=(1,) * 6)
    reached = np.zeros(y.shape, bool)
    reached[:, :, :, row - 1:row + 2, column - 1:column + 2] = True
    np.testing.assert_array_equal(~np.isfinite(y), reached)


@pytest.mark.parametrize("variant", (0, 1, 2, 4))
@pytest.mark.parametrize("inputs, dropped", [
    (16, (0,)), (16, (3, 4, 9)), (32, (31,)), (40, (0, 20, 39)), (64, range(9, 30))])
def test_few_dropped_channels_are_stepped_over(lib, isa, inputs, dropped, variant):
    rng = np.random.default_rng(inputs + len(dropped))
    x = rng.standard_normal((1, inputs, 3, 9, 11)).astype(np.float32)
    w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((19, inputs, 3, 3, 3), 19))
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, inputs), (1, 9, 11))]
    masks[1][0, list(dropped)] = False
    if variant == 2:
        masks[2][0, 2:5, 3:9] = False
    elif variant:
        masks[2][...] = rng.random((9, 11)) < 0.7
    reference = definition.reference(x, w, b, *masks, pads=(1,) * 6)
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, channels_last=True, variant=variant,
                                    pads=(1,) * 6)
    assert definition.check_output(y, reference, with_norm=False) == []


@pytest.mark.parametrize("inputs, outputs", [(3, 16), (16, 3), (16, 2), (4, 40), (33, 5)])
def test_a_narrow_layer_does_not_depend_on_threads(lib, isa, inputs, outputs):
    x, w, b, masks, attributes = draw(np.random.default_rng(inputs), inputs, outputs, strides=(1, 1, 1))
    run = [native_kernels.gated_conv3d(lib, x, w, b, masks, channels_last=True, threads=threads, **attributes)
           for threads in (1, 2, 5)]
    assert np.array_equal(run[0], run[1]) and np.array_equal(run[0], run[2])


@pytest.mark.parametrize("outputs", (2, 16))
def test_a_kept_fault_of_a_narrow_layer_shows(lib, isa, outputs):
    x, w = np.zeros((1, 8, 3, 6, 7), np.float32), np.ones((outputs, 8, 3, 3, 3), np.float32)
    b = np.zeros(outputs, np.float32)
    x[0, 5, 1, 2, 3] = np.nan
    masks = [np.ones(shape, bool) for shape in ((1, 3), (1, 8), (1, 6, 7))]
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, channels_last=True, minimum=0.0, pads=(1,) * 6)
    reached = np.isnan(y)
    assert reached[:, :, :, 1:4, 2:5].all() and reached.sum() == outputs * 3 * 9


@pytest.mark.parametrize("width", (4, 5, 63, 64, 65, 130))
@pytest.mark.parametrize("inputs", (3, 4))
def test_planes_of_few_channels_are_read_and_written_whole(lib, isa, inputs, width):
    rng = np.random.default_rng(width)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, inputs, 2, 2, width), (8, inputs, 1, 1, 3)))
    b, z = rng.standard_normal(8).astype(np.float32), rng.standard_normal((1, 8, 2, 2, width)).astype(np.float32)
    masks = [np.ones((1, 2), bool), np.ones((1, inputs), bool), rng.random((1, 2, width)) < 0.9]
    reference = definition.reference(x, w, b, *masks, z=z, minimum=0.0, pads=(0, 0, 1, 0, 0, 1))
    y = native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, z=z, minimum=0.0, pads=(0, 0, 1, 0, 0, 1))
    assert definition.check_output(y, reference, with_norm=False) == []


def test_no_pixel_kept_gives_the_clamped_bias(lib, isa):
    x, w = np.full((1, 16, 2, 4, 5), np.nan, np.float32), np.ones((3, 16, 3, 3, 3), np.float32)
    b = np.array([1.0, -1.0, 0.5], np.float32)
    masks = [np.ones((1, 2), bool), np.ones((1, 16), bool), np.zeros((1, 4, 5), bool)]
    y = native_kernels.gated_conv3d(lib, x, w, b, masks, channels_last=True, minimum=0.0, pads=(1,) * 6)
    assert np.array_equal(y, np.broadcast_to(np.maximum(b, 0)[None, :, None, None, None], y.shape))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kernel, size, strides, pads", [
    ((1, 1, 1), (1, 3, 1), (1, 1, 2), (0, 0, 1, 0, 0, 0)), ((1, 1, 1), (2, 2, 1), (1, 1, 9), (0, 0, 8, 0, 0, 0)),
    ((3, 3, 3), (3, 3, 1), (1, 1, 9), (1, 1, 5, 1, 1, 1)), ((1, 1, 2), (2, 3, 1), (1, 1, 5), (0, 0, 4, 0, 0, 0))])
def test_columns_that_lie_in_the_padding_are_the_bias(lib, isa, kernel, size, strides, pads, channels_last):
    """All of them do, and nothing is dropped: what the memory held before must not be read instead."""
    attributes = dict(strides=strides, pads=pads, dilations=(1, 1, 1))
    w, b = np.ones((2, 2, *kernel), np.float32), np.full(2, 7.0, np.float32)
    for value, columns in ((123.0, 40), (1.0, size[2])):
        x = np.full((1, 2, *size[:2], columns), value, np.float32)
        y = native_kernels.gated_conv3d(lib, x, w, b, full_masks(x.shape), channels_last=channels_last, **attributes)
    np.testing.assert_array_equal(y, definition.gated_conv3d(x, w, b, *full_masks(x.shape), **attributes))
    assert (y == 7.0).all()
