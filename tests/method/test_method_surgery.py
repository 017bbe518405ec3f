"""Where surgery puts gates, what it refuses, and that it counts as cost.py does."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from dance_deploy.cost import ConvCost  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.method.surgery import gate_model  # noqa: E402
from dance_deploy.models import build  # noqa: E402

CLIP = (1, 3, 4, 12, 16)


class Residual(nn.Module):
    """Stem, a block with a 1x1x1 shortcut, a depthwise convolution, a pooled 1x1x1 convolution, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv3d(6, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1), groups=2)
        self.shortcut = nn.Conv3d(6, 8, 1, stride=2)
        self.depthwise = nn.Conv3d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Conv3d(8, 8, 1)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x)
        y = self.depthwise(torch.relu(y))
        return self.fc(self.squeeze(self.pool(y)).flatten(1))


@pytest.fixture(scope="module")
def gated():
    torch.manual_seed(3)
    return gate_model(Residual(), CLIP)


def test_gates_stand_where_the_method_wants_them(gated):
    assert [site.convs for site in gated.plan.sites] == [("conv1", "shortcut"), ("conv2",)]
    assert [site.input_shape for site in gated.plan.sites] == [(6, 4, 12, 16), (8, 2, 6, 8)]
    assert gated.plan.stem_shape == (1, 6, 4, 12, 16)
    assert set(gated.plan.geometries) == {"stem", "conv1", "conv2", "shortcut", "depthwise", "squeeze"}


def test_open_gates_and_budget_1_are_the_network_as_it_was():
    network = Residual().eval()
    model = gate_model(network, CLIP).eval()
    clip = torch.randn(2, *CLIP[1:])
    wanted = network(clip)
    assert torch.equal(model(clip, torch.ones(2)), wanted)
    model.open_gates()
    assert torch.equal(model(clip, torch.full((2,), 0.3)), wanted)
    model.open_gates(False)
    assert not torch.equal(model(clip, torch.full((2,), 0.3)), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_in_another_precision_is_refused_with_what_to_do(dtype):
    name = str(dtype).split(".")[1]
    with pytest.raises(InputError, match=rf"model Residual is in {name}; .* in float32: give model.float\(\)"):
        gate_model(Residual().to(dtype), CLIP)
    gate_model(Residual().to(dtype).float(), CLIP)


def test_surgery_leaves_the_given_network_alone():
    network = Residual()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    model = gate_model(network, CLIP)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_residual_path_carries_the_ungated_tensor():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv3d(3, 3, 1), nn.Conv3d(3, 3, 1)

        def forward(self, x):
            x = self.stem(x)
            return (x + self.conv(x)).mean((2, 3, 4))

    block = Block().eval()
    block.conv.weight.data.zero_()
    block.conv.bias.data.zero_()
    model = gate_model(block, CLIP)
    model.controller.output.bias.data.fill_(3.0)  # high thresholds
    clip = torch.randn(1, *CLIP[1:])
    assert torch.equal(model(clip, torch.full((1,), 0.1)), block(clip))
    assert min(m.mean().item() for m in model.gates[0].masks) < 1.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), keep_rate=st.sampled_from([0.2, 0.6, 1.0]))
def test_share_counts_what_cost_counts(gated, seed, keep_rate):
    rng = np.random.default_rng(seed)
    from dance_deploy.method.gate import Masks
    total = np.zeros(2, dtype=np.int64)
    for gate, site in zip(gated.gates, gated.plan.sites, strict=True):
        c, t, h, w = site.input_shape
        masks = [rng.random((2, *shape)) < keep_rate for shape in ((t,), (c,), (h, w))]
        gate.masks = Masks(*(torch.from_numpy(m).float() for m in masks))
        for name in site.convs:
            cost = ConvCost(gated.plan.geometries[name])
            total += [cost.gated(*(m[n] for m in masks)).macs for n in range(2)]
    total += gated.plan.ungated.macs + gated.controller.macs(gated.plan.stem_shape)
    # float32 sums of whole numbers: each addition rounds once
    bound = 16 * float(np.finfo(np.float32).eps)
    assert gated.macs_share().numpy() == pytest.approx(total / gated.plan.dense_macs, rel=bound)


def test_dense_macs_are_those_of_all_convolutions_and_the_classifier(gated):
    by_hand = sum(ConvCost(g).dense().macs for g in gated.plan.geometries.values()) + 8 * 5
    assert gated.plan.dense_macs == by_hand


def test_gradient_of_the_share_reaches_the_controller(gated):
    gated.train()
    gated(torch.randn(2, *CLIP[1:]), torch.full((2,), 0.5))
    gated.macs_share().mean().backward()
    gradient = gated.controller.output.bias.grad
    # lowering any threshold keeps more: every slope is towards more MACs
    assert gradient is not None and (gradient <= 0).all() and (gradient < 0).any()
    gated.zero_grad(set_to_none=True)


