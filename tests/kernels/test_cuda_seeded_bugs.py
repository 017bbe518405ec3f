"""The emulated cases notice bugs put into the CUDA kernels on purpose: the list stays applicable, a few are tried here.

All of them: python kernels/cuda/tests/seeded_bugs.py
"""
import importlib.util
import os

import cuda_cases
import emulated_cuda
import pytest


def load():
    path = os.path.join(emulated_cuda.CUDA, "tests", "seeded_bugs.py")
    spec = importlib.util.spec_from_file_location("seeded_bugs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seeded_bugs = load()
TRIED = ("slab without its barrier", "rows read without their predicate")


@pytest.fixture(scope="module")
def emulator():
    running = emulated_cuda.Emulator(emulated_cuda.build())
    yield running
    running.close()


@pytest.mark.parametrize("case", cuda_cases.CASES, ids=lambda case: case.name)
def test_kernels_as_they_are_pass_every_case(emulator, case):
    assert not cuda_cases.problem(emulator, case)


@pytest.mark.parametrize("name", seeded_bugs.BUGS)
def test_a_bug_can_still_be_put_in(name):
    assert seeded_bugs.applicable(name)


@pytest.mark.parametrize("name", TRIED)
def test_a_seeded_bug_is_noticed(name, emulator):
    assert seeded_bugs.try_bug(name)
