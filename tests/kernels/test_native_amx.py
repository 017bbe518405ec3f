"""AMX: the emulation of its tiles against a slow model of TDPBF16PS, and the check before the processor's own are used.

Products of tiles run on every variant that has them: the emulation on every machine with AVX-512, the processor's own
instructions where there are any, so that the first machine that has them compares both with the model.
"""
import ctypes
import os
import subprocess
import sys
from fractions import Fraction

import native_kernels
import numpy as np
import pytest

from dance_deploy.runtime import kernels

SMALLEST = Fraction(1, 2 ** 126)     # normal float32
TILES = [name for name in native_kernels.bf16_variants() if "amx" in name]


@pytest.fixture(params=TILES)
def tiles(request, lib):
    """Index of a variant on tiles."""
    if not lib.dance_force_isa(request.param.encode()):
        pytest.skip(f"this machine does not support {request.param}")
    lib.dance_force_isa(None)
    return native_kernels.bf16_variants().index(request.param)


def product(lib, variant, inputs, weights, sums):
    """New sums. inputs: [rows, units, 2], weights: [units, columns, 2] bits of bfloat16; sums: [rows, columns]."""
    rows, units, columns = inputs.shape[0], inputs.shape[1], weights.shape[1]
    inputs, weights = np.ascontiguousarray(inputs, np.uint16), np.ascontiguousarray(weights, np.uint16)
    out = native_kernels.Guarded(np.asarray(sums, np.float32))
    assert lib.dance_tile_product(variant, ctypes.c_void_p(inputs.ctypes.data), ctypes.c_void_p(weights.ctypes.data),
                                  out.pointer, rows, units, columns) == 1
    assert out.intact()
    return out.inner


def nearest(exact):
    """float32 nearest to a Fraction that is not zero, ties to even; what rounds below the smallest normal one is 0."""
    size, exponent = abs(exact), 0
    while size >= 2 ** 24:
        size, exponent = size / 2, exponent + 1
    while size < 2 ** 23:
        size, exponent = size * 2, exponent - 1
    rounded = round(size) * Fraction(2) ** exponent       # Python rounds ties to even
    if rounded < SMALLEST:
        return np.copysign(np.float32(0), np.float32(exact > 0) - np.float32(0.5))
    if rounded >= 2 ** 128:
        return np.float32(np.inf if exact > 0 else -np.inf)
    return np.float32(float(rounded) if exact > 0 else -float(rounded))


def flushed(x):
    return np.copysign(np.float32(0), x) if abs(x) < np.float32(float(SMALLEST)) else np.float32(x)


def multiply_add(total, a, b):
    """total + a b of float32 numbers, rounded once; subnormal numbers in and out are zeros."""
    total, a, b = flushed(total), flushed(a), flushed(b)
    with np.errstate(all="ignore"):
        if not np.isfinite([total, a, b]).all() or a == 0 or b == 0:
            return np.float32(np.float64(total) + np.float64(a) * np.float64(b))
        exact = Fraction(float(total)) + Fraction(float(a)) * Fraction(float(b))
        return nearest(exact) if exact else np.float32(0)


def model(inputs, weights, sums):
    """TDPBF16PS as in Intel's manual: even and odd products summed apart, in the order of the units, then added."""
    def number(bits):
        return (np.asarray(bits, np.uint32) << 16).view(np.float32)
    x, w, one = number(inputs), number(weights), np.float32(1)
    out = np.empty(sums.shape, np.float32)
    for row, column in np.ndindex(*sums.shape):
        halves = [np.float32(0), np.float32(0)]
        for unit in range(x.shape[1]):
            for half in range(2):
                halves[half] = multiply_add(halves[half], x[row, unit, half], w[unit, column, half])
        out[row, column] = multiply_add(sums[row, column], one, multiply_add(halves[0], one, halves[1]))
    return out


def same(got, expected):
    """Bit by bit, NaN apart."""
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


