"""A Runner gives what the graphs define, at the cost that the masks imply, by every backend."""
import io
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from tiny_bundle import CONV_A, CONV_B, GATES, SHORTCUT, STEM, dense_macs, tiny_fields, tiny_files, write_tiny_bundle

from dance_deploy.bundle import open_bundle, write_bundle
from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError, OperationError
from dance_deploy.runtime.kernels import library_path
from dance_deploy.runtime.runner import Runner, open_runner, scores_from_logits
from dance_deploy.runtime.selftest import golden_from_bundle, run_checks

BACKENDS = ("onnxruntime", "reference")  # those that need no device
BUDGETS = (1.0, 0.6, 0.4, 0.05)


@pytest.fixture(scope="module", params=BACKENDS)
def runner(request, tiny_bundle):
    with open_runner(tiny_bundle, request.param, dense=True, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(3)
    return [(scale * rng.standard_normal((1, 3, 4, 16, 16))).astype(np.float32) for scale in (0.3, 1.0, 3.0)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_costs_follow_from_the_masks(runner, clips, budget):
    for clip in clips:
        result = runner.infer(clip, budget)
        by_hand = 18 + 100 + ConvCost(STEM).dense().macs
        for conv, masks in ((CONV_A, result.masks[0]), (SHORTCUT, result.masks[0]), (CONV_B, result.masks[1])):
            by_hand += ConvCost(conv).gated(*masks).macs
        assert result.macs == by_hand
        assert result.macs_dense == dense_macs()
        counted = [[int(mask.sum()) for mask in layer] for layer in result.masks]
        assert result.kept.tolist() == counted
        assert abs(float(result.scores.sum()) - 1.0) < 1e-6
        assert result.latency_ms.total >= result.latency_ms.body > 0


def test_a_full_budget_prunes_nothing_and_equals_dense(runner, clips):
    for clip in clips:
        gated, dense = runner.infer(clip, 1.0), runner.infer_dense(clip)
        assert gated.kept.tolist() == dense.kept.tolist() == runner.costs.all_kept.tolist()
        assert gated.macs == dense.macs + 100  # the controller's
        assert dense.macs == dense.macs_dense == dense_macs()
        assert dense.bytes == dense.bytes_dense
        assert dense.masks is None
        np.testing.assert_allclose(gated.logits, dense.logits, rtol=1e-5, atol=1e-5)


def test_a_smaller_budget_costs_less(runner, clips):
    macs = [runner.infer(clips[1], budget).macs for budget in BUDGETS]
    assert macs == sorted(macs, reverse=True) and len(set(macs)) == len(macs)


def test_the_default_budget_is_the_bundles(runner, clips):
    assert runner.infer(clips[1]).macs == runner.infer(clips[1], 0.6).macs


def test_backends_agree(tiny_bundle, clips):
    found = []
    for name in BACKENDS:
        with open_runner(tiny_bundle, name, threads=1) as opened:
            found.append([opened.infer(clip, budget) for clip in clips for budget in BUDGETS])
    for one, other in zip(*found):
        for a, b in zip(one.masks, other.masks):
            assert all(np.array_equal(x, y) for x, y in zip(a, b))
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_self_test_passes(runner, tiny_bundle):
    checks = run_checks(runner, golden_from_bundle(open_bundle(tiny_bundle)))
    assert [check for check in checks if not check.passed] == []
    assert len(checks) == 6


def test_self_test_fails_where_weights_differ(tmp_path, tiny_bundle):
    """Golden numbers of one model, graphs of another."""
    files = tiny_files(seed=5)
    files["golden.npz"] = tiny_files(seed=0)["golden.npz"]
    bundle = write_bundle(tmp_path / "mixed", tiny_fields(), files)
    with Runner(bundle, dense=True, threads=1) as runner:
        failed = [check.name for check in run_checks(runner, golden_from_bundle(bundle)) if not check.passed]
    assert {"controller: first layer", "controller: thresholds", "gated body: logits"} <= set(failed)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_budget_out_of_range(runner, clips, budget):
    with pytest.raises(InputError, match="budget is"):
        runner.infer(clips[0], budget)


@pytest.mark.parametrize("clip", [np.zeros((1, 3, 4, 16, 17), np.float32), np.zeros((1, 3, 4, 16, 16))])
def test_wrong_clip(runner, clip):
    for run in (runner.infer, runner.infer_dense):
        with pytest.raises(InputError, match="clip is float"):
            run(clip)


def test_numbers_that_are_not_finite_are_no_prediction(runner, clips):
    broken = clips[0].copy()
    broken[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(OperationError, match="not finite"):
        runner.infer(broken)


def test_unknown_backend_lists_the_known(tiny_bundle):
    with pytest.raises(InputError, match="onnxruntime, reference"):
        open_runner(tiny_bundle, "cuda")


def test_scores_of_large_logits():
    scores = scores_from_logits(np.array([1e4, 1e4, -1e4], np.float32))
    assert scores.tolist() == [0.5, 0.5, 0.0]


def test_manifest_that_does_not_fit_the_graphs(tmp_path, clips):
    fields = tiny_fields()
    fields["gates"][1]["input"] = [6, 4, 8, 9]
    bundle = write_tiny_bundle(tmp_path / "b", gates=fields["gates"])
    with Runner(bundle, threads=1) as runner, pytest.raises(OperationError, match="gate1.feature_keep"):
        runner.infer(clips[0])
    bundle = write_tiny_bundle(tmp_path / "c", model={"name": "x", "labels": ["a", "b"], "trained": True})
    with Runner(bundle, threads=1) as runner, pytest.raises(OperationError, match="'logits' is"):
        runner.infer(clips[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["controller.onnx", "body.onnx", "dense.onnx"])
def test_garbage_with_a_right_hash_is_one_line(tmp_path, backend, name):
    """The hash only proves that nothing changed on the way; what is inside may still be no graph."""
    bundle = write_bundle(tmp_path / "b", tiny_fields(), {**tiny_files(), name: b"\x07garbage"})
    with pytest.raises(OperationError) as caught:
        Runner(bundle, backend, dense=True, threads=1)
    assert "\n" not in str(caught.value)
    assert name.replace("body_masks.onnxpart", "body.onnx") in str(caught.value)


@pytest.mark.parametrize("content", [b"PK garbage", b"\x80\x04pickle", None])
def test_golden_that_is_none(tmp_path, content):
    if content is None:  # an object array would need pickle
        out = io.BytesIO()
        np.savez(out, clip=np.array([{"a": 1}], dtype=object))
        content = out.getvalue()
    bundle = write_bundle(tmp_path / "b", tiny_fields(), {**tiny_files(), "golden.npz": content})
    with pytest.raises(InputError, match="golden.npz cannot be read"):
        golden_from_bundle(bundle)


@pytest.mark.parametrize("shape, dtype, said", [
    ("(1, 3, 1000000000, 1000, 1000)", "<f4", "cannot be read"), ("()", "<U3", "expected numbers")])
def test_golden_of_another_kind(tmp_path, shape, dtype, said):
    header = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}".format(dtype, shape).ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + b"\0" * 12
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(tiny_files()["golden.npz"])) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, array if name == "clip.npy" else old.read(name))
    bundle = write_bundle(tmp_path / "b", tiny_fields(), {**tiny_files(), "golden.npz": out.getvalue()})
    with pytest.raises(InputError, match="golden.npz.*" + said):
        golden_from_bundle(bundle)


def test_without_our_library_the_functions_run_and_one_warning_says_so(tiny_bundle, clips, monkeypatch, caplog):
    from dance_deploy.runtime import kernels
    with open_runner(tiny_bundle, threads=1) as first:
        expected = first.infer(clips[1], 0.4)
    caplog.clear()
    monkeypatch.setattr(kernels, "library_path", lambda: None)
    with open_runner(tiny_bundle, threads=1) as runner:
        found = runner.infer(clips[1], 0.4)
        runner.infer(clips[2], 0.4)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nothing is saved" in caplog.text
    assert found.kept.tolist() == expected.kept.tolist()
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)


