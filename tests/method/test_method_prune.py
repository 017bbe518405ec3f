"""Static pruning: groups of channels, what they cost, the bisection, and that a narrow network computes the same."""
import copy

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.method.prune import (  # noqa: E402
    ALLOCATIONS,
    SCORES,
    ChannelGroups,
    choose_channels,
    keep_channels,
    shrink,
    widths_of,
)
from dance_deploy.method.surgery import gate_model  # noqa: E402
from dance_deploy.models import ARCHITECTURES, build  # noqa: E402

SHAPE = (1, 3, 8, 32, 32)
SMALL = build("small", 5, seed=0)


def macs(network, shape=SHAPE):
    return gate_model(network, shape).plan.dense_macs


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize("arch", [name for name in ARCHITECTURES if name != "c3d"])  # c3d reads 16x112x112 only
def test_what_is_left_is_what_was_counted(arch, scope):
    network = build(arch, 5, seed=0)
    groups = ChannelGroups(network, SHAPE, scope)
    assert groups.groups and groups.macs({}) == macs(network)
    kept = {name: torch.arange(0, g.channels, 2) for name, g in groups.groups.items()}
    keep_channels(network, groups, kept)
    widths = {name: len(index) for name, index in kept.items()}
    assert macs(network) == groups.macs(widths) < groups.macs({})
    again = build(arch, 5)
    shrink(again, SHAPE, widths)
    again.load_state_dict(network.state_dict())
    assert widths_of(build(arch, 5), SHAPE, network.state_dict()) == widths


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_channels_that_say_nothing_can_go_without_a_change(scope):
    network = copy.deepcopy(SMALL).eval()
    groups = ChannelGroups(network, SHAPE, scope)
    kept = {}
    with torch.no_grad():
        for name, group in groups.groups.items():
            kept[name] = torch.arange(1, group.channels, 3)
            gone = torch.ones(group.channels, dtype=torch.bool)
            gone[kept[name]] = False
            for norm in group.norms:
                network.get_submodule(norm).weight[gone] = 0.0
                network.get_submodule(norm).bias[gone] = 0.0
    clip = torch.randn(2, *SHAPE[1:])
    before = network(clip)
    keep_channels(network, groups, kept)
    torch.testing.assert_close(network(clip), before)


def test_scopes():
    inner, whole = (ChannelGroups(SMALL, SHAPE, scope).groups for scope in ("inner", "all"))
    assert list(inner) == [f"layer{i}.0.conv1.0" for i in (1, 2, 3, 4)]
    # the stem and the first block's sum are one group, since an addition joins them
    assert set(whole) > set(inner) and whole["stem.0"].producers == ["stem.0", "layer1.0.conv2.0"]
    with pytest.raises(InputError, match="scope 'outer'"):
        ChannelGroups(SMALL, SHAPE, "outer")


@settings(deadline=None, max_examples=15)
@given(share=st.floats(0.15, 0.99), by=st.sampled_from(SCORES), allocation=st.sampled_from(ALLOCATIONS),
       seed=st.integers(0, 5))
def test_bisection_meets_the_share_from_below_and_keeps_the_best(share, by, allocation, seed):
    network = copy.deepcopy(SMALL)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.weight.data = torch.rand(module.weight.shape, generator=generator)
    groups = ChannelGroups(network, SHAPE, "inner")
    kept = choose_channels(network, groups, share, by, allocation)
    left = groups.macs({name: len(index) for name, index in kept.items()}) / groups.macs({})
    assert left <= share
    # uniform steps are as coarse as one channel of the narrowest layer
    assert left > share - (0.08 if allocation == "uniform" else 0.06)
    if by == "bn":
        for name, index in kept.items():
            scale = network.get_submodule(groups.groups[name].norms[0]).weight
            gone = torch.ones(len(scale), dtype=torch.bool)
            gone[index] = False
            assert not gone.any() or scale[index].min() >= scale[gone].max() * (1 - 1e-3)


def test_equal_scales_are_told_apart_by_the_filters():
    groups = ChannelGroups(SMALL, SHAPE)  # every batch norm still has a scale of 1
    kept = choose_channels(SMALL, groups, 0.5)
    assert 0.4 < groups.macs({name: len(i) for name, i in kept.items()}) / groups.macs({}) <= 0.5


