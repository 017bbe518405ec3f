"""The exported graphs: names, shapes, what is fused, and that they compute what torch computes."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import randomize_norms, threshold
from torch import nn
from torch.nn import functional as F

from dance_deploy import profiles
from dance_deploy.errors import InputError
from dance_deploy.export import parity
from dance_deploy.export.graphs import graphs_from_model
from dance_deploy.method.surgery import gate_model
from dance_deploy.ops import names
from dance_deploy.ops.functions import TO_CHANNELS_FIRST
from dance_deploy.runtime.kernels import library_path

SHAPE = (1, 3, 4, 12, 12)


@pytest.fixture
def graphs(gated):
    return graphs_from_model(gated, profiles.load("cpu"))


def io_of(model):
    def shapes(infos):
        types = {i.name: i.type.tensor_type for i in infos}
        return {name: ([d.dim_value for d in t.shape.dim], t.elem_type) for name, t in types.items()}
    return shapes(model.graph.input), shapes(model.graph.output)


def test_names_shapes_and_types_are_the_bundles(graphs, gated):
    f32, i64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    n, c, t, h, w = gated.plan.stem_shape
    stem, gates = [n, t, h, w, c], len(gated.plan.sites)
    assert io_of(graphs.controller) == ({"clip": ([1, 3, 6, 20, 24], f32), "budget": ([1], f32)},
                                        {"stem": (stem, f32), "tau": ([gates, 3], f32)})
    assert io_of(graphs.controller_kernels) == io_of(graphs.controller)
    assert io_of(graphs.body) == ({"stem": (stem, f32), "tau": ([gates, 3], f32)},
                                  {"logits": ([1, 5], f32), "kept": ([gates, 3], i64)})
    assert io_of(graphs.dense) == ({"clip": ([1, 3, 6, 20, 24], f32)}, {"logits": ([1, 5], f32)})
    other = graphs_from_model(gated, profiles.load("cpu")._replace(channels_last=False))
    assert io_of(other.body)[0]["stem"] == io_of(other.controller)[1]["stem"] == ([n, c, t, h, w], f32)


def test_kept_counts_the_masks_gate_by_gate(gated, clips):
    """Where masks of one shape are counted together the rows are in the order of the gates all the same."""
    gated.controller.calibrate([0.1, 0.5, 1.0], [0.2, 0.4, 1.0])
    for dtype, last in itertools.product(("bool", "float32"), (True, False)):
        made = graphs_from_model(gated, profiles.load("cpu")._replace(mask_dtype=dtype, channels_last=last))
        rung = parity.OnnxRung("functions", made, None, parity.residual_tensors(made))
        stem, tau = rung._controller.run(["stem", "tau"], {"clip": clips[0], "budget": np.array([0.4], np.float32)})
        masks = [name for _, three in sorted({layer.gate: layer.masks for layer in made.layers}.items())
                 for name in three]
        kept, *found = rung._body.run(["kept", *masks], {"stem": stem, "tau": tau})
        assert kept.dtype == np.int64 and len({tuple(row) for row in kept}) > 1
        np.testing.assert_array_equal(kept.ravel(), [np.count_nonzero(mask) for mask in found])
        assert sum(n.op_type == "ReduceSum" for n in made.body.graph.node) < (1 if last else 3 * len(gated.plan.sites))


@pytest.mark.parametrize("channels_last, body, kernels", [
    (True, {"ActivationGateCl", "GatedConv3dCl", "GatedConv3dAddCl", "MaxPool3dCl"},
     {"ToChannelsLast", "GatedConv3dCl", "Thresholds"}),
    (False, {"ActivationGate", "GatedConv3d", "GatedConv3dAdd"}, set())])
def test_dance_ops_are_where_they_belong_and_each_is_a_function_too(gated, channels_last, body, kernels):
    graphs = graphs_from_model(gated, profiles.load("cpu")._replace(channels_last=channels_last))
    assert (graphs.controller_kernels is not None) == channels_last
    for model, expected in ((graphs.body, body), (graphs.controller_kernels, kernels), (graphs.controller, set()),
                            (graphs.dense, set())):
        if model is None:
            continue
        used = {n.op_type for n in model.graph.node if n.domain == "dance"}
        assert {plain(op_type) for op_type in used} == expected
        assert {f.name for f in model.functions} == used


def plain(op_type):
    return op_type.replace("Magnitudes", "").replace("Counts", "")


def test_a_gate_reads_the_magnitudes_of_whatever_makes_its_activation(graphs):
    made = {tensor: node for node in graphs.body.graph.node for tensor in node.output}
    gates = [node for node in graphs.body.graph.node if node.op_type in names.GATES]
    written = {node.output[0] for node in graphs.body.graph.node if node.op_type in names.WITH_MAGNITUDES.values()}
    inside = [gate.input[0] for gate in gates if gate.input[0] != "stem"]
    assert written == {x for x in inside if made[x].domain == "dance"} and len(written) > 1
    for gate in gates:
        if gate.input[0] in written:
            assert gate.op_type == names.ACTIVATION_GATE_MAGNITUDES_CL
            assert list(gate.input[2:]) == list(made[gate.input[0]].output[1:])
        else:
            assert gate.op_type == names.ACTIVATION_GATE_COUNTS_CL and len(gate.input) == 2
    stem, thresholds = graphs.controller_kernels.graph.node[-2:]
    assert stem.output[0] == "stem" and thresholds.output == ["tau"]
    assert list(stem.output[1:]) == list(thresholds.input[:2])


def test_a_channels_last_bundle_converts_the_clip_only(graphs):
    controller, body = ([plain(n.op_type) for n in g.graph.node] for g in (graphs.controller_kernels, graphs.body))
    assert controller.count("ToChannelsLast") == 1 and "ToChannelsLast" not in body
    assert not {"Transpose", "Conv"} & {*controller, *body}


@pytest.mark.parametrize("mask_dtype", ["bool", "float32"])
def test_the_layout_of_the_body_changes_nothing(gated, clips, mask_dtype):
    profile = profiles.load("cpu")._replace(mask_dtype=mask_dtype, channels_last=False)
    graphs = graphs_from_model(gated, profile)
    plain = parity.ladder(gated, graphs, clips, 0.5, library_path() if mask_dtype == "bool" else None)
    last = parity.ladder(gated, graphs_from_model(gated, profile._replace(channels_last=True)), clips, 0.5, None)
    assert all(a.same_masks(b) for a, b in zip(plain, last))


def test_norms_adds_and_relus_are_absorbed(graphs):
    ops = [plain(n.op_type) for n in graphs.body.graph.node]
    # one batch norm stands behind a subtraction and cannot be folded; the residual adds and ReLUs all can
    assert (ops.count("Mul"), ops.count("Add")) == (2 + 1, 1)  # two of them SiLU's and the sigmoid's
    assert ops.count("BatchNormalization") == 0 and ops.count("Relu") == 0
    assert ops.count("GatedConv3dAddCl") == 2


def test_shortcut_shares_the_gate_of_its_block(graphs, gated):
    for site in gated.plan.sites[:3:2]:
        assert len(site.convs) == 2
    masks = {layer.fused.name: layer.masks for layer in graphs.layers}
    assert masks["block2.conv1.0"] == masks["block2.shortcut.0"] != masks["block2.conv2.0"]


def test_dense_and_open_body_equal_torch(graphs, gated, clips):
    parity.check_dense(gated, graphs, clips[0])
    rung = parity.OnnxRung("functions", graphs, None, parity.residual_tensors(graphs))
    run = rung.run(clips[0], 1.0)
    assert np.all(run.tau == 0) and all(m.all() for layer in run.layers for m in layer.masks)
    dense = onnxruntime.InferenceSession(graphs.dense.SerializeToString()).run(None, {"clip": clips[0]})[0]
    assert np.linalg.norm(run.logits - dense) <= parity.LOGITS_TOLERANCE * np.linalg.norm(dense)


@pytest.mark.parametrize("budget", [0.05, 0.4, 0.93, 1.0])
def test_controller_equals_torch(graphs, gated, clips, budget):
    gated.controller.calibrate([0.1, 0.5, 1.0], [0.2, 0.4, 1.0])
    with torch.no_grad():
        gated.controller.output.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    graphs = graphs_from_model(gated, profiles.load("cpu"))
    run = parity.torch_rung(gated, graphs, clips[0], budget)
    stem, tau = parity.session(graphs.controller, None).run(
        None, {"clip": clips[0], "budget": np.array([budget], np.float32)})
    scale = np.abs(run.stem).max()
    stem = np.transpose(stem, TO_CHANNELS_FIRST)
    assert np.abs(stem - run.stem).max() <= 64 * np.finfo(np.float32).eps * scale
    assert np.abs(tau - run.tau).max() <= 1e-5


def test_black_clip_gives_finite_thresholds(graphs, clips):
    stem, tau = parity.session(graphs.controller, None).run(
        None, {"clip": np.zeros_like(clips[0]), "budget": np.array([0.5], np.float32)})
    assert np.isfinite(tau).all()


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_other_opsets_compute_the_same(gated, clips, opset):
    graphs = graphs_from_model(gated, profiles.load("cpu")._replace(opset=opset))
    parity.ladder(gated, graphs, clips, 0.5, None)


def test_float_masks_compute_the_same(gated, clips):
    graphs = graphs_from_model(gated, profiles.load("cpu")._replace(mask_dtype="float32"))
    assert all(i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for i in graphs.masks)
    parity.ladder(gated, graphs, clips, 0.5, None)


def small_net(layer: nn.Module, channels: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), layer,
                         nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, 4))


@pytest.mark.parametrize("layer", [
    nn.ReLU6(), nn.LeakyReLU(0.2), nn.GELU(), nn.Tanh(), nn.SiLU(), nn.Dropout3d(), nn.AvgPool3d(2, padding=1),
    nn.AvgPool3d(2, padding=1, count_include_pad=False), nn.MaxPool3d(3, 2, 1, ceil_mode=True),
    nn.AdaptiveAvgPool3d((2, 6, 3)), nn.BatchNorm3d(8), nn.Conv3d(8, 8, 3, padding="valid", dilation=(1, 2, 2)),
    nn.Conv3d(8, 8, 1, groups=8), nn.MaxPool3d((1, 3, 2), 2, (0, 1, 1)), nn.MaxPool3d(2, dilation=(1, 2, 1)),
    nn.BatchNorm3d(8, affine=False)], ids=lambda layer: type(layer).__name__)
def test_layers_are_lowered_exactly(layer, clips):
    torch.manual_seed(0)
    model = gate_model(small_net(layer), SHAPE).eval()
    with torch.no_grad():
        model.controller.output.bias.fill_(0.3)
    cut = [np.ascontiguousarray(clip[:, :, :4, :12, i * 6:12 + i * 6]) for i, clip in enumerate(clips)]
    for channels_last in (False, True):
        graphs = graphs_from_model(model, profiles.load("cpu")._replace(channels_last=channels_last))
        parity.ladder(model, graphs, cut, 0.5, library_path())


class Wired(nn.Module):
    """A convolution whose output goes through `wire` to a linear layer."""

    def __init__(self, wire):
        super().__init__()
        self.wire = wire
        self.stem, self.a, self.b = (nn.Conv3d(c, 8, 3, padding=1) for c in (3, 8, 8))

    def forward(self, x):
        return self.wire(self, self.a(torch.relu(self.stem(x))))


@pytest.mark.parametrize("wire", [
    lambda m, y: torch.cat([y, m.b(y)], 1).mean((2, 3, 4)),
    lambda m, y: torch.cat([m.b(y), y * 2], dim=-2).mean((2, 3, 4)),
    lambda m, y: m.b(y).mean([-1, -2, -3, 0]).view(1, 8),
    lambda m, y: m.b(y * y.mean((2, 3, 4), keepdim=True)).flatten(1),
    lambda m, y: (m.b(y).mean((1, 3)) + 1).view(1, -1), lambda m, y: m.b(y).flatten(1).view(1, -1, 12).mean(1),
    lambda m, y: torch.softmax(m.b(y), 1).mean((2, 3, 4)), lambda m, y: (m.b(y) * y.mean(2, keepdim=True)).view(1, -1)],
    ids=["cat channels", "cat H", "mean", "scaled", "mean of two axes", "views", "softmax", "mean over time"])
def test_functions_on_channels_last_tensors_mean_the_same(wire, clips):
    torch.manual_seed(0)
    model = threshold(gate_model(Wired(wire).eval(), SHAPE), 0.3).eval()
    cut = [np.ascontiguousarray(clip[:, :, :4, :12, i * 6:12 + i * 6]) for i, clip in enumerate(clips)]
    parity.ladder(model, graphs_from_model(model, profiles.load("cpu")), cut, 0.5, library_path())


class Inverted(nn.Module):
    """1x1x1 up, depthwise, swish or none, 1x1x1 down; `wire` says what lies between and who else reads."""

    def __init__(self, wire, kernel=1):
        super().__init__()
        self.wire, self.pass_on = wire, nn.Identity()
        self.stem, self.down = nn.Conv3d(3, 8, 3, padding=1), nn.Conv3d(24, 8, 1)
        self.up = nn.Conv3d(8, 24, kernel, padding=kernel // 2, bias=False)
        self.norm, self.slide = nn.BatchNorm3d(24), nn.Conv3d(24, 24, 3, (1, 2, 2), 1, groups=24)

    def forward(self, x):
        return self.down(self.wire(self, self.norm(self.up(torch.relu(self.stem(x)))))).mean((2, 3, 4))


@pytest.mark.parametrize("wire, kernel, op", [
    (lambda m, y: F.silu(m.pass_on(m.slide(torch.relu(y)))), 1, "ExpandDepthwiseSwishCl"),
    (lambda m, y: torch.relu(m.slide(y)), 1, "ExpandDepthwiseCl"),
    (lambda m, y: (lambda s: F.silu(s) + s)(m.slide(y)), 1, "ExpandDepthwiseCl"),
    (lambda m, y: m.slide(y) * y.mean((2, 3, 4), keepdim=True), 1, None),
    (lambda m, y: m.slide(torch.sigmoid(y)), 1, None), (lambda m, y: m.slide(y), 3, None)],
    ids=["swish", "relu", "swish and its operand", "map read twice", "sigmoid between", "3x3x3"])
def test_an_expansion_and_its_depthwise_convolution_become_one_op(wire, kernel, op, clips):
    torch.manual_seed(0)
    net = Inverted(wire, kernel)
    randomize_norms(net)
    model = threshold(gate_model(net.eval(), SHAPE), 0.3).eval()
    graphs = graphs_from_model(model, profiles.load("cpu"))
    assert [n.op_type for n in graphs.body.graph.node if n.op_type.startswith("Expand")] == ([op] if op else [])
    cut = [np.ascontiguousarray(clip[:, :, :4, :12, i * 6:12 + i * 6]) for i, clip in enumerate(clips)]
    parity.ladder(model, graphs, cut, 0.5, library_path())


@pytest.mark.parametrize("wire, fused", [
    (lambda m, y: m.b(F.silu(y * y.mean((2, 3, 4), keepdim=True))), 1),
    (lambda m, y: m.b(F.silu(torch.sigmoid(y.mean((2, 3, 4), keepdim=True)) * y)), 1),
    (lambda m, y: m.b(F.silu(y * y)), 0), (lambda m, y: m.b(F.silu(y * 2)), 0),
    (lambda m, y: m.b(F.silu(p := y * y.mean((2, 3, 4), keepdim=True)) + p), 0)],
    ids=["scaled", "the other way round", "squared", "by a number", "product read twice"])
def test_an_excitation_and_its_swish_become_one_op(wire, fused, clips):
    torch.manual_seed(0)
    net = Wired(lambda m, y: wire(m, y).flatten(1).view(1, 8, -1).mean(2))
    model = threshold(gate_model(net.eval(), SHAPE), 0.3).eval()
    graphs = graphs_from_model(model, profiles.load("cpu"))
    assert sum(node.op_type == "ScaledSwishCl" for node in graphs.body.graph.node) == fused
    assert {f.name for f in graphs.body.functions} >= {"ScaledSwishCl"} if fused else True
    cut = [np.ascontiguousarray(clip[:, :, :4, :12, i * 6:12 + i * 6]) for i, clip in enumerate(clips)]
    parity.ladder(model, graphs, cut, 0.5, library_path())


@pytest.mark.parametrize("layer, named", [
    (nn.Softplus(), "Softplus"), (nn.AdaptiveAvgPool3d((3, 5, 5)), "windows differ"),
    (nn.AvgPool3d(2, ceil_mode=True), "ceil_mode"),
    (nn.BatchNorm3d(8, track_running_stats=False), "running statistics")])
def test_what_cannot_be_exact_is_refused_by_name(layer, named):
    model = gate_model(small_net(layer), SHAPE).eval()
    with pytest.raises(InputError, match=r"layer '3'.*" + named):
        graphs_from_model(model, profiles.load("cpu"))


def test_reflect_padding_is_refused():
    with pytest.raises(InputError, match="padding_mode 'reflect'"):
        gate_model(small_net(nn.Conv3d(8, 8, 3, padding=1, padding_mode="reflect")), SHAPE)


class Odd(nn.Module):
    """Three convolutions with names of our own graphs, wired as `wire` says."""

    def __init__(self, wire):
        super().__init__()
        self.wire = wire
        self.stem, self.tau, self.logits = (nn.Conv3d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.kept, self.inplace, self.head = nn.ReLU(), nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, x, scale=2.0):
        return self.head(self.wire(self, self.kept(self.stem(x)), scale).mean((2, 3, 4)))


def odd_graphs(wire):
    torch.manual_seed(0)
    model = threshold(gate_model(Odd(wire).eval(), SHAPE), 0.3).eval()
    return model, graphs_from_model(model, profiles.load("cpu"))


@pytest.mark.parametrize("wire", [
    lambda m, x, _: m.logits(m.kept(m.tau(input=x))), lambda m, x, _: m.logits(m.tau(x) + x) + x,
    lambda m, x, _: m.logits(m.inplace(m.tau(x) + x))], ids=["keyword", "residual", "in place"])
def test_layers_may_have_the_names_of_our_tensors(wire, clips):
    model, graphs = odd_graphs(wire)
    cut = [np.ascontiguousarray(clip[:, :, :4, :12, i * 6:12 + i * 6]) for i, clip in enumerate(clips)]
    parity.ladder(model, graphs, cut, 0.5, None)
    assert [o.name for o in graphs.body.graph.output] == ["logits", "kept"]
    assert [o.name for o in graphs.controller.graph.output] == ["stem", "tau"]


def changed_under_its_reader(m, x, _):
    y = m.tau(x)
    return m.logits(m.inplace(y)) + y


@pytest.mark.parametrize("wire, said", [
    (changed_under_its_reader, "'inplace' changes the output of 'tau' in place, and 'add' reads that later"),
    (lambda m, x, scale: m.logits(m.tau(x)) * scale, "input 'scale'"),
    (lambda m, x, _: m.logits(torch.cat([m.tau(x)], axis=1)), "'cat': an argument other than dim"),
    (lambda m, x, _: m.logits(m.tau(x) * x.mean((2, 3, 4), keepdims=True)), "'mean': an argument other than dim")])
def test_what_would_compute_something_else_is_refused(wire, said):
    with pytest.raises(InputError, match=said):
        odd_graphs(wire)
