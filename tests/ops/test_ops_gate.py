"""ActivationGate: the definition against a plain loop in exact arithmetic, and its rules one by one."""
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from ops_cases import gate_cases

from dance_deploy.errors import InputError
from dance_deploy.ops import definition, names


def exact_keep(magnitudes, tau):
    """dict position -> kept, of a dict position -> Fraction."""
    mean = sum(magnitudes.values()) / len(magnitudes)
    largest = max(magnitudes.values())
    return {at: m == largest or not m < Fraction(float(tau)) * mean for at, m in magnitudes.items()}


def exact_gate(x, tau, taken):
    """The three steps of one clip [C, T, H, W] as dicts; each on what `taken`'s earlier masks kept."""
    c, t, h, w = x.shape
    frames, channels, _ = taken

    def mean(cs, ts, hs, ws):
        values = [abs(Fraction(float(x[i, j, k, m]))) for i in cs for j in ts for k in hs for m in ws]
        return sum(values) / len(values)

    kept_t = [j for j in range(t) if frames[j]]
    kept_c = [i for i in range(c) if channels[i]]
    steps = ({(j,): mean(range(c), [j], range(h), range(w)) for j in range(t)},
             {(i,): mean([i], kept_t, range(h), range(w)) for i in range(c)},
             {(k, m): mean(kept_c, kept_t, [k], [m]) for k in range(h) for m in range(w)})
    return [exact_keep(step, tau[i]) for i, step in enumerate(steps)]


@settings(max_examples=150, deadline=None)
@given(gate_cases())
def test_gate_equals_exact_loop_except_on_the_threshold(case):
    x, tau = case
    masks = definition.activation_gate(x, tau)
    borders = definition.gate_borderline(x, tau, masks)
    for n in range(x.shape[0]):
        expected = exact_gate(x[n], tau[n], [mask[n] for mask in masks])
        for step, mask, border in zip(expected, masks, borders):
            for at, keep in step.items():
                assert mask[n][at] == keep or border[n][at]
    assert definition.check_masks(x, tau, masks) == []


@settings(max_examples=60, deadline=None)
@given(gate_cases())
def test_no_mask_is_empty_and_no_input_changes(case):
    x, tau = case
    before = x.tobytes(), tau.tobytes()
    masks = definition.activation_gate(x, tau)
    assert (x.tobytes(), tau.tobytes()) == before
    assert masks.frame_keep.any(axis=1).all()
    assert masks.channel_keep.any(axis=1).all()
    assert masks.feature_keep.any(axis=(1, 2)).all()
    assert [m.dtype for m in masks] == [np.dtype(bool)] * 3


@settings(max_examples=40, deadline=None)
@given(gate_cases())
def test_each_clip_as_if_alone(case):
    x, tau = case
    together = definition.activation_gate(x, tau)
    for n in range(x.shape[0]):
        alone = definition.activation_gate(x[n:n + 1], tau[n:n + 1])
        for mask, one in zip(together, alone):
            np.testing.assert_array_equal(mask[n:n + 1], one)


@settings(max_examples=30, deadline=None)
@given(gate_cases())
def test_channels_last_gate_is_the_same_gate(case):
    x, tau = case
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for mask, expected in zip(definition.activation_gate_cl(last, tau), definition.activation_gate(x, tau)):
        np.testing.assert_array_equal(mask, expected)


def clip_with_frames(*magnitudes):
    """[1, 2, T, 2, 2] whose frame t holds magnitudes[t], with both signs."""
    x = np.empty((1, 2, len(magnitudes), 2, 2), np.float32)
    x[:, 0] = np.asarray(magnitudes, np.float32)[:, None, None]
    x[:, 1] = -x[:, 0]
    return x


def gate(x, *tau):
    return definition.activation_gate(x, np.array([tau], np.float32))


def test_exactly_on_the_threshold_is_kept():
    x = clip_with_frames(1, 2, 3, 2)    # mean 2; tau 0.5 puts frame 0 exactly on the threshold
    assert gate(x, 0.5, 0, 0).frame_keep.all()
    np.testing.assert_array_equal(gate(x, 0.75, 0, 0).frame_keep, [[False, True, True, True]])


