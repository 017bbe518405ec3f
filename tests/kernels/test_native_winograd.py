"""The Winograd variants against the definition, and the choice between them and the direct one."""
import ctypes
import functools

import native_kernels
import numpy as np
import pytest
from conv_cases import draw_masks, full_masks, poisoned, uneven_masks, values

from dance_deploy.ops import definition, names

AUTOMATIC, DIRECT, SIZES = 0, 1, (2, 4)
MIXED = {2: 12, 4: 14}           # by the size of the tiles: those of few live pairs pixel by pixel
VARIANTS = (*SIZES, *MIXED.values())
LEAST_CHANNELS = {2: 1, 4: 8}    # fewer are computed directly: the bound leaves no room


def convolve(lib, variant, *args, **how):
    """The forced variant's result; fails where another one was taken."""
    used = ctypes.c_int32()
    y = native_kernels.gated_conv3d(lib, *args, variant=variant, used=used, **how)
    assert used.value == variant
    return y


def draw(rng, size, block):
    """A convolution that Winograd tiles can do: maps around whole tiles, any frames, any pads."""
    kernel_frames = int(rng.choice([1, 2, 3, 5]))
    channels = int(rng.choice([c for c in (1, 2, 8, 16, 17, 33) if c >= LEAST_CHANNELS[size]]))
    outputs = int(rng.choice([1, block // 2 + 1, block - 1, block, block + 1]))
    pads = tuple(int(p) for p in rng.integers(0, 3, 6))
    dilations = (int(rng.choice([1, 1, 2])), 1, 1)
    least = (dilations[0] * (kernel_frames - 1) + 1, 3, 3)
    extents = [1, size - 1, size, size + 1, 2 * size + 1, 14]
    wanted = [int(rng.integers(1, 7)), int(rng.choice(extents)), int(rng.choice(extents))]
    around = [pads[i] + pads[i + 3] for i in range(3)]
    sizes = [max(1, extent if i == 0 else extent + 2 - around[i], least[i] - around[i])
             for i, extent in enumerate(wanted)]
    attributes = dict(strides=(int(rng.integers(1, 4)), 1, 1), pads=pads, dilations=dilations)
    return (int(rng.integers(1, 3)), channels, *sizes), (outputs, channels, kernel_frames, 3, 3), attributes


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(30))
def test_random_cases_agree_with_the_definition(lib, isa, seed, variant):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attributes = draw(rng, variant % 10, native_kernels.block(lib, isa))
    x, w, b = values(rng, x_shape), values(rng, w_shape), values(rng, (w_shape[0],))
    masks = (draw_masks if seed % 2 else uneven_masks)(rng, x_shape)
    masks[1][:, -1] = True    # with no channel there is nothing to transform
    minimum = float(rng.choice([0.0, names.MIN_DEFAULT]))
    plain = definition.gated_conv3d(x, w, b, *masks, **attributes)
    z = values(rng, plain.shape) if rng.random() < 0.4 else None
    reference = definition.reference(x, w, b, *masks, z=z, minimum=minimum, **attributes)
    given = [m.astype(np.float32) * -0.5 for m in masks] if rng.random() < 0.3 else masks
    how = dict(threads=int(rng.integers(1, 4)), channels_last=rng.random() < 0.5)
    y = convolve(lib, variant, poisoned(x, masks), w, b, given, z=z, minimum=minimum, **how, **attributes)
    assert definition.check_output(y, reference, with_norm=False) == []


@functools.lru_cache(maxsize=None)
def layer(kind):
    """(x, w, b, masks, its Reference) of a layer with several blocks, parts and runs of tiles; odd map."""
    rng = np.random.default_rng(7)
    x, w, b = values(rng, (1, 70, 9, 30, 45)), values(rng, (66, 70, 3, 3, 3)), values(rng, (66,))
    masks = full_masks(x.shape)
    if kind == "blob":
        rows, columns = np.mgrid[:30, :45]
        masks[2][0] = np.hypot(rows - 9, columns - 14) < 10
    elif kind == "product":
        for mask in masks:
            mask[...] = rng.random(mask.shape) < 0.6
    elif kind != "all":
        mask = masks[names.MASK_NAMES.index(kind)]
        mask[...] = rng.random(mask.shape) < 0.4
        mask.flat[0] = True
    return x, w, b, masks, definition.reference(x, w, b, *masks, pads=(1,) * 6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("kind", ("all", "blob", "product") + names.MASK_NAMES)
def test_a_real_layer_with_one_kind_of_mask(lib, isa, kind, channels_last, variant):
    """Here the norm of the error counts too: 1e-5 of the result's."""
    x, w, b, masks, reference = layer(kind)
    y = convolve(lib, variant, poisoned(x, masks), w, b, masks, channels_last=channels_last, pads=(1,) * 6, threads=2)
    assert definition.check_output(y, reference) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_weights_are_shared_by_all_workers(lib, isa, variant):
    """260 channels: the path that reads the weights once; its parts, steps and threads must agree with the others."""
    rng = np.random.default_rng(11)
    x, w, b = values(rng, (1, 260, 4, 9, 10)), values(rng, (260, 260, 3, 3, 3)), values(rng, (260,))
    for rate in (1.0, 0.5):
        masks = [rng.random(mask.shape) < rate for mask in full_masks(x.shape)]
        one, three = (convolve(lib, variant, poisoned(x, masks), w, b, masks, pads=(1,) * 6, threads=threads,
                               minimum=0.0) for threads in (1, 3))
        np.testing.assert_array_equal(one, three)
        reference = definition.reference(x, w, b, *masks, pads=(1,) * 6, minimum=0.0)
        assert definition.check_output(one, reference) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_result_does_not_depend_on_threads_and_each_n_is_as_if_alone(lib, isa, variant):
    rng = np.random.default_rng(8)
    x, w, b = values(rng, (3, 24, 6, 15, 14)), values(rng, (24, 24, 3, 3, 3)), values(rng, (24,))
    masks = uneven_masks(rng, x.shape) if variant > 10 else [rng.random(m.shape) < 0.7 for m in full_masks(x.shape)]
    together = [convolve(lib, variant, x, w, b, masks, threads=threads, pads=(1,) * 6) for threads in (1, 2, 5)]
    alone = np.concatenate([convolve(lib, variant, x[n:n + 1], w, b, [m[n:n + 1] for m in masks], pads=(1,) * 6)
                            for n in range(3)])
    for y in together:
        np.testing.assert_array_equal(y, alone)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("poison", (np.nan, np.inf))
def test_a_dropped_pixel_between_kept_ones_is_exactly_zero(lib, isa, size, poison):
    """Bit for bit what a kept zero gives, whatever lies there; a tile with nothing kept gives the clamped bias."""
    rng = np.random.default_rng(5)
    x, w, b = values(rng, (1, 16, 3, 13, 14)), values(rng, (17, 16, 3, 3, 3)), values(rng, (17,))
    masks = full_masks(x.shape)
    masks[2][0, ::2, 1::3] = masks[2][0, 2:, 5:] = False
    masks[0][0, 1] = False
    zeroed = poisoned(x, masks, 0)
    kept = full_masks(x.shape)
    kept[0][0, 1] = False
    y, expected = (convolve(lib, size, *given, pads=(1,) * 6, minimum=0.0)
                   for given in ((poisoned(x, masks, poison), w, b, masks), (zeroed, w, b, kept)))
    live = slice(None, 3 if size == 2 else 2)    # one input row further on nothing is kept
    np.testing.assert_array_equal(y[..., live, :], expected[..., live, :])
    bias = np.maximum(b, 0)[:, None, None, None]
    np.testing.assert_array_equal(y[0, :, :, 8:, 8:], np.broadcast_to(bias, (17, 3, 5, 6)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels_last", (False, True))
def test_a_mix_has_both_kinds_of_tiles(lib, isa, size, channels_last):
    """Left whole tiles, bit for bit Winograd's; right ones pixel by pixel: small whole numbers, which Winograd rounds
    with tiles of 4, come out exactly."""
    rng = np.random.default_rng(3)
    x = values(rng, (1, 16, 4, 14, 29))
    w, b = rng.integers(-3, 4, (20, 16, 3, 3, 3)).astype(np.float32), rng.integers(-3, 4, 20).astype(np.float32)
    x[..., 14:] = rng.integers(-3, 4, x[..., 14:].shape)
    masks = full_masks(x.shape)
    masks[2][..., 14:] = rng.random((14, 15)) < 0.15
    masks[0][0, 1] = masks[1][0, 2:5] = False
    how = dict(pads=(1,) * 6, minimum=0.0, channels_last=channels_last)
    whole, mixed = (convolve(lib, variant, poisoned(x, masks), w, b, masks, **how) for variant in (size, MIXED[size]))
    reference = definition.reference(x, w, b, *masks, pads=(1,) * 6, minimum=0.0)
    assert definition.check_output(mixed, reference) == []
    np.testing.assert_array_equal(mixed[..., :12, :12], whole[..., :12, :12])    # below, tiles of 4 lie half outside
    np.testing.assert_array_equal(mixed[..., 16:], reference.y[..., 16:])


@pytest.mark.parametrize("size", SIZES)
def test_a_kept_fault_shows(lib, isa, size):
    rng = np.random.default_rng(4)
    x, w, b = values(rng, (1, 8, 1, 12, 12)), values(rng, (3, 8, 1, 3, 3)), values(rng, (3,))
    x[0, 2, 0, 5, 6], x[0, 1, 0, 0, 0] = np.nan, np.inf
    masks = full_masks(x.shape)
    pads = (0, 1, 1, 0, 1, 1)
    y = convolve(lib, size, x, w, b, masks, pads=pads)
    assert definition.check_output(y, definition.reference(x, w, b, *masks, pads=pads), with_norm=False) == []
    assert not np.isfinite(y[0, :, 0, 4:7, 5:8]).any()


@pytest.mark.parametrize("channels_last", (False, True))
def test_nothing_kept_gives_exactly_the_clamped_bias_and_sum(lib, isa, channels_last):
    rng = np.random.default_rng(5)
    x, w, b, z = (values(rng, shape) for shape in ((2, 20, 3, 4, 5), (20, 20, 3, 3, 3), (20,), (2, 20, 3, 4, 5)))
    for none in range(3):
        masks = full_masks(x.shape)
        masks[none][...] = False
        for variant in VARIANTS:
            y = native_kernels.gated_conv3d(lib, np.full_like(x, np.nan), w, b, masks, z=z, minimum=0.0,
                                            variant=variant, channels_last=channels_last, pads=(1,) * 6)
            np.testing.assert_array_equal(y, np.maximum(b[:, None, None, None] + z, 0))


@pytest.mark.parametrize("change", (dict(strides=(1, 2, 1)), dict(dilations=(1, 1, 2)), dict(group=2), "kernel",
                                    "weights that are no constants", "float16"))
def test_what_tiles_cannot_do_is_computed_directly(lib, change):
    rng = np.random.default_rng(6)
    attributes = change if isinstance(change, dict) else {}
    dtype = np.float16 if change == "float16" else np.float32
    kernel = (3, 3, 1) if change == "kernel" else (3, 3, 3)
    inputs = 16 // attributes.get("group", 1)
    x, w, b = values(rng, (1, 16, 3, 9, 9)), values(rng, (16, inputs, *kernel)), values(rng, (16,))
    masks = full_masks(x.shape)
    for variant in (*VARIANTS, AUTOMATIC):
        used = ctypes.c_int32()
        y = native_kernels.gated_conv3d(lib, x.astype(dtype), w.astype(dtype), b.astype(dtype), masks, variant=variant,
                                        used=used, prepack=change != "weights that are no constants", pads=(1,) * 6,
                                        **attributes)
        assert used.value == DIRECT
        given = [a.astype(dtype) for a in (x, w, b)]
        assert definition.check_output(y, definition.reference(*given, *masks, pads=(1,) * 6, **attributes)) == []


def test_the_choice_follows_the_masks_and_strict_is_direct(lib):
    """A large layer is done in tiles of 4, some pixel by pixel; one with few pixels, or a 7x7 map, directly."""
    rng = np.random.default_rng(9)

    def taken(x_shape, outputs, pixel_rate, variant=AUTOMATIC):
        x, w, b = values(rng, x_shape), np.zeros((outputs, x_shape[1], 1, 3, 3), np.float32), values(rng, (outputs,))
        masks = full_masks(x_shape)
        masks[2][...] = rng.random(masks[2].shape) < pixel_rate
        used = ctypes.c_int32()
        native_kernels.gated_conv3d(lib, x, w, b, masks, variant=variant, used=used, pads=(0, 1, 1, 0, 1, 1))
        return used.value

    some_dense = np.where(np.arange(56) < 20, 1.0, 0.05)
    assert taken((1, 64, 2, 56, 56), 64, 1.0) == 4
    assert taken((1, 64, 2, 56, 56), 64, some_dense) == MIXED[4]
    assert taken((1, 64, 2, 56, 56), 64, 0.02) == DIRECT
    for rate in (1.0, some_dense):
        assert taken((1, 64, 2, 56, 56), 64, rate, variant=DIRECT) == DIRECT
    assert taken((1, 512, 1, 7, 7), 512, 1.0) == DIRECT


def test_memory_of_transformed_weights_is_as_documented(lib):
    """9 positions become 16 or 36 components; buffers are rounded up to whole 2 MiB pages."""
    w = np.zeros((256, 256, 3, 3, 3), np.float32)
    conv = native_kernels.Conv(x_shape=(1, 256, 4, 14, 14), w_shape=w.shape, strides=(1, 1, 1), pads=(1,) * 6,
                               dilations=(1, 1, 1), group=1)
    lib.dance_packed_bytes.restype = ctypes.c_int64
    page = 2 << 20
    for variant, components in ((DIRECT, 0), (2, 16), (4, 36)):
        conv.variant = variant
        count = lib.dance_packed_bytes(ctypes.byref(conv), ctypes.c_void_p(w.ctypes.data))
        least = w.nbytes + w.nbytes // 9 * components
        assert least <= count <= least + 2 * page
