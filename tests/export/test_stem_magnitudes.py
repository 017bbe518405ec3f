"""The stem's magnitudes go from graph to graph as they are loaded, and the answers stay what they are without that."""
import numpy as np
import pytest
import torch

from dance_deploy.bundle import open_bundle
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.export.untrained import untrained_checkpoint
from dance_deploy.ops import names
from dance_deploy.runtime import stem_magnitudes
from dance_deploy.runtime.kernels import HOW_TO_BUILD, library_path
from dance_deploy.runtime.runner import Runner
from dance_deploy.runtime.trt.onnx_file import Model

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


def test_the_first_gate_reads_what_the_controller_measured(bundle):
    controller, body = (Model(b"".join(graph)) for graph in stem_magnitudes.hand_on(*graphs_of(bundle)))
    gate = next(node for node in body.nodes if node.op_type in names.GATES)
    assert gate.op_type == names.ACTIVATION_GATE_MAGNITUDES_CL and tuple(gate.inputs[2:]) == stem_magnitudes.NAMES
    assert list(controller.outputs) == ["stem", "tau", *stem_magnitudes.NAMES]
    assert list(body.inputs) == ["stem", "tau", *stem_magnitudes.NAMES]
    stem = next(node for node in controller.nodes if node.outputs[0] == "stem")
    thresholds = next(node for node in controller.nodes if node.op_type == names.THRESHOLDS)
    assert stem.outputs[1:] == thresholds.inputs[:2] == list(stem_magnitudes.NAMES)


def test_answers_are_those_without_it(bundle, runner, monkeypatch):
    monkeypatch.setattr(stem_magnitudes, "hand_on", lambda *_: None)
    with Runner(open_bundle(bundle), threads=1) as plain:
        monkeypatch.undo()
        assert runner.backend._hands_on and not plain.backend._hands_on
        for seed in range(3):
            clip = clip_of(runner.manifest, seed)
            one, other = runner.infer(clip, BUDGET), plain.infer(clip, BUDGET)
            np.testing.assert_array_equal(one.kept, other.kept)
            np.testing.assert_allclose(one.logits, other.logits, rtol=1e-5, atol=1e-6)
            assert 0 < one.kept[0, 2] < one.masks[0].feature_keep.size, "the gate would pass with any magnitudes"


def test_a_stem_from_elsewhere_is_measured_by_its_own_numbers(runner):
    """Never by the last controller's: not a copy, not another one, nor the same once more."""
    clips = [clip_of(runner.manifest, 0), 3 * np.abs(clip_of(runner.manifest, 1))]
    stems, taus = zip(*(runner.backend.run_controller(clip, BUDGET) for clip in clips))
    first = runner.backend.run_body(np.array(stems[0]), taus[0])
    for stem in (stems[0], np.array(stems[0])):
        again = runner.backend.run_body(stem, taus[0])
        np.testing.assert_array_equal(again.kept, first.kept)
        np.testing.assert_allclose(again.logits, first.logits, rtol=1e-6)
    straight = runner.infer(clips[0], BUDGET)
    np.testing.assert_array_equal(straight.kept, first.kept)
    other = runner.backend.run_body(stems[1], taus[1])
    assert any((a.feature_keep != b.feature_keep).any() for a, b in zip(other.masks, first.masks))
    with pytest.raises(ValueError, match="read-only"):
        stems[0][...] = 0


@pytest.mark.parametrize("damaged", [b"", b"\x0f", b"no graph at all"])
def test_what_is_no_graph_stays_as_it_is(bundle, damaged):
    controller, body = graphs_of(bundle)
    assert stem_magnitudes.hand_on(damaged, body) is None
    assert stem_magnitudes.hand_on(controller, damaged) is None


def test_a_controller_of_standard_ops_measures_nothing(bundle):
    opened = open_bundle(bundle)
    assert stem_magnitudes.hand_on(opened.read("controller.onnx"), opened.read("body.onnx")) is None
