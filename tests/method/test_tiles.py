"""Tiles of outputs against a plain count."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.geometry import Conv3dGeometry  # noqa: E402
from dance_deploy.method.tiles import FeatureTiles  # noqa: E402


@st.composite
def layers(draw):
    kernel, stride, dilation = (tuple(draw(st.tuples(st.integers(1, top), st.integers(1, top)))) for top in (3, 3, 2))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    size = [draw(st.integers(max(1, d * (k - 1) + 1), 14)) for k, d in zip(kernel, dilation)]
    return Conv3dGeometry("c", 1, 1, (1, *size), (1, *kernel), (1, *stride), (0, *pads[:2], 0, *pads[2:]),
                          (1, *dilation))


def live_tiles(keep, geometry, tile):
    """Share of tiles with an output that reads a kept position, output by output."""
    _, rows, columns = geometry.out_size
    tiles = np.zeros((-(-rows // tile), -(-columns // tile)), bool)
    for y in range(rows):
        for x in range(columns):
            for i in range(geometry.kernel[1]):
                for j in range(geometry.kernel[2]):
                    h = y * geometry.strides[1] - geometry.pads[1] + i * geometry.dilations[1]
                    w = x * geometry.strides[2] - geometry.pads[2] + j * geometry.dilations[2]
                    if 0 <= h < keep.shape[0] and 0 <= w < keep.shape[1] and keep[h, w]:
                        tiles[y // tile, x // tile] = True
    return tiles.mean()


@settings(max_examples=150, deadline=None)
@given(geometry=layers(), tile=st.integers(1, 4), share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_a_tile_is_live_where_it_reads_a_kept_feature(geometry, tile, share, seed):
    keep = np.random.default_rng(seed).random((2, *geometry.in_size[1:])) < share
    found = FeatureTiles(geometry, tile).live(torch.from_numpy(keep).float())
    # positions between an output's taps, and beyond the last output of a partial tile, are taken as read
    least = [live_tiles(k, geometry, tile) for k in keep]
    assert all(f >= a - 1e-6 for f, a in zip(found.tolist(), least))
    plain = max(geometry.dilations) == 1 and all(s <= k for s, k in zip(geometry.strides, geometry.kernel)) and all(
        extent % tile == 0 for extent in geometry.out_size[1:])
    if plain:
        np.testing.assert_allclose(found.numpy(), least, atol=1e-6)


def test_a_lone_feature_bears_the_cost_of_its_tile_and_others_share_it():
    features = torch.zeros(1, 8, 8)
    features[0, 1, 1] = 1.0
    features[0, 5:8, 5:8] = 1.0
    features.requires_grad_()
    geometry = Conv3dGeometry("c", 4, 4, (1, 8, 8), (3, 3, 3), (1, 1, 1), (1, 1, 1, 1, 1, 1))
    live = FeatureTiles(geometry).live(features)
    assert live.tolist() == [0.5]
    live.sum().backward()
    slope = features.grad[0]
    assert slope[1, 1] == pytest.approx(1 / 4) and slope[6, 6] == pytest.approx(1 / 4 / 9)
