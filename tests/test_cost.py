"""Costs are counted against a plain loop over every output, tap and channel."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dance_deploy.cost import ConvCost, Cost
from dance_deploy.errors import InputError
from dance_deploy.geometry import ClipSpec, Conv3dGeometry


@st.composite
def cases(draw):
    """A geometry with every axis different, and masks for it."""
    group = draw(st.sampled_from([1, 1, 2, 3]))
    axis = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2),
                     st.integers(1, 2))
    axes = [draw(axis) for _ in range(3)]
    size, kernel, strides, begins, ends, dilations = zip(*axes)
    g = Conv3dGeometry("conv", 2 * group, 3 * group, size, kernel, strides, begins + ends, dilations, group)
    masks = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in (size[0], g.in_channels, size[1] * size[2])]
    return g, np.array(masks[0]), np.array(masks[1]), np.array(masks[2]).reshape(size[1:])


def count_by_loop(g, frames, channels, features):
    """MACs and weights used, one tap at a time."""
    macs, live = 0, set()
    per_channel = g.out_channels // g.group
    for out in itertools.product(*(range(n) for n in g.out_size)):
        for tap in itertools.product(*(range(k) for k in g.kernel)):
            t, h, w = (o * s - p + k * d for o, s, p, k, d in zip(out, g.strides, g.pads[:3], tap, g.dilations))
            inside = 0 <= t < g.in_size[0] and 0 <= h < g.in_size[1] and 0 <= w < g.in_size[2]
            if inside and frames[t] and features[h, w]:
                macs += per_channel * int(channels.sum())
                live.add(tap)
    return macs, len(live) * per_channel * int(channels.sum())


@settings(max_examples=150, deadline=None)
@given(cases())
def test_counts_equal_a_plain_loop(case):
    g, frames, channels, features = case
    try:
        out = g.out_size
    except InputError:
        return
    macs, weights = count_by_loop(g, frames, channels, features)
    read = int(frames.sum()) * int(channels.sum()) * int(features.sum())
    written = g.out_channels * int(np.prod(out))
    assert ConvCost(g).gated(frames, channels, features) == Cost(macs, 4 * (read + weights + written))


def test_dense_is_all_kept_and_padding_is_free():
    g = Conv3dGeometry("conv", 4, 8, (4, 5, 6), (3, 3, 3), pads=(1,) * 6)
    dense = ConvCost(g).dense()
    assert dense == ConvCost(g).gated(np.ones(4), np.ones(4), np.ones((5, 6)))
    # per axis: 3 taps a position, less one at each rim
    assert dense.macs == 4 * 8 * (3 * 4 - 2) * (3 * 5 - 2) * (3 * 6 - 2)


def test_float_masks_count_as_nonzero():
    g = Conv3dGeometry("conv", 2, 2, (2, 2, 2), (1, 1, 1))
    assert ConvCost(g).gated([0.5, 0], [-1.0, 0], [[1, 0], [0, 0]]).macs == 2


def test_a_kernel_that_does_not_fit_is_refused_by_name():
    geometry = Conv3dGeometry("deep", 1, 1, (2, 9, 9), (3, 1, 1))
    with pytest.raises(InputError, match="'deep'.*along T"):
        ConvCost(geometry)


@pytest.mark.parametrize("change, said", [
    ({"frames": 0}, "frames"), ({"stride": 0}, "stride"), ({"size": (0, 4)}, "size"), ({"size": (9, 4)}, "larger"),
    ({"std": (0.1, 0.0, 0.1)}, "std")])
def test_senseless_clip_specs_are_refused(change, said):
    spec = ClipSpec(4, 2, (8, 8), (8, 8), (0, 0, 0), (1, 1, 1))
    assert spec.check() is spec and spec.span == 7 and spec.shape == (1, 3, 4, 8, 8)
    with pytest.raises(InputError, match=said):
        spec._replace(**change).check()
