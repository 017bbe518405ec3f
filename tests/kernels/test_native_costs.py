"""Costs that the choice between direct and Winograd goes by: whatever is accepted leads to right results."""
import ctypes
import math

import native_kernels
import numpy as np
import pytest
from conv_cases import full_masks, poisoned, values
from hypothesis import given, settings
from hypothesis import strategies as st

from dance_deploy.bench import native
from dance_deploy.errors import OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import definition
from dance_deploy.runtime import kernels
from dance_deploy.runtime.tuned_costs import Cost, built_in_costs

needs_library = pytest.mark.skipif(kernels.library_path() is None, reason="the kernels are not built")
GEOMETRY = Conv3dGeometry("", 24, 40, (3, 12, 13), (3, 3, 3), (1, 1, 1), (1,) * 6)
CHEAP_TILES = "in=0 out=0 run=0 weight=0 indexed=0 call=0 product=0.01"
DEAR_TILES = "product=100"


def listed(lib):
    """{name: Cost}"""
    found = {}
    for i in range(lib.dance_cost_count()):
        cost = Cost()
        lib.dance_cost(i, ctypes.byref(cost))
        found[cost.name.decode()] = cost
    return found


def limits():
    return listed(ctypes.CDLL(kernels.library_path())) if kernels.library_path() else {"in": Cost(b"in", 1, 0, 2)}


def any_costs():
    """Texts of some of the costs, each anywhere between its limits."""
    one = {name: st.one_of(st.floats(cost.low, cost.high), st.sampled_from([cost.low, cost.high, cost.built_in]))
           for name, cost in limits().items()}
    return st.fixed_dictionaries({}, optional=one).map(
        lambda costs: " ".join(f"{name}={value!r}" for name, value in costs.items()))


def wrong_with(lib, text):
    """(status, what is said) of dance_check_costs."""
    wrong = ctypes.create_string_buffer(300)
    return lib.dance_check_costs(text, wrong, ctypes.c_int64(300)), wrong.value.decode()


def masks_of(rng, rates=(1.0, 1.0, 1.0)):
    masks = full_masks((1, 24, 3, 12, 13))
    return [rng.random(mask.shape) < rate for mask, rate in zip(masks, rates)]


def test_built_in_costs_are_named_once_and_within_their_limits(lib):
    costs = listed(lib)
    assert len(costs) == lib.dance_cost_count() > 5
    assert all(cost.low <= cost.built_in <= cost.high and math.isfinite(cost.high) for cost in costs.values())
    assert built_in_costs(kernels.library_path()) == {name: cost.built_in for name, cost in costs.items()}


@pytest.mark.parametrize("text", ["", "   ", "in=0", "in=1e2\tout=3", "few=0.5 in=.25"])
def test_good_costs_are_taken(lib, text):
    assert wrong_with(lib, text.encode()) == (0, "")


@pytest.mark.parametrize("text, said", [
    ("in", "'in' is no cost, expected NAME=NUMBER with a name of in, out"), ("speed=1", "'speed=1' is no cost"),
    ("in=", "'in' is '', expected a number from 0 to 10000"), ("in=nan", "'in' is 'nan'"), ("in=inf", "'in' is 'inf'"),
    ("in=1,5", "'in' is '1,5'"), ("in=1x", "'in' is '1x'"), ("in=0x10", "'in' is '0x10'"), ("in=-1", "'in' is '-1'"),
    ("in=1e5", "'in' is '1e5'"), ("in=1e999", "'in' is '1e999'"), ("product=0", "'product' is '0'"),
    ("in=1 in=1", "'in' is there twice"), ("=1", "'=1' is no cost"), ("in==1", "'in' is '=1'")])
def test_bad_costs_are_refused_in_words(lib, text, said):
    status, wrong = wrong_with(lib, text.encode())
    assert status == 3 and wrong.startswith(said)
    with pytest.raises(OperationError, match="status 3"):
        native.variant_used(lib, GEOMETRY, full_masks((1, 24, 3, 12, 13)), text)


@settings(deadline=None)
@given(st.binary(max_size=80))
@needs_library
def test_any_bytes_are_taken_or_refused(data):
    status, wrong = wrong_with(native_kernels.library(), data.replace(b"\0", b" ").decode("latin-1").encode())
    assert status in (0, 3) and bool(wrong) == (status == 3)


def test_what_is_said_is_cut_to_the_room_there_is(lib):
    for size in (0, 1, 7):
        wrong = ctypes.create_string_buffer(b"#" * 20)
        assert lib.dance_check_costs(b"in=abc", wrong, ctypes.c_int64(size)) == 3
        assert wrong.raw[size:20] == b"#" * (20 - size)
        assert wrong.raw[:size] == (b"'in' is"[:max(0, size - 1)] + b"\0" if size else b"")


def test_refused_costs_compute_nothing(lib):
    y = np.full((1, 3, 12, 13, 40), 7, np.float32)
    arrays = [np.zeros((1, 3, 12, 13, 24), np.float32), np.zeros((40, 24, 3, 3, 3), np.float32),
              np.zeros(40, np.float32), *(mask.astype(np.uint8) for mask in full_masks((1, 24, 3, 12, 13)))]
    conv = native.conv_of(GEOMETRY, costs=b"in=many")
    assert lib.dance_gated_conv3d(ctypes.byref(conv), *(ctypes.c_void_p(a.ctypes.data) for a in arrays), None,
                                  ctypes.c_void_p(y.ctypes.data), None) == 3
    assert (y == 7).all()