def test_every_position_that_attains_the_maximum_is_kept():
    np.testing.assert_array_equal(gate(clip_with_frames(1, 4, 2, 4), 100, 0, 0).frame_keep,
                                  [[False, True, False, True]])
    assert all(mask.all() for mask in gate(np.ones((1, 3, 2, 4, 5), np.float32), 9, 9, 9))


def test_later_steps_measure_only_what_is_kept():
    x = np.zeros((1, 2, 2, 1, 2), np.float32)
    x[0, 0, 0] = 10       # frame 0 is kept, all of it in channel 0
    x[0, 1, 1] = 8        # frame 1 is dropped at tau 1, with it all of channel 1
    masks = gate(x, 1, 1, 1)
    np.testing.assert_array_equal(masks.frame_keep, [[True, False]])
    np.testing.assert_array_equal(masks.channel_keep, [[True, False]])
    np.testing.assert_array_equal(masks.feature_keep, [[[True, True]]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tau_zero_keeps_everything_whatever_x_holds(value):
    x = clip_with_frames(0, 1, 2, 3)
    x[0, 1, 2, 0, 1] = value
    assert all(mask.all() for mask in gate(x, 0, 0, 0))


def test_a_nan_drops_nothing():
    x = clip_with_frames(0, 1, 2, 3)
    x[0, 1, 2, 0, 1] = np.nan
    assert all(mask.all() for mask in gate(x, 2, 2, 2))


def test_a_nan_in_a_dropped_slice_cannot_be():
    x = clip_with_frames(0, 1, 2, 3)
    x[0, 0, 0, 0, 0] = np.nan    # the weakest frame, were it not for the NaN
    masks = gate(x, 2, 0.5, 0.5)
    assert masks.frame_keep.all()


def test_an_infinity_is_kept_and_the_finite_dropped():
    x = clip_with_frames(0, 1, 2, 3)
    x[0, 1, 1, 0, 1] = -np.inf
    masks = gate(x, 0.5, 0.5, 0.5)
    np.testing.assert_array_equal(masks.frame_keep, [[False, True, False, False]])
    np.testing.assert_array_equal(masks.channel_keep, [[False, True]])
    np.testing.assert_array_equal(masks.feature_keep, [[[False, True], [False, False]]])


def test_float16_sums_do_not_overflow():
    x = np.full((1, 4, 4, 32, 32), 1000, np.float16)    # 4096 values of 1000 are far above float16's 65504
    x[:, :, 1] = 10
    np.testing.assert_array_equal(gate(x, 0.5, 0, 0).frame_keep, [[True, False, True, True]])


def test_float16_means_are_not_rounded_to_float16():
    x = np.full((1, 1, 4, 8, 8), 1000, np.float16)    # the next float16 is 1000.5
    for t in range(4):
        x[0, 0, t].flat[:16 * t] += np.float16(0.5)    # means 1000, 1000.125, 1000.25, 1000.375
    np.testing.assert_array_equal(gate(x, 1, 0, 0).frame_keep, [[False, False, True, True]])


def test_any_strides_of_memory():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
    tau = np.full((2, 3), 0.9, np.float32)
    view = np.asfortranarray(x)[:, :, ::-1]
    for mask, expected in zip(definition.activation_gate(view, tau),
                              definition.activation_gate(np.ascontiguousarray(view), tau)):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("x, tau, expected", [
    (np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 3), np.float32), "X is [1,2,3,4]"),
    (np.zeros((1, 2, 0, 4, 4), np.float32), np.zeros((1, 3), np.float32), "X is [1,2,0,4,4]"),
    (np.zeros((1, 2, 3, 4, 4), np.int32), np.zeros((1, 3), np.float32), "X is of type int32"),
    (np.zeros((2, 2, 3, 4, 4), np.float32), np.zeros((1, 3), np.float32),
     "tau is [1,3], expected [2,3] (N of X [2,2,3,4,4])"),
    (np.zeros((1, 2, 3, 4, 4), np.float32), np.zeros(3, np.float32), "tau is [3], expected [1,3]"),
])
def test_what_does_not_fit_is_refused(x, tau, expected):
    with pytest.raises(InputError) as refused:
        definition.activation_gate(x, tau, name="layer1")
    assert str(refused.value).startswith("ActivationGate 'layer1': ")
    assert expected in str(refused.value)


