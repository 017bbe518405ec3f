"""Engines built, kept and run, on the strict stand-in of each TensorRT generation."""
import numpy as np
import pytest

from dance_deploy.bundle import open_bundle
from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.selftest import golden_from_bundle, run_checks
from dance_deploy.runtime.trt.command import build_bundle_engines


def built(machine, **options):
    options.setdefault("measure", False)
    return build_bundle_engines(machine.bundle, out=lambda line: None, **options)


def test_predictions_are_those_of_the_definition(machine):
    built(machine)
    clip = np.random.default_rng(5).standard_normal((1, 3, 4, 16, 16)).astype(np.float32)
    with open_runner(machine.bundle, "reference", dense=True) as reference:
        expected, dense = reference.infer(clip, 0.4), reference.infer_dense(clip)
    with open_runner(machine.bundle, "tensorrt", dense=True) as runner:
        found = runner.infer(clip, 0.4)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-6)
        np.testing.assert_allclose(runner.infer_dense(clip).logits, dense.logits, rtol=1e-6)
        assert found.kept.tolist() == expected.kept.tolist() and found.macs == expected.macs < dense.macs
        checks = run_checks(runner, golden_from_bundle(open_bundle(machine.bundle)))
        assert all(check.passed for check in checks), checks
