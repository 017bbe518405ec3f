"""Controller and body are joined as they are loaded, and the answers stay what the two of them give."""
import json

import numpy as np
import pytest
import torch

from dance_deploy.bundle import open_bundle
from dance_deploy.errors import OperationError
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.export.untrained import untrained_checkpoint
from dance_deploy.ops import names
from dance_deploy.runtime import one_graph
from dance_deploy.runtime.kernels import HOW_TO_BUILD, has_bf16, library_path
from dance_deploy.runtime.onnxruntime_backend import register, session_options
from dance_deploy.runtime.runner import Runner
from dance_deploy.runtime.selftest import golden_from_bundle, run_checks
from dance_deploy.runtime.trt.onnx_file import Model, Node, renamed_tensor
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


OWN_NETWORK = """
import torch
from torch import nn
from dance_deploy.geometry import ClipSpec

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first = nn.Conv3d(3, 4, 3, (1, 2, 2), 1)
        self.pool = nn.MaxPool3d(3, 1, 1)
        self.clip = nn.ModuleDict({"last": nn.Conv3d(4, 6, 3, 1, 1)})
        self.fc = nn.Linear(10, classes)

    def forward(self, x):
        x = torch.relu(self.first(x))
        free = torch.sigmoid(self.pool(torch.sigmoid(self.pool(x))))
        gated = torch.relu(self.clip["last"](x))
        return self.fc(torch.cat([gated.mean((2, 3, 4)), free.mean((2, 3, 4))], 1))

def net(classes):
    return Net(classes)

net.clip = ClipSpec(frames=4, stride=1, resize=(16, 16), size=(16, 16), mean=(0.4,) * 3, std=(0.2,) * 3)
"""


@pytest.fixture(scope="module")
def own_bundle(tmp_path_factory):
    """Of a network whose layers are called as things of the controller, and with layers that wait for no gate."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN_NETWORK)
    torch.manual_seed(0)
    own = f"{folder / 'own.py'}:net"
    bundle_from_checkpoint(untrained_checkpoint(own, classes=3), folder / "bundle", own=own)
    return folder / "bundle"


def test_layers_may_be_called_as_things_of_the_controller(own_bundle, caplog):
    graphs = graphs_of(own_bundle)
    controller, body = ({node.name for node in Model(graph).nodes} for graph in graphs)
    assert controller & body, "the network does not test anything"
    named = [node.name for node in joined(*graphs).nodes]
    assert len(named) == len(set(named)) and body <= set(named)
    if library_path() is None:
        pytest.skip("the kernels are not built; " + HOW_TO_BUILD)
    opened = open_bundle(own_bundle)
    with Runner(opened, dense=True, threads=1) as runner:
        assert runner.backend._whole is not None and not caplog.records
        checks = run_checks(runner, golden_from_bundle(opened))
    assert len(checks) == 9 and all(check.passed for check in checks)


def test_nothing_of_the_body_runs_before_the_thresholds_are_there(own_bundle, tmp_path):
    """Or the time that is told as the controller's is the body's."""
    if library_path() is None:
        pytest.skip("the kernels are not built; " + HOW_TO_BUILD)
    import onnxruntime
    options = session_options(onnxruntime, 1)
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    register(options, library_path())
    controller, body = graphs_of(own_bundle)
    session = onnxruntime.InferenceSession(b"".join(one_graph.joined(controller, body)), options,
                                           providers=["CPUExecutionProvider"])
    clip = clip_of(open_bundle(own_bundle).manifest, 0)
    session.run(["logits", one_graph.CLOCK], {"clip": clip, "budget": np.array([BUDGET], np.float32)})
    with open(session.end_profiling()) as file:
        ran = [event["args"]["op_name"] for event in json.load(file) if "op_name" in event.get("args", {})]
    before = ran[:ran.index(names.THRESHOLDS_CLOCK)]
    assert "Sigmoid" in ran and set(before) <= {node.op_type for node in Model(controller).nodes}


def test_the_bodys_tensors_keep_their_names_for_they_may_be_asked_for(bundle):
    controller, body = graphs_of(bundle)
    first = Model(controller)
    taken = next(name for node in first.nodes for name in node.outputs if name not in ("stem", "tau"))
    first.rename({taken: "gate0.frame_keep"})
    whole = joined(first.to_bytes(), body)
    maker = whole.producers()["gate0.frame_keep"]
    assert maker.op_type in names.GATES
    made = [name for node in whole.nodes for name in node.outputs]
    assert len(made) == len(set(made))


def test_a_tensor_of_the_body_called_as_an_input(bundle):
    controller, body = graphs_of(bundle)
    rest = Model(body)
    inner = next(name for node in rest.nodes for name in node.outputs if name not in rest.outputs)
    rest.rename({inner: "clip"})
    whole = joined(controller, rest.to_bytes())
    assert list(whole.inputs) == ["clip", "budget"] and "clip" not in whole.made()
    same = [[node.op_type for node in model.nodes] for model in (whole, joined(controller, body))]
    assert same[0] == same[1]


def test_outputs_that_are_left_out_stay_without_a_name(bundle):
    graphs = [Model(graph) for graph in graphs_of(bundle)]
    for model in graphs:
        model.nodes.append(Node("Dropout", [model.nodes[0].outputs[0], "", ""], [f"{len(model.nodes)}.dropped", ""]))
    whole = joined(*(model.to_bytes() for model in graphs))
    found = [node for node in whole.nodes if node.op_type == "Dropout"]
    assert [node.inputs[1:] + node.outputs[1:] for node in found] == 2 * [["", "", ""]]


def test_where_onnxruntime_refuses_one_graph_two_run_and_a_warning_says_so(bundle, runner, monkeypatch, caplog):
    """Kernels of an earlier version lack an op of the joined graph, for example."""
    opened = open_bundle(bundle)
    clip = clip_of(opened.manifest, 0)
    wanted = runner.infer(clip, BUDGET)
    monkeypatch.setattr(names, "THRESHOLDS_CLOCK", "AnOpOfTomorrow")
    with Runner(opened, dense=True, threads=1) as two:
        assert two.backend._whole is None
        assert len(caplog.records) == 1 and HOW_TO_BUILD in caplog.text and "AnOpOfTomorrow" in caplog.text
        found = two.infer(clip, BUDGET)
        assert len(run_checks(two, golden_from_bundle(opened))) == 6, "what is the same is not compared with itself"
    np.testing.assert_array_equal(found.kept, wanted.kept)
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-5, atol=1e-6)


def test_taken_apart_it_runs_on(runner):
    clip = clip_of(runner.manifest, 0)
    whole = runner.infer(clip, BUDGET)
    assert runner.backend.take_apart() and not runner.backend.take_apart()
    np.testing.assert_array_equal(runner.infer(clip, BUDGET).kept, whole.kept)


def test_what_is_closed_or_not_loaded_says_so(bundle):
    opened = open_bundle(bundle)
    clip = clip_of(opened.manifest, 0)
    closed = Runner(opened, threads=1)
    closed.close()
    with Runner(opened, threads=1, gated=False, dense=True) as dense:
        for runner in (closed, dense):
            with pytest.raises(OperationError, match="not loaded, or it was closed"):
                runner.infer(clip, BUDGET)
    with pytest.raises(OperationError, match="dense.onnx cannot be run"):
        closed.infer_dense(clip)


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
