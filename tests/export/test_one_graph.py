"""Controller and body are joined as they are loaded, and the answers stay what the two of them give."""
import numpy as np
import pytest
import torch

from dance_deploy.bundle import open_bundle
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.export.untrained import untrained_checkpoint
from dance_deploy.ops import names
from dance_deploy.runtime import one_graph
from dance_deploy.runtime.kernels import HOW_TO_BUILD, has_bf16, library_path
from dance_deploy.runtime.runner import Runner
from dance_deploy.runtime.trt.onnx_file import Model, renamed_tensor
from dance_deploy.runtime.trt.wire import message

BUDGET = 0.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stem") / "bundle"
    torch.manual_seed(0)
    bundle_from_checkpoint(untrained_checkpoint("small", classes=5), folder)
    return folder


@pytest.fixture
def runner(bundle):
    if library_path() is None:
        pytest.skip("the kernels are not built; " + HOW_TO_BUILD)
    with Runner(open_bundle(bundle), threads=1) as made:
        yield made


def clip_of(manifest, seed):
    return np.random.default_rng(seed).standard_normal(manifest.clip.shape).astype(np.float32)


def graphs_of(bundle):
    opened = open_bundle(bundle)
    return opened.read("controller_kernels.onnx"), opened.read("body.onnx")


def joined(*graphs):
    return Model(b"".join(one_graph.joined(*graphs)))


def test_one_graph_from_clip_to_logits(bundle):
    controller, body = map(Model, graphs_of(bundle))
    whole = joined(*graphs_of(bundle))
    assert list(whole.inputs) == ["clip", "budget"]
    assert list(whole.outputs) == [*body.outputs, one_graph.CLOCK]
    assert [node.name for node in whole.nodes] == [node.name for node in controller.nodes + body.nodes]
    made = [name for node in whole.nodes for name in node.outputs]
    assert len(made) == len(set(made)) and not set(made) & set(whole.weights)
    assert {name for node in whole.nodes for name in node.inputs if name} <= {*made, *whole.weights, *whole.inputs}


def test_the_first_gate_reads_what_the_controller_measured(bundle):
    whole = joined(*graphs_of(bundle))
    stem = next(node for node in whole.nodes if node.outputs[0] == "stem")
    gate = next(node for node in whole.nodes if node.op_type in names.GATES)
    thresholds = next(node for node in whole.nodes if node.op_type == names.THRESHOLDS_CLOCK)
    assert gate.op_type == names.ACTIVATION_GATE_MAGNITUDES_CL
    assert gate.inputs[2:] == stem.outputs[1:] == thresholds.inputs[:2] and len(gate.inputs) == 4


def test_answers_are_those_of_the_two_graphs(runner):
    for seed in range(3):
        clip = clip_of(runner.manifest, seed)
        one, other = runner.infer(clip, BUDGET), runner.backend.run_body(*runner.backend.run_controller(clip, BUDGET))
        np.testing.assert_array_equal(one.kept, other.kept)
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-5, atol=1e-6)
        for masks, others in zip(one.masks, other.masks):
            for mask, wanted in zip(masks, others):
                np.testing.assert_array_equal(mask, wanted)
        assert 0 < one.kept[0, 2] < one.masks[0].feature_keep.size, "the gate would pass with any magnitudes"


def test_results_outlive_the_next_clip(runner):
    first, later = (clip_of(runner.manifest, seed) for seed in (0, 1))
    result = runner.infer(first, BUDGET)
    logits, masks = result.logits.copy(), result.masks[0].feature_keep.copy()
    assert (runner.infer(3 * np.abs(later), BUDGET).logits != logits).any()
    np.testing.assert_array_equal(result.logits, logits)
    np.testing.assert_array_equal(result.masks[0].feature_keep, masks)


def test_the_controllers_time_is_told_apart(runner):
    runner.infer(clip_of(runner.manifest, 0), BUDGET)
    latency = runner.infer(clip_of(runner.manifest, 1), BUDGET).latency_ms
    assert latency.controller > 0 and latency.body > 0
    assert latency.controller + latency.body == pytest.approx(latency.total)


def test_where_clocks_differ_all_time_is_the_bodys(runner, monkeypatch):
    class Elsewhere:
        def run(self, *arguments):
            clock, *found = session.run(*arguments)
            return [clock - 10**15, *found]

    session = runner.backend._whole
    monkeypatch.setattr(runner.backend, "_whole", Elsewhere())
    latency = runner.infer(clip_of(runner.manifest, 0), BUDGET).latency_ms
    assert 0 <= latency.controller < latency.body <= latency.total


def test_bfloat16_is_for_the_body_alone(bundle):
    path = library_path()
    if path is None or not has_bf16(path):
        pytest.skip("no bfloat16 here")
    with Runner(open_bundle(bundle), threads=1, precision="bf16") as half:
        assert half.backend._whole is None
        assert np.isfinite(half.infer(clip_of(half.manifest, 0), BUDGET).logits).all()


def test_tensors_of_one_name_stay_two(bundle):
    """A weight and a tensor of the body that are called as ones of the controller."""
    controller, body = graphs_of(bundle)
    first, rest = Model(controller), Model(body)
    taken = [name for name in first.weights][0], first.nodes[0].outputs[0]
    weight, tensor = list(rest.weights)[0], next(n.outputs[0] for n in rest.nodes if n.outputs[0] not in rest.outputs)
    new = dict(zip((weight, tensor), taken))
    for node in rest.nodes:
        node.inputs = [new.get(name, name) for name in node.inputs]
        node.outputs = [new.get(name, name) for name in node.outputs]
    rest.weights = {new.get(name, name): renamed_tensor(data, new.get(name, name))
                    for name, data in rest.weights.items()}
    whole, plain = joined(controller, rest.to_bytes()), joined(controller, body)
    assert len(whole.weights) == len(plain.weights) and len(whole.nodes) == len(plain.nodes)
    made = [name for node in whole.nodes for name in node.outputs]
    assert len(made) == len(set(made)) and not set(made) & set(whole.weights)
    if library_path() is None:
        pytest.skip("the kernels are not built; " + HOW_TO_BUILD)
    clip = clip_of(open_bundle(bundle).manifest, 0)
    answers = [run_graph(model, clip) for model in (whole, plain)]
    np.testing.assert_array_equal(*answers)


def run_graph(model, clip):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library_path())
    session = onnxruntime.InferenceSession(model.to_bytes(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"clip": clip, "budget": np.array([BUDGET], np.float32)})[0]


def test_other_operator_sets_are_not_joined(bundle):
    controller, body = graphs_of(bundle)
    assert one_graph.joined(controller, body + message([(8, message([(1, ""), (2, 3)]))])) is None


@pytest.mark.parametrize("damaged", [b"", b"\x0f", b"no graph at all"])
def test_what_is_no_graph_is_not_joined(bundle, damaged):
    controller, body = graphs_of(bundle)
    assert one_graph.joined(damaged, body) is None
    assert one_graph.joined(controller, damaged) is None


def test_a_controller_of_standard_ops_is_not_joined(bundle):
    opened = open_bundle(bundle)
    assert one_graph.joined(opened.read("controller.onnx"), opened.read("body.onnx")) is None