def test_a_library_that_does_not_load_is_one_line(tiny_bundle, tmp_path, monkeypatch):
    from dance_deploy.runtime import kernels
    broken = tmp_path / "libdance_ort.so"
    broken.write_bytes(b"\x7fELF no library")
    monkeypatch.setattr(kernels, "library_path", lambda: str(broken))
    with pytest.raises(OperationError, match="does not load into ONNX Runtime") as caught:
        open_runner(tiny_bundle)
    assert "\n" not in str(caught.value)


def test_graphs_without_functions_need_the_library(tmp_path, monkeypatch):
    from tiny_bundle import write_tiny_bundle

    from dance_deploy.runtime import kernels
    monkeypatch.setattr(kernels, "library_path", lambda: None)
    bundle = write_tiny_bundle(tmp_path / "nano", profile="jetson-nano")
    with pytest.raises(OperationError, match="exported for jetson-nano.*make -C kernels, or export it again"):
        open_runner(bundle.path)


@pytest.mark.skipif(library_path() is None, reason="the op library is not built: run make -C kernels")
def test_kernels_that_the_environment_asks_for_in_vain_are_wrong_usage(tiny_bundle):
    """In processes of their own: the library reads DANCE_ISA once."""
    env = dict(os.environ, DANCE_ISA="mmx")
    said = "environment variable DANCE_ISA is 'mmx', which this processor"
    for module, arguments in (("run", [tiny_bundle, "--self-test"]),
                              ("bench", ["model", tiny_bundle]), ("bench", ["kernels", "--layers", "L4"])):
        done = subprocess.run([sys.executable, "-m", "dance_deploy.cli." + module, *map(str, arguments)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: " + said)
    doctor = subprocess.run([sys.executable, "-m", "dance_deploy.cli.doctor"], stdout=subprocess.PIPE,
                            universal_newlines=True, env=env)
    assert doctor.returncode == 1 and said in doctor.stdout and "-> unset DANCE_ISA" in doctor.stdout


def test_gates_of_the_fixture_prune_every_kind(tiny_bundle):
    """Otherwise the tests above would prove little."""
    golden = golden_from_bundle(open_bundle(tiny_bundle))
    with open_runner(tiny_bundle, threads=1) as runner:
        kept = np.stack([runner.infer(golden.clip, budget).kept for budget in (0.4, 0.3)])
    totals = np.array([[4, convs[0].in_channels, 64] for _, convs in GATES])
    assert (kept < totals).any(axis=0).all()


def test_the_controller_for_our_kernels_is_read_where_they_are(tiny_bundle):
    from dance_deploy.bundle import open_bundle
    from dance_deploy.runtime.backends import controller_file

    manifest = open_bundle(tiny_bundle).manifest
    both = manifest._replace(files={**manifest.files, "controller_kernels.onnx": manifest.files["controller.onnx"]})
    assert controller_file(both, "lib.so") == "controller_kernels.onnx"
    assert controller_file(both, None) == controller_file(manifest, "lib.so") == "controller.onnx"
