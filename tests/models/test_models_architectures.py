"""Every reference backbone: published names and shapes, published cost, forward pass, tracing, seeded start."""
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from dance_deploy import models
from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry

GOLDEN = Path(__file__).parent / "golden"
NAMES = list(models.ARCHITECTURES)
FLOAT16_MAX = torch.finfo(torch.float16).max


def without_memory(name, classes):
    """The network with shapes only."""
    with torch.device("meta"):
        return models.build(name, classes)


def golden_shapes(name):
    lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    assert lines[0].startswith("# format 1:")
    return [line for line in lines if not line.startswith("#")]


def test_the_names_on_the_command_line():
    assert NAMES == ["small", "c3d", "r3d18", "mc3_18", "r2plus1d18", "x3d_s"]
    assert all(name == architecture.name for name, architecture in models.ARCHITECTURES.items())


@pytest.mark.parametrize("name, classes", [
    ("small", 10), ("c3d", 487), ("r3d18", 400), ("mc3_18", 400), ("r2plus1d18", 400), ("x3d_s", 400)])
def test_state_dict_has_the_golden_names_and_shapes_in_order(name, classes):
    state = without_memory(name, classes).state_dict()
    ours = [f"{key} {str(list(tensor.shape)).replace(' ', '')}" for key, tensor in state.items()]
    assert ours == golden_shapes(name)


@pytest.mark.parametrize("name, published", [("r3d18", 33371472), ("mc3_18", 11695440), ("r2plus1d18", 31505325)])
def test_number_of_weights_is_the_published_one(name, published):
    assert sum(p.numel() for p in without_memory(name, 400).parameters()) == published


def counted(name, classes):
    """(MACs of every tap, MACs as cost.py counts them) of one clip."""
    model = without_memory(name, classes).eval()
    traced = torch.fx.symbolic_trace(model)
    ShapeProp(traced).propagate(torch.empty(models.ARCHITECTURES[name].clip.shape, device="meta"))
    every_tap = without_padding = 0
    for node in traced.graph.nodes:
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            every_tap += module.weight.numel()
            without_padding += module.weight.numel()
        if isinstance(module, nn.Conv3d):
            geometry = Conv3dGeometry(
                node.target, module.in_channels, module.out_channels,
                tuple(node.args[0].meta["tensor_meta"].shape[2:]), module.kernel_size, module.stride,
                tuple(module.padding) * 2, module.dilation, module.groups)
            every_tap += math.prod(geometry.out_size) * module.weight.numel()
            without_padding += ConvCost(geometry).dense().macs
    return every_tap, without_padding


@pytest.mark.parametrize("name, published_gmacs, digits", [
    ("r3d18", 40.697, 3), ("mc3_18", 43.343, 3), ("r2plus1d18", 40.519, 3), ("x3d_s", 1.96, 2), ("c3d", 38.5, 1)])
def test_macs_are_the_published_ones_to_the_published_digit(name, published_gmacs, digits):
    every_tap, without_padding = counted(name, 487 if name == "c3d" else 400)
    assert round(every_tap / 1e9, digits) == published_gmacs
    assert without_padding < every_tap


def test_small_stays_small():
    assert 300e6 < counted("small", 10)[1] < 450e6
    model = without_memory("small", 10)
    full = [key for key, m in model.named_modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
    assert len([key for key in full if not key.startswith("stem")]) == 8


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def clips(name, batch):
    """Clips as wide as normalised video is: c3d reads pixel values, the others numbers of spread 1."""
    spec = models.ARCHITECTURES[name].clip
    noise = torch.randn((batch, *spec.shape[1:]), generator=torch.Generator().manual_seed(5))
    return noise * (0.225 / spec.std[0])


def test_untrained_network_answers_a_batch_and_fits_float16(name):
    model = models.build(name, 7, seed=0).eval()
    clip = clips(name, 2)
    before = clip.clone()
    largest = {}

    def watch(module, _, output):
        largest[module] = output.abs().max().item()

    for module in model.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            module.register_forward_hook(watch)
    with torch.no_grad():
        logits = model(clip)
    assert logits.shape == (2, 7) and logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(clip, before), "the network wrote into its input"
    assert max(largest.values()) < FLOAT16_MAX
    assert min(largest.values()) > 1e-3, "a layer is dead, so a parity check on it would show nothing"


def test_traced_graph_computes_the_same_and_shows_its_layers_as_modules(name):
    model = models.build(name, 3, seed=0).eval()
    traced = torch.fx.symbolic_trace(model)
    clip = clips(name, 1)
    if name != "c3d":  # whose linear layers fix the size; the others run faster on less
        clip = clip[:, :, :4, :32, :32]
    with torch.no_grad():
        assert torch.equal(traced(clip), model(clip))
    functions = {node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"}
    assert functions <= {"add", "mul", "flatten"}
    assert not [node for node in traced.graph.nodes if node.op == "call_method"]


def test_every_module_is_used_once_and_none_works_in_place(name):
    """Surgery and export address layers by module name; gates read the tensors between layers."""
    model = without_memory(name, 3)
    called = [n.target for n in torch.fx.symbolic_trace(model).graph.nodes if n.op == "call_module"]
    assert len(called) == len(set(called))
    leaves = {key for key, m in model.named_modules() if not list(m.children())}
    assert set(called) == leaves
    assert not [key for key, m in model.named_modules() if getattr(m, "inplace", False)]


@pytest.mark.parametrize("name, size", [
    ("small", (8, 48, 40)), ("r3d18", (5, 33, 25)), ("mc3_18", (4, 24, 32)), ("r2plus1d18", (5, 24, 32)),
    ("x3d_s", (3, 33, 65))])
def test_other_clip_sizes_run_and_every_weight_learns(name, size):
    model = models.build(name, 3, seed=0)
    clip = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(6))
    nn.functional.cross_entropy(model(clip), torch.tensor([0, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


def test_every_weight_of_c3d_learns():
    model = models.build("c3d", 3, seed=0)
    nn.functional.cross_entropy(model(clips("c3d", 1)), torch.tensor([1])).backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_seed_repeats_and_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (models.build("small", 4, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
    models.build("small", 4)
    assert not torch.equal(torch.get_rng_state(), before), "without a seed the global generator is used"


def test_small_starts_blind_to_colour():
    weight = models.build("small", 4, seed=0).stem[0].weight
    assert torch.equal(weight[:, 0], weight[:, 1]) and torch.equal(weight[:, 0], weight[:, 2])
    assert weight.std() > 0


def test_clip_specs_make_sense(name):
    spec = models.ARCHITECTURES[name].clip.check()
    assert spec.span / 25 < 4, "a clip is at most some seconds of video"


@pytest.mark.parametrize("arguments, words", [
    (("resnet50", 10), ["resnet50", "r3d18", "x3d_s"]), (("small", 0), ["num_classes", "0"])])
def test_wrong_arguments_are_refused_in_one_line(arguments, words):
    with pytest.raises(InputError) as caught:
        models.build(*arguments)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)