def bits(rng, shape, exponents):
    """bfloat16 of both signs with exponents (as stored, 0 to 255) in a range."""
    sign, exponent, rest = rng.integers(0, 2, shape), rng.integers(*exponents, shape), rng.integers(0, 128, shape)
    return (sign << 15 | exponent << 7 | rest).astype(np.uint16)


# stored exponents of inputs, weights and sums: usual; cancelling far apart; subnormal in; products near the smallest
# normal number; overflow; infinities and NaN among large ones
RANGES = [((120, 134), (120, 134), (120, 134)), ((110, 140), (110, 140), (90, 160)), ((0, 4), (110, 140), (0, 4)),
          ((50, 80), (50, 72), (0, 12)), ((180, 200), (180, 195), (240, 255)), ((240, 256), (120, 135), (245, 256))]


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 16), (5, 3, 16), (16, 9, 7)])
def test_a_product_of_tiles_is_the_manuals_bit_by_bit(lib, tiles, shape, ranges):
    rng = np.random.default_rng(sum(shape))
    rows, units, columns = shape
    inputs, weights = bits(rng, (rows, units, 2), ranges[0]), bits(rng, (units, columns, 2), ranges[1])
    low = rng.integers(0, 1 << 16, (rows, columns), np.uint32)
    sums = (bits(rng, (rows, columns), ranges[2]).astype(np.uint32) << 16 | low).view(np.float32)
    same(product(lib, tiles, inputs, weights, sums), model(inputs, weights, sums))


def one(lib, tiles, pairs, total=0.0):
    """Sum of products of pairs of units ((even x, even w), (odd x, odd w)), added to total."""
    numbers = np.array(pairs, np.float32).reshape(len(pairs), 2, 2)
    high = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    assert (high.astype(np.uint32) << 16 == numbers.view(np.uint32)).all(), "not bfloat16"
    return product(lib, tiles, high[None, :, :, 0], high[:, None, :, 1], np.full((1, 1), total, np.float32))[0, 0]


def test_order_and_rounding_of_a_product_are_the_manuals(lib, tiles):
    """Cases that tell the manual's order from others, by hand."""
    large, unit = 2.0 ** 24, 1.0
    # even products are summed alone: 1 is lost beside 2^24 in each of them, but not 1 + 1 of the odd ones
    assert one(lib, tiles, [((large, 1), (unit, 1)), ((unit, 1), (unit, 1))]) == large + 2
    # one after the other: 2^24 + 1 rounds to even, twice
    assert one(lib, tiles, [((large, 1), (0, 0)), ((unit, 1), (0, 0)), ((unit, 1), (0, 0))]) == large
    # products are summed before they meet the old sum
    assert one(lib, tiles, [((unit, 1), (0, 0)), ((unit, 1), (0, 0))], total=large) == large + 2
    # a product is not rounded before it is added: 2^24 + (1 + 2^-7)^2 lies above the tie
    assert one(lib, tiles, [((large, 1), (0, 0)), ((1 + 2.0 ** -7, 1 + 2.0 ** -7), (0, 0))]) == large + 2


def test_subnormal_numbers_are_zeros_in_and_out(lib, tiles):
    smallest = 2.0 ** -126
    assert one(lib, tiles, [((smallest, 1), (0, 0))]) == smallest
    assert one(lib, tiles, [((smallest / 2, 4), (0, 0))]) == 0
    assert one(lib, tiles, [((smallest, 0.5), (smallest, 0.5))]) == 0
    assert one(lib, tiles, [((smallest, 1.5), (-smallest, 1))]) == 0
    assert one(lib, tiles, [((0, 0), (0, 0))], total=smallest / 2) == 0
    # subnormal only until it is rounded to 24 bits: 2^-126 - 2^-152
    assert one(lib, tiles, [((smallest, 1), (0, 0)), ((-(2.0 ** -76), 2.0 ** -76), (0, 0))]) == smallest