def test_channels_last_errors_say_their_order():
    expected = r"^ActivationGateCl \(shapes as N,C,T,H,W\) 'g': tau is \[1,2\], .*\[1,5,2,3,4\]"
    with pytest.raises(InputError, match=expected):
        definition.activation_gate_cl(np.zeros((1, 2, 3, 4, 5), np.float32), np.zeros((1, 2), np.float32), name="g")



# --- check_masks and gate_borderline: what a judge of other implementations must see

def spread_case():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((2, 6, 5, 4, 3)) * rng.random((2, 6, 1, 1, 1)) * rng.random((2, 1, 5, 1, 1))
         * rng.random((2, 1, 1, 4, 3))).astype(np.float32)
    return x, np.full((2, 3), 0.8, np.float32)


@pytest.mark.parametrize("step", range(3))
def test_one_wrong_entry_is_reported(step):
    x, tau = spread_case()
    masks = definition.activation_gate(x, tau)
    border = definition.gate_borderline(x, tau, masks)[step]
    assert not border.any()
    for at in np.argwhere(~masks[step])[:3]:
        wrong = [m.copy() for m in masks]
        wrong[step][tuple(at)] = True
        problems = definition.check_masks(x, tau, wrong)
        assert any(names.MASK_NAMES[step] in line and f"n={at[0]}" in line for line in problems)


@pytest.mark.parametrize("step", range(3))
def test_dropping_the_largest_is_reported(step):
    x, tau = spread_case()
    tau[:] = 50    # only the largest of each kind stays
    masks = [m.copy() for m in definition.activation_gate(x, tau)]
    assert masks[step][0].sum() == 1
    masks[step][0] = ~masks[step][0]
    assert any("drops the largest" in line for line in definition.check_masks(x, tau, masks))


def test_masks_that_keep_nothing_are_reported():
    x, tau = spread_case()
    masks = [m.copy() for m in definition.activation_gate(x, tau)]
    masks[1][1] = False
    assert definition.check_masks(x, tau, masks) == ["n=1: channel_keep keeps nothing, expected at least the largest"]


def test_a_borderline_difference_is_allowed_and_judged_onwards():
    x = clip_with_frames(1, 2, 3, 2)
    tau = np.array([[0.5, 1, 1]], np.float32)    # frame 0 exactly on the threshold
    for dropped in (False, True):
        frames = np.array([[not dropped, True, True, True]])
        rest = definition.activation_gate(x[:, :, frames[0]], np.array([[0, 1, 1]], np.float32))
        masks = (frames, rest.channel_keep, rest.feature_keep)
        assert definition.gate_borderline(x, tau, masks).frame_keep[0].tolist() == [True, False, False, False]
        assert definition.check_masks(x, tau, masks) == []


@pytest.mark.parametrize("distance, allowed", [(0.9e-5, True), (1.1e-5, False)])
def test_borderline_is_as_wide_as_the_contract_says(distance, allowed):
    rest = 1 + distance / 3    # four frames of mean 1
    x = clip_with_frames(1 - distance, rest, rest, rest).astype(np.float64)
    x[...] = np.array([1 - distance, rest, rest, rest])[None, None, :, None, None]
    tau = np.array([[1, 0, 0]], np.float32)
    masks = definition.activation_gate(x, tau)
    assert not masks.frame_keep[0, 0]
    kept = (np.ones_like(masks.frame_keep), masks.channel_keep, masks.feature_keep)
    assert definition.gate_borderline(x, tau, kept).frame_keep[0, 0] == allowed


def test_float_masks_count_nonzero_as_kept():
    x, tau = spread_case()
    masks = [np.where(m, 2.5, 0).astype(np.float32) for m in definition.activation_gate(x, tau)]
    assert definition.check_masks(x, tau, masks) == []


def test_masks_of_the_wrong_shape_are_refused():
    x, tau = spread_case()
    masks = definition.activation_gate(x, tau)
    with pytest.raises(InputError, match=r"channel_keep is \[2,5\], expected \[2,6\] \(X is \[2,6,5,4,3\]\)"):
        definition.check_masks(x, tau, (masks[0], masks[0], masks[2]))
