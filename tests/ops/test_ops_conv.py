"""GatedConv3d: the definition against torch's conv3d on selected input, and its promises one by one."""
import numpy as np
import pytest
from hypothesis import given, settings
from ops_cases import conv_cases, make_conv_case, random_masks

from dance_deploy.errors import InputError
from dance_deploy.ops import definition, names

torch = pytest.importorskip("torch", reason="torch is the oracle of these tests")

FLOAT64_EPS = float(np.finfo(np.float64).eps)


def selected(x, masks):
    frames, channels, features = masks
    return np.where(channels[:, :, None, None, None] & frames[:, None, :, None, None] & features[:, None, None], x, 0)


def torch_conv(x, w, b, attributes):
    """float64 conv3d with ONNX's attributes (torch takes no pads that differ at both ends)."""
    pads = attributes["pads"]
    x, w, b = (torch.from_numpy(np.ascontiguousarray(a, np.float64)) for a in (x, w, b))
    x = torch.nn.functional.pad(x, [pads[2], pads[5], pads[1], pads[4], pads[0], pads[3]])
    return torch.nn.functional.conv3d(x, w, b, attributes["strides"], 0, attributes["dilations"],
                                      attributes["group"]).numpy()


def oracle(case, minimum=names.MIN_DEFAULT):
    """Result and sum of absolute products, both in float64, by torch."""
    z = 0 if case.z is None else case.z.astype(np.float64)
    x = selected(case.x, case.masks)
    y = np.maximum(torch_conv(x, case.w, case.b, case.attributes) + z, minimum)
    return y, torch_conv(np.abs(x), np.abs(case.w), np.abs(case.b), case.attributes) + np.abs(z)


def run(case, **more):
    return definition.gated_conv3d(case.x, case.w, case.b, *case.masks, case.z, **case.attributes, **more)


@settings(max_examples=120, deadline=None)
@given(conv_cases(dtypes=(np.float64,)))
def test_float64_equals_torch_on_selected_input(case):
    expected, size = oracle(case)
    y = run(case)
    terms = np.prod(case.w.shape[1:])
    assert y.shape == expected.shape
    assert y.dtype == np.float64
    # both sides round, hence twice the bound
    assert (np.abs(y - expected) <= 4 * FLOAT64_EPS * np.sqrt(terms + 2) * size).all()


@settings(max_examples=120, deadline=None)
@given(conv_cases(dtypes=(np.float32, np.float16)))
def test_narrow_types_stay_within_the_contract_of_torch(case):
    expected, _ = oracle(case, minimum=-0.25)
    y = run(case, minimum=-0.25)
    reference = definition.reference(case.x, case.w, case.b, *case.masks, case.z, minimum=-0.25, **case.attributes)
    assert y.dtype == case.x.dtype
    assert definition.check_output(y, reference._replace(y=expected), with_norm=False) == []
    assert (y.astype(np.float64) >= -0.25).all()


@settings(max_examples=60, deadline=None)
@given(conv_cases())
def test_all_kept_is_the_plain_convolution(case):
    ones = [np.ones_like(mask) for mask in case.masks]
    plain = definition.conv3d(case.x, case.w, case.b, **case.attributes)
    gated = definition.gated_conv3d(case.x, case.w, case.b, *ones, **case.attributes)
    np.testing.assert_array_equal(gated, plain)


@settings(max_examples=60, deadline=None)
@given(conv_cases(dtypes=(np.float32, np.float16)))
def test_none_kept_is_the_bias_and_residual_clamped(case):
    for dropped in range(3):    # one empty mask is enough
        masks = [np.zeros_like(m) if i == dropped else np.ones_like(m) for i, m in enumerate(case.masks)]
        y = run(case._replace(masks=masks), minimum=0.5)
        bias = case.b.astype(np.float32)[:, None, None, None]
        expected = np.maximum(bias if case.z is None else bias + case.z, np.float32(0.5)).astype(case.x.dtype)
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@settings(max_examples=40, deadline=None)
@given(case=conv_cases(dtypes=(np.float32, np.float16)))
def test_what_a_pruned_slice_holds_never_shows(value, case):
    poisoned = np.where(selected(np.ones_like(case.x), case.masks) != 0, case.x, case.x.dtype.type(value))
    np.testing.assert_array_equal(run(case._replace(x=poisoned)), run(case))


def test_a_kept_nan_shows_also_through_the_clamp():
    case = make_conv_case(np.random.default_rng(0), n=1, c_per_group=2, m_per_group=3, group=1, size=(3, 4, 5),
                          kernel=(1, 1, 1), strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1), keep=1)
    case.x[0, 1, 2, 3, 4] = np.nan
    y = run(case, minimum=0)
    assert np.isnan(y[0, :, 2, 3, 4]).all()
    assert np.isnan(y).sum() == 3


@settings(max_examples=50, deadline=None)
@given(conv_cases())
def test_each_clip_as_if_alone(case):
    together = run(case)
    for n in range(case.x.shape[0]):
        alone = case._replace(x=case.x[n:n + 1], masks=[m[n:n + 1] for m in case.masks],
                              z=None if case.z is None else case.z[n:n + 1])
        np.testing.assert_array_equal(together[n:n + 1], run(alone))