def test_nan_and_infinity_show(lib, tiles):
    inf, nan = np.inf, np.nan
    assert one(lib, tiles, [((inf, 2), (1, 1))]) == inf
    assert one(lib, tiles, [((1, 1), (-inf, 2))]) == -inf
    for pairs in ([((inf, 0), (1, 1))], [((inf, 1), (-inf, 1))], [((nan, 0), (0, 0))], [((1, 1), (1, nan))]):
        assert np.isnan(one(lib, tiles, pairs))
    assert np.isnan(one(lib, tiles, [((1, 1), (1, 1))], total=nan))
    assert np.isnan(one(lib, tiles, [((inf, 1), (1, 1))], total=-inf))
    assert one(lib, tiles, [((2.0 ** 127, 2), (0, 0))]) == inf


@pytest.mark.parametrize("shape, what", [((17, 1, 1), "more than 16 rows"), ((1, 17, 1), "more than 16 rows"),
                                         ((1, 1, 17), "more than 64 bytes"), ((1, 0, 1), "bytes without rows")])
def test_misuse_of_the_emulated_tiles_aborts(lib, shape, what):
    """In a process of its own. (1, 0, 1): weights without rows."""
    name = "emulated_amx"
    if name not in TILES or not lib.dance_force_isa(name.encode()):
        pytest.skip(f"this machine does not support {name}")
    lib.dance_force_isa(None)
    code = ("import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]); "
            "room = [(ctypes.c_uint32 * 1024)() for _ in range(3)]; "
            "lib.dance_tile_product(int(sys.argv[2]), *room, *map(int, sys.argv[3:]))")
    arguments = kernels.library_path(), str(native_kernels.bf16_variants().index(name)), *map(str, shape)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode < 0 and "AMX emulation: LDTILECFG" in done.stderr and what in done.stderr


def test_the_check_before_use_accepts_every_variant(lib):
    for index, name in enumerate(native_kernels.bf16_variants()):
        if lib.dance_force_isa(name.encode()):
            assert lib.dance_bf16_agrees(index, None) == 1, name
    lib.dance_force_isa(None)


def test_the_check_before_use_refuses_wrong_sums(lib):
    """An implementation that writes nothing, and every variant with its weights packed for another vector."""
    rows = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda args: None)
    for index, name in enumerate(native_kernels.bf16_variants()):
        if lib.dance_force_isa(name.encode()):
            assert lib.dance_bf16_agrees(index, ctypes.cast(rows, ctypes.c_void_p)) == 0
    lib.dance_force_isa(None)


def test_a_variant_of_bfloat16_is_forced_by_name(lib):
    """And its instruction set with it; an instruction set's name leaves it the best that the machine has."""
    try:
        for name in native_kernels.bf16_variants():
            if lib.dance_force_isa(name.encode()):
                assert lib.dance_bf16_used().decode() == name
        assert lib.dance_force_isa(b"portable") and lib.dance_bf16_used() == b"portable_bf16"
        assert lib.dance_force_isa(b"amx512") == 0 and lib.dance_bf16_used() == b"portable_bf16"
    finally:
        lib.dance_force_isa(None)


@pytest.mark.parametrize("name", ["portable_bf16", "emulated_amx", "no such"])
def test_the_environment_names_a_variant(lib, name):
    code = ("import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]); lib.dance_bf16_used.restype = ctypes.c_char_p; "
            "print((lib.dance_bf16_used() or b'none').decode())")
    done = subprocess.run([sys.executable, "-c", code, kernels.library_path()], capture_output=True, text=True,
                          check=True, env={**os.environ, "DANCE_ISA": name})
    usual = lib.dance_bf16_used()
    can = bool(lib.dance_force_isa(name.encode()))
    lib.dance_force_isa(None)
    assert done.stdout.strip() == (name if can else (usual or b"none").decode())