def test_a_flattened_volume_and_an_uneven_reader():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 6, 3, padding=1)
            self.out = nn.Linear(6 * 8, 2)

        def forward(self, x):
            return self.out(torch.flatten(torch.relu(self.b(torch.relu(self.a(x)))), 1))

    network = Flat().eval()
    groups = ChannelGroups(network, (1, 3, 2, 2, 2))
    kept = {"b": torch.tensor([1, 4])}
    with torch.no_grad():
        for gone in (0, 2, 3, 5):
            network.b.weight[gone], network.b.bias[gone] = 0.0, 0.0
    clip = torch.randn(2, 3, 2, 2, 2)
    before = network(clip)
    keep_channels(network, groups, kept)
    torch.testing.assert_close(network(clip), before)
    assert network.out.in_features == 16 and macs(network, (1, 3, 2, 2, 2)) == groups.macs({"b": 2})


def test_what_pruning_does_not_understand_keeps_its_channels():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv3d(n, 4, 1) for n in (3, 4, 4))

        def forward(self, x):
            return self.c(self.b(self.a(x).roll(1, 1)))

    groups = ChannelGroups(Odd(), SHAPE)
    assert list(groups.groups) == ["b"]


@pytest.mark.parametrize("share,words", [(0.05, "not possible here: with the fewest channels"), ])
def test_a_share_out_of_reach_says_what_is_possible(share, words):
    with pytest.raises(InputError, match=words):
        choose_channels(SMALL, ChannelGroups(SMALL, SHAPE, "inner"), share)


@pytest.mark.parametrize("widths,words", [
    ({"stem.7": 4}, "'stem.7' has 4 channels, which cannot be pruned"), ({"layer1.0.conv1.0": 0}, "expected 1 to 16"),
    ({"layer1.0.conv1.0": 17}, "expected 1 to 16"), ({"layer1.0.conv1.0": "4"}, "expected 1 to 16")])
def test_widths_of_another_network_are_refused(widths, words):
    with pytest.raises(InputError, match=words):
        shrink(build("small", 5), SHAPE, widths)


HEADS = {
    "mean": lambda x: x.mean((2, 3, 4)), "mean, named": lambda x: torch.mean(x, dim=[-3, -2, -1]),
    "amax": lambda x: x.amax(dim=(2, 3, 4)), "view": lambda x: x.mean((2, 3, 4), keepdim=True).view(x.size(0), -1),
    "reshape": lambda x: x.mean((2, 3, 4), True).reshape((x.shape[0], -1)),
    "squeeze": lambda x: x.mean((2, 3, 4), keepdim=True).squeeze(-1).squeeze(3).squeeze(dim=2),
    "flatten": lambda x: torch.flatten(x, start_dim=1),
}
FIXED_HEADS = {"channels written down": lambda x: x.mean((2, 3, 4), keepdim=True).view(-1, 8),
               "mean over channels": lambda x: x.mean(1).flatten(1)[:, :8]}


class Headed(nn.Module):
    """Two convolutions and a head, as people write them."""

    def __init__(self, head):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv3d(3, 6, 3, 2), nn.BatchNorm3d(6), nn.Conv3d(6, 8, 3, 2)
        self.head = head
        size = nn.Sequential(self.first, self.last)(torch.zeros(SHAPE))
        self.fc = nn.Linear(head(size).shape[1], 5)

    def forward(self, clip):
        return self.fc(self.head(torch.relu(self.last(torch.relu(self.norm(self.first(clip)))))))


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_channels_that_a_head_reduces_can_go(head):
    network = Headed(head).eval()
    groups = ChannelGroups(network, SHAPE)
    assert list(groups.groups) == ["first", "last"]
    kept = {"first": torch.tensor([0, 2, 5]), "last": torch.tensor([1, 3, 4, 7])}
    gone = [i for i in range(8) if i not in kept["last"]]
    with torch.no_grad():
        network.norm.weight[[1, 3, 4]] = network.norm.bias[[1, 3, 4]] = 0.0
        network.last.weight[gone] = network.last.bias[gone] = 0.0
    clip = torch.randn(2, *SHAPE[1:])
    before = network(clip)
    keep_channels(network, groups, kept)
    torch.testing.assert_close(network(clip), before)
    assert groups.macs({"first": 3, "last": 4}) == macs(network)
    assert widths_of(Headed(head), SHAPE, network.state_dict()) == {"first": 3, "last": 4}


@pytest.mark.parametrize("head", FIXED_HEADS.values(), ids=list(FIXED_HEADS))
def test_channels_that_a_head_counts_stay(head):
    assert list(ChannelGroups(Headed(head).eval(), SHAPE).groups) == ["first"]
