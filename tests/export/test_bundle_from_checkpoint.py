"""Checkpoint -> bundle: what is in it, that it runs, and that a failure leaves the place as it was."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
import torch

from dance_deploy.bundle import open_bundle
from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError, OperationError
from dance_deploy.export import bundle_from_checkpoint as exporter
from dance_deploy.export.untrained import TAU, untrained_checkpoint
from dance_deploy.method.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint
from dance_deploy.ops import names
from dance_deploy.runtime import kernels
from dance_deploy.runtime.runner import Runner


@pytest.fixture(scope="module")
def checkpoint():
    return untrained_checkpoint("small", classes=7, seed=3)


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    return exporter.bundle_from_checkpoint(checkpoint, tmp_path_factory.mktemp("bundle") / "small")


def test_manifest_says_what_the_model_is(bundle, checkpoint):
    plan = model_from_checkpoint(checkpoint).plan
    manifest = open_bundle(bundle.path).manifest
    assert manifest.model == ("small", tuple(f"class{i}" for i in range(7)), False)
    assert manifest.clip == checkpoint.clip
    assert [g.name for g in manifest.gates] == [site.name for site in plan.sites]
    convs = [c for g in manifest.gates for c in g.convs] + list(manifest.ungated.convs)
    assert {c.name: c for c in convs} == plan.geometries
    assert sum(ConvCost(c).dense().macs for c in convs) + manifest.ungated.linear_macs == plan.dense_macs


def test_controller_and_statistics_are_below_one_percent(bundle):
    manifest = bundle.manifest
    convs = [c for g in manifest.gates for c in g.convs] + list(manifest.ungated.convs)
    dense = sum(ConvCost(c).dense().macs for c in convs) + manifest.ungated.linear_macs
    # a gate passes over its input twice: for frames and channels together, then for features
    gates = sum(2 * int(np.prod(g.input_size)) for g in manifest.gates)
    assert manifest.controller.macs + gates < 0.01 * dense


def test_runner_reproduces_the_golden_clip_and_torch(bundle, checkpoint, tmp_path):
    with np.load(os.path.join(bundle.path, "golden.npz"), allow_pickle=False) as golden:
        clip, logits, kept, budget = (golden[k] for k in ("clip", "logits", "kept", "budget"))
    with Runner(bundle) as runner:
        result = runner.infer(clip, float(budget[0]))
    np.testing.assert_array_equal(result.kept, kept)
    model = model_from_checkpoint(checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(clip), torch.from_numpy(budget))
        share = float(model.macs_share()[0])
    assert np.linalg.norm(result.logits.ravel() - expected.numpy().ravel()) <= 1e-4 * expected.norm()
    np.testing.assert_allclose(logits.ravel(), result.logits.ravel(), rtol=0, atol=1e-4 * np.abs(logits).max())
    assert result.macs / result.macs_dense == pytest.approx(share, rel=1e-6)


@pytest.fixture
def standing(bundle, tmp_path):
    """A copy of a good bundle, and its files' bytes."""
    import shutil

    folder = tmp_path / "standing"
    shutil.copytree(bundle.path, folder)
    return folder, {p.name: p.read_bytes() for p in folder.iterdir()}


def unchanged(folder, content):
    return {p.name: p.read_bytes() for p in folder.iterdir()} == content and [folder.name] == [
        p.name for p in folder.parent.iterdir() if p.name == folder.name or folder.name in p.name]


def test_a_failed_export_leaves_the_old_bundle(checkpoint, standing):
    folder, content = standing
    frozen = dataclasses.replace(checkpoint, samples=checkpoint.samples[:1].repeat(2, 1, 1, 1, 1))
    with pytest.raises(OperationError, match="frozen controller"):
        exporter.bundle_from_checkpoint(frozen, folder)
    assert unchanged(folder, content)


def test_an_interrupted_export_leaves_the_old_bundle(checkpoint, standing, tmp_path):
    folder, content = standing
    path = tmp_path / "small.pt"
    save_checkpoint(path, checkpoint)
    command = [sys.executable, "-c", "from dance_deploy.cli.export import main; main()", str(path), "-o", str(folder)]
    export = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in export.stderr:
        if "definition" in line:
            export.send_signal(signal.SIGINT)
            break
    rest = export.stderr.read()
    assert export.wait(timeout=60) == 1 and "interrupted" in rest and "Traceback" not in rest
    time.sleep(0.1)
    assert unchanged(folder, content)


def test_without_the_library_the_export_still_verifies(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "library_path", lambda: None)
    steps = []
    exporter.bundle_from_checkpoint(checkpoint, tmp_path / "b", progress=steps.append)
    assert not any("library" in step for step in steps) and (tmp_path / "b" / "manifest.json").is_file()


def test_the_library_is_a_rung_where_it_is_built(checkpoint, tmp_path):
    if kernels.library_path() is None:
        pytest.skip("the op library is not built: run make -C kernels")
    steps = []
    exporter.bundle_from_checkpoint(checkpoint, tmp_path / "b", progress=steps.append)
    assert any("library" in step for step in steps)


def test_functions_are_in_the_file_where_the_profile_wants_them(bundle, checkpoint, tmp_path):
    for_nano = exporter.bundle_from_checkpoint(checkpoint, tmp_path / "nano", profile="jetson-nano")
    bodies = [onnx.load_model_from_string(open_bundle(b.path).read("body.onnx")) for b in (bundle, for_nano)]
    used = {node.op_type for node in bodies[0].graph.node if node.domain == names.DOMAIN}
    assert len(used) >= 3 and sorted(f.name for f in bodies[0].functions) == sorted(used)
    assert not bodies[1].functions and bodies[1].ir_version == 7 and bodies[1].opset_import[0].version == 13


def test_weights_of_another_architecture_are_refused(checkpoint, tmp_path):
    path = tmp_path / "wrong.pt"
    save_checkpoint(path, dataclasses.replace(checkpoint, arch="r3d18"))
    with pytest.raises(InputError, match="does not fit architecture 'r3d18'"):
        model_from_checkpoint(load_checkpoint(path))


@pytest.mark.parametrize("arguments, said", [
    (["missing.pt", "-o", "b"], "no such checkpoint"), (["small", "-o", "b"], "add --untrained"),
    (["nonsense", "--untrained", "-o", "b"], "unknown"),
    (["small", "--untrained", "-o", "b", "--profile", "x"], "profile"),
    (["small", "--untrained", "-o", "taken"], "not a bundle"), (["text.pt", "-o", "b"], "not a checkpoint"),
    (["empty.pt", "-o", "b"], "not a checkpoint"), (["small", "--classes", "3", "-o", "b"], "--classes")])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, said):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", "from dance_deploy.cli.export import main; main()", *arguments],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert not (tmp_path / "b").exists() and (tmp_path / "taken" / "thesis.txt").read_text() == "mine"


def test_random_weights_have_the_threshold_that_they_say_at_half_the_budget():
    model = model_from_checkpoint(untrained_checkpoint("small", classes=3))
    stem = torch.rand(model.plan.stem_shape)
    at = {budget: model.controller(stem, torch.tensor([budget])).detach() for budget in (0.3, 0.5, 0.8)}
    assert torch.allclose(at[0.5], torch.tensor(TAU), atol=0.02)
    assert at[0.3].min() > at[0.5].max() > at[0.8].max()