def test_costs_decide(lib, isa):
    """Estimates follow the costs, and so does what a call takes."""
    rng = np.random.default_rng(3)
    masks = full_masks((1, 24, 3, 12, 13))
    x, w, b = values(rng, (1, 24, 3, 12, 13)), values(rng, (40, 24, 3, 3, 3)), values(rng, (40,))
    for costs, expected in ((CHEAP_TILES, "winograd"), (DEAR_TILES, "direct")):
        used = ctypes.c_int32()
        assert native.variant_used(lib, GEOMETRY, masks, costs).startswith(expected)
        native_kernels.gated_conv3d(lib, x, w, b, masks, pads=(1,) * 6, used=used, costs=costs, channels_last=True)
        assert native.VARIANTS[used.value].startswith(expected)


def test_no_costs_are_the_built_in_ones(lib, isa):
    text = " ".join(f"{name}={cost.built_in!r}" for name, cost in listed(lib).items())
    rng = np.random.default_rng(4)
    for bf16 in (False, True):
        for _ in range(12):
            rates = rng.choice([1.0, 0.7, 0.3], 3)
            masks = [np.ascontiguousarray(mask, np.uint8) for mask in masks_of(rng, rates)]
            found = [native.estimate(lib, native.conv_of(GEOMETRY, bf16=bf16, costs=costs), masks)
                     for costs in (None, b"", text.encode())]
            assert found[0] == found[1] == found[2]


@settings(deadline=None, max_examples=60)
@given(costs=any_costs(), seed=st.integers(0, 1000), bf16=st.booleans())
@needs_library
def test_any_accepted_costs_estimate_finite_numbers(costs, seed, bf16):
    lib, rng = native_kernels.library(), np.random.default_rng(seed)
    assert wrong_with(lib, costs.encode()) == (0, "")
    channels, outputs, size = (int(rng.choice(numbers)) for numbers in ((1, 9, 64, 600), (1, 17, 64, 600), (1, 7, 30)))
    geometry = Conv3dGeometry("", channels, outputs, (3, size, size), (3, 3, 3), (1, 1, 1), (1,) * 6)
    masks = [(rng.random(mask.shape) < rng.choice([0, 0.1, 0.6, 1])).astype(np.uint8)
             for mask in full_masks((1, channels, 3, size, size))]
    variant, steps = native.estimate(lib, native.conv_of(geometry, bf16=bf16, costs=costs.encode()), masks)
    assert variant in set(native.VARIANTS) - {0} and all(math.isfinite(number) and number >= 0 for number in steps)
    if not masks[1].any():
        assert (variant, steps) == (1, [0, 0, 0])


@settings(deadline=None, max_examples=25)
@given(costs=any_costs(), seed=st.integers(0, 1000))
@needs_library
def test_any_accepted_costs_compute_right_on_any_number_of_threads(costs, seed):
    lib, rng = native_kernels.library(), np.random.default_rng(seed)
    masks = masks_of(rng, rng.choice([1.0, 0.8, 0.4], 3))
    x, w, b = values(rng, (1, 24, 3, 12, 13)), values(rng, (40, 24, 3, 3, 3)), values(rng, (40,))
    used = ctypes.c_int32()
    results = [native_kernels.gated_conv3d(lib, poisoned(x, masks), w, b, masks, pads=(1,) * 6, used=used, costs=costs,
                                           channels_last=True, threads=threads) for threads in (1, 3)]
    expected, _ = native.estimate(lib, native.conv_of(GEOMETRY, costs=costs.encode()),
                                  [np.ascontiguousarray(mask, np.uint8) for mask in masks])
    assert used.value == expected
    np.testing.assert_array_equal(*results)
    reference = definition.reference(x, w, b, *masks, pads=(1,) * 6)
    assert definition.check_output(results[0], reference, with_norm=False) == []


def test_where_there_is_no_choice_nothing_is_estimated(lib, isa):
    masks = [np.ones(n, np.uint8) for n in (4, 16, 100)]
    for changed in (dict(strides=(1, 2, 1)), dict(kernel=(3, 1, 3), pads=(1, 0, 1) * 2), dict(group=16),
                    dict(kernel=(1, 1, 1), pads=(0,) * 6)):
        geometry = Conv3dGeometry("", 16, 16, (4, 10, 10), (3, 3, 3), (1, 1, 1), (1,) * 6)._replace(**changed)
        assert native.estimate(lib, native.conv_of(geometry, costs=CHEAP_TILES.encode()), masks) == (1, [0, 0, 0])
    geometry = Conv3dGeometry("", 16, 16, (4, 10, 10), (3, 3, 3), (1, 1, 1), (1,) * 6)
    conv = native.conv_of(geometry)
    conv.strides[0] = 0
    with pytest.raises(OperationError, match="status 1"):
        native.estimate(lib, conv, masks)


@pytest.mark.parametrize("variant", (1, 2, 4))
def test_weights_packed_by_a_call_of_their_own(lib, isa, variant):
    rng = np.random.default_rng(6)
    masks = masks_of(rng, (1.0, 0.7, 0.8))
    x, w, b = values(rng, (1, 24, 3, 12, 13)), values(rng, (40, 24, 3, 3, 3)), values(rng, (40,))
    for bf16 in (False, True):
        one, other = (native_kernels.gated_conv3d(lib, x, w, b, masks, pads=(1,) * 6, variant=variant, bf16=bf16,
                                                  pack=pack, threads=2) for pack in (False, True))
        np.testing.assert_array_equal(one, other)


def test_weights_of_an_impossible_layer_are_not_packed(lib):
    conv = native.conv_of(GEOMETRY._replace(kernel=(9, 99, 99)))
    assert lib.dance_pack(ctypes.byref(conv), ctypes.c_void_p(np.zeros(1).ctypes.data)) is None
    lib.dance_unpack(None)


def test_the_instruction_set_in_use_is_named(lib, isa):
    assert lib.dance_isa_used().decode() == isa == kernels.variant_used(kernels.library_path(), "fp32")