@settings(max_examples=40, deadline=None)
@given(conv_cases(dtypes=(np.float32, np.float16, np.float64)))
def test_inputs_are_unchanged_byte_for_byte(case):
    arrays = [a for a in (case.x, case.w, case.b, case.z, *case.masks) if a is not None]
    before = [a.tobytes() for a in arrays]
    run(case, minimum=0)
    definition.error_bound(case.x, case.w, case.b, *case.masks, case.z, **case.attributes)
    assert [a.tobytes() for a in arrays] == before


@settings(max_examples=30, deadline=None)
@given(conv_cases())
def test_float_masks_mean_the_same_as_bool_ones(case):
    numbers = [np.where(mask, -0.5, -0.0).astype(np.float32) for mask in case.masks]
    np.testing.assert_array_equal(run(case._replace(masks=numbers)), run(case))


@settings(max_examples=30, deadline=None)
@given(conv_cases())
def test_channels_last_is_the_same_convolution(case):
    def last(a):
        return None if a is None else np.ascontiguousarray(np.moveaxis(a, 1, -1))

    y = definition.gated_conv3d_cl(last(case.x), case.w, case.b, *case.masks, last(case.z), minimum=0,
                                   **case.attributes)
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y, last(run(case, minimum=0)))


def test_any_strides_of_memory():
    case = make_conv_case(np.random.default_rng(1), n=2, c_per_group=2, m_per_group=2, group=2, size=(4, 5, 6),
                          kernel=(3, 1, 2), strides=(1, 2, 1), pads=(1, 0, 1, 0, 2, 1), dilations=(1, 1, 2), keep=0.6)
    view = np.asfortranarray(case.x)[:, ::-1]
    np.testing.assert_array_equal(run(case._replace(x=view)), run(case._replace(x=np.ascontiguousarray(view))))


def fitting():
    """Arguments that fit, to be spoilt one at a time."""
    rng = np.random.default_rng(0)
    x = np.zeros((1, 48, 4, 6, 5), np.float32)
    masks = random_masks(rng, x.shape, 1)
    return {"x": x, "w": np.zeros((64, 48, 3, 3, 3), np.float32), "b": np.zeros(64, np.float32),
            "frame_keep": masks[0], "channel_keep": masks[1], "feature_keep": masks[2]}


@pytest.mark.parametrize("spoilt, expected", [
    ({"w": np.zeros((64, 32, 3, 3, 3), np.float32)},
     "GatedConv3d 'layer2': W is [64,32,3,3,3], expected [64,48,3,3,3] (C=48 of X [1,48,4,6,5], group=1)"),
    ({"w": np.zeros((64, 48, 3, 3), np.float32)}, "W is [64,48,3,3], expected [M,48,kT,kH,kW]"),
    ({"w": np.zeros((64, 48, 3, 3, 3), np.float16)}, "W is of type float16, expected float32"),
    ({"w": np.zeros((64, 48, 5, 3, 3), np.float32)},
     "W is [64,48,5,3,3], expected a kernel that fits into X [1,48,4,6,5] (pads [0,0,0,0,0,0], dilations [1,1,1])"),
    ({"b": np.zeros(63, np.float32)}, "B is [63], expected [64] (M of W [64,48,3,3,3])"),
    ({"frame_keep": np.ones((1, 5), bool)}, "frame_keep is [1,5], expected [1,4] (X is [1,48,4,6,5])"),
    ({"channel_keep": np.ones(48, bool)}, "channel_keep is [48], expected [1,48]"),
    ({"feature_keep": np.ones((1, 5, 6), bool)}, "feature_keep is [1,5,6], expected [1,6,5]"),
    ({"z": np.zeros((1, 64, 2, 4, 4), np.float32)},
     "GatedConv3dAdd 'layer2': Z is [1,64,2,4,4], expected [1,64,2,4,3] (Y for X [1,48,4,6,5], W [64,48,3,3,3])"),
    ({"z": np.zeros((1, 64, 2, 4, 3), np.float64)}, "Z is of type float64, expected float32"),
    ({"x": np.zeros((1, 48, 4, 6), np.float32)}, "X is [1,48,4,6], expected [N,C,T,H,W]"),
    ({"x": np.zeros((1, 48, 4, 6, 5), np.int8)}, "X is of type int8, expected float16 or float32 or float64"),
    ({"group": 5}, "X is [1,48,4,6,5], expected C divisible by group=5"),
    ({"group": 0}, "group is [0]"),
    ({"strides": (1, 1)}, "strides is [1,1], expected 3 integer(s), each at least 1"),
    ({"strides": (1, 0, 1)}, "strides is [1,0,1]"),
    ({"pads": (1, 1, 1)}, "pads is [1,1,1], expected 6 integer(s), each at least 0"),
    ({"dilations": (2, 1, 1)}, "W is [64,48,3,3,3], expected a kernel that fits into X"),
])
def test_what_does_not_fit_is_refused(spoilt, expected):
    with pytest.raises(InputError) as refused:
        definition.gated_conv3d(**{**fitting(), **spoilt}, name="layer2")
    assert expected in str(refused.value)
    assert str(refused.value).startswith("GatedConv3d")
    assert "\n" not in str(refused.value)


def test_filters_must_divide_by_group():
    arguments = fitting()
    arguments["w"] = np.zeros((63, 24, 1, 1, 1), np.float32)
    with pytest.raises(InputError, match=r"W is \[63,24,1,1,1\], expected M divisible by group=2"):
        definition.gated_conv3d(**arguments, group=2)
