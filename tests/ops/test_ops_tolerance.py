"""The bound that every implementation is held to: it must let rounding pass and nothing else."""
import numpy as np
import pytest
from hypothesis import given, settings
from ops_cases import conv_cases, make_conv_case

from dance_deploy.ops import definition


def case_of(dtype=np.float32, keep=0.7, size=(4, 12, 11), with_z=True):
    return make_conv_case(np.random.default_rng(5), n=1, c_per_group=8, m_per_group=4, group=1, size=size,
                          kernel=(3, 3, 3), strides=(1, 1, 1), pads=(1,) * 6, dilations=(1, 1, 1), keep=keep,
                          dtype=dtype, with_z=with_z)


def expected_of(case, **more):
    return definition.reference(case.x, case.w, case.b, *case.masks, case.z, **case.attributes, **more)


def run(case, **more):
    return definition.gated_conv3d(case.x, case.w, case.b, *case.masks, case.z, **case.attributes, **more)


@settings(max_examples=40, deadline=None)
@given(conv_cases(dtypes=(np.float32, np.float16, np.float64)))
def test_the_definition_itself_is_within_the_bound(case):
    assert definition.check_output(run(case), expected_of(case), with_norm=False) == []


@settings(max_examples=20, deadline=None)
@given(conv_cases())
def test_bound_follows_the_formula(case):
    expected = expected_of(case, eps=0.25)    # an eps beside which the output's rounding is nothing
    absolute = [None if a is None else np.abs(a).astype(np.float64) for a in (case.x, case.w, case.b, case.z)]
    size = definition.gated_conv3d(*absolute[:3], *case.masks, absolute[3], **case.attributes)
    h, w = size.shape[3:]
    terms = case.w[0].size
    for i in range(h):
        for j in range(w):
            nearby = size[:, :, :, max(0, i - 3):i + 4, max(0, j - 3):j + 4].max(axis=(3, 4))
            np.testing.assert_allclose(expected.bound[..., i, j], 2 * 0.25 * np.sqrt(terms + 2) * nearby, rtol=1e-6)


def test_bound_of_float16_output_adds_half_a_step():
    case = case_of(np.float16)
    wide = expected_of(case, out_dtype=np.float32)
    narrow = expected_of(case)
    extra = narrow.bound - wide.bound
    half_step = np.spacing(np.abs(narrow.y).astype(np.float16)).astype(np.float64) / 2
    assert (extra >= half_step * 0.49).all()    # the bound takes eps / 2 x value, a step lies between that and twice
    assert (extra <= 1.1 * half_step * 2 + wide.bound * 2e-3).all()


def test_one_wrong_voxel_is_found():
    case = case_of(size=(4, 40, 40))
    y = run(case)
    expected = expected_of(case)
    assert definition.check_output(y, expected) == []
    y[0, 1, 2, 3, 4] += 3 * expected.bound[0, 1, 2, 3, 4]
    problems = definition.check_output(y, expected)
    assert len(problems) == 1
    assert problems[0].startswith("Y[0, 1, 2, 3, 4] is ")


def test_a_bias_on_everything_is_found_by_the_norm():
    case = case_of()
    expected = expected_of(case)
    y = run(case) + np.float32(2e-5) * np.abs(run(case))
    assert any("norm of the error" in line for line in definition.check_output(y, expected))
    assert not any("norm" in line for line in definition.check_output(y, expected, with_norm=False))


def test_many_wrong_values_make_few_lines():
    case = case_of()
    expected = expected_of(case)
    problems = definition.check_output(run(case) + np.float32(1), expected)
    assert len(problems) == 5
    assert problems[3] == f"Y differs at {expected.y.size - 3} more positions"


def test_a_wrong_shape_is_told():
    case = case_of()
    assert definition.check_output(run(case)[:, :3], expected_of(case)) == [
        "Y is [1, 3, 4, 12, 11], expected [1, 4, 4, 12, 11]"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_fault_must_show(value):
    case = case_of(keep=1, size=(4, 12, 12))
    case.x[0, 0, 0, 0, 0] = value
    y = run(case)
    expected = expected_of(case)
    assert definition.check_output(y, expected) == []
    hidden = np.where(np.isfinite(y), y, np.float32(0))
    assert definition.check_output(hidden, expected) != []
    spread = y.copy()
    spread[..., -1] = np.nan    # far from the fault: not allowed to spread there
    assert definition.check_output(spread, expected) != []


def test_a_float16_that_overflows_may_be_infinite():
    case = case_of(np.float16, keep=1, with_z=False)
    case = case._replace(x=np.full_like(case.x, 30), w=np.full_like(case.w, 30))    # up to 27 x 8 x 900
    y = run(case)
    assert np.isinf(y).any()
    expected = expected_of(case)
    assert definition.check_output(y, expected) == []
    y[np.isfinite(y)] = np.inf
    assert (definition.check_output(y, expected) == []) == (np.isinf(expected.bound).all())


def test_dropping_the_wrong_frame_is_outside_the_bound():
    case = case_of()
    frames, channels, features = case.masks
    assert frames.any()
    other = (np.roll(frames, 1, axis=1), channels, features)
    assert (other[0] != frames).any()
    assert definition.check_output(run(case._replace(masks=other)), expected_of(case)) != []