def test_backbone_state_has_the_networks_own_names(gated):
    assert set(gated.backbone_state()) == set(Residual().state_dict())
    other = gate_model(Residual(), CLIP)
    other.load_backbone_state(gated.backbone_state())
    assert torch.equal(other.graph.get_parameter("conv1.weight"), gated.graph.get_parameter("conv1.weight"))


@pytest.mark.parametrize("name", ["small", "c3d", "r3d18", "mc3_18", "r2plus1d18", "x3d_s"])
def test_every_architecture_can_be_gated(name):
    from dance_deploy.models import ARCHITECTURES
    with torch.device("meta"):
        network = build(name, 7)
    shape = ARCHITECTURES[name].clip.shape
    sites = gate_model(network.to_empty(device="cpu"), shape).plan.sites
    assert len(sites) >= 7 and all(min(site.input_shape) >= 1 for site in sites)


class OneConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 1)

    def forward(self, x):
        return self.conv(x).mean((2, 3, 4))


class Branches(OneConv):
    def forward(self, x):
        return self.conv(x).mean((2, 3, 4)) if x.sum() > 0 else x.mean((2, 3, 4))


class Twice(OneConv):
    def __init__(self):
        super().__init__()
        self.same = nn.Conv3d(4, 4, 1)

    def forward(self, x):
        return self.same(self.same(self.conv(x))).mean((2, 3, 4))


class Reflecting(OneConv):
    def __init__(self):
        super().__init__()
        self.other = nn.Conv3d(4, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        return self.other(self.conv(x)).mean((2, 3, 4))


class TwoStems(OneConv):
    def __init__(self):
        super().__init__()
        self.other, self.late = nn.Conv3d(4, 4, 1), nn.Conv3d(3, 4, 1)

    def forward(self, x):
        return (self.other(self.conv(x)) + self.late(x)).mean((2, 3, 4))


class BothReadTheClip(OneConv):
    def __init__(self):
        super().__init__()
        self.other, self.late = nn.Conv3d(3, 4, 1), nn.Conv3d(4, 4, 1)

    def forward(self, x):
        return self.late(self.conv(x) + self.other(x)).mean((2, 3, 4))


class TwoInputs(OneConv):
    def forward(self, x, other):
        return (self.conv(x) + other).mean((2, 3, 4))


@pytest.mark.parametrize("network,said", [
    (OneConv, "1 Conv3d"), (Branches, "cannot be traced"), (Twice, "more than once"), (Reflecting, "padding_mode"),
    (TwoStems, "single stem"), (BothReadTheClip, "single stem: several convolutions read the clip"),
    (TwoInputs, "parameter other")])
def test_what_cannot_be_gated_is_refused_in_one_line(network, said, capfd):
    with pytest.raises(InputError, match=said) as caught:
        gate_model(network(), CLIP)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # torch's ShapeProp prints tracebacks


def test_clip_that_the_model_does_not_accept():
    with pytest.raises(InputError, match="does not accept a clip"):
        gate_model(Residual(), (1, 4, 4, 12, 16))


class Written(nn.Module):
    """A network as people write them: sizes, functional dropout, an in-place add; `fault` adds what cannot go."""

    def __init__(self, fault=""):
        super().__init__()
        self.stem, self.conv = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.fc, self.fault = nn.Linear(4, 5), fault

    def forward(self, x):
        batch = x.size(0)
        x = torch.relu(self.stem(x))
        y = self.conv(x)
        z = y
        y += x
        if self.fault == "alias":
            y = y + z
        y = torch.relu(y).mean((2, 3, 4)).view(batch, -1)
        if self.fault == "always":
            y = nn.functional.dropout(y, 0.5)
        return self.fc(nn.functional.dropout(y, 0.5, self.training))


def test_functional_dropout_follows_the_mode_and_sizes_the_batch():
    network = Written()
    model = gate_model(network, CLIP)
    clip = torch.randn(3, *CLIP[1:])
    assert torch.equal(model.eval()(clip, torch.ones(3)), network.eval()(clip))
    model.train()
    assert not torch.equal(model(clip, torch.ones(3)), model(clip, torch.ones(3)))


@pytest.mark.parametrize("fault,said", [("alias", "computes something else once traced"),
                                        ("always", "drops out in eval mode too")])
def test_what_tracing_would_change_is_refused(fault, said):
    with pytest.raises(InputError, match=said):
        gate_model(Written(fault), CLIP)


def test_layers_that_were_never_run_are_refused():
    with pytest.raises(InputError, match="lazy layers"):
        gate_model(nn.Sequential(nn.LazyConv3d(4, 3), nn.Conv3d(4, 4, 3)), CLIP)


def test_surgery_leaves_the_network_and_its_mode_alone():
    network = Written().train()
    network.conv.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gate_model(network, CLIP)
    assert network.training and network.stem.training and not network.conv.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
