"""`python -m dance_deploy.runtime.kernels` prints where the op library is, or how to build it."""
import os
import shutil

import pytest

from dance_deploy.runtime import kernels

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_path_of_the_built_library(python):
    if kernels.library_path() is None:
        pytest.skip("the kernels are not built; " + kernels.HOW_TO_BUILD)
    done = python("-m", "dance_deploy.runtime.kernels")
    assert (done.returncode, done.stderr) == (0, "")
    path = done.stdout.rstrip("\n")
    assert os.path.isabs(path) and path == kernels.library_path()


def test_where_it_is_not_built_one_line_says_how(python, tmp_path):
    package = tmp_path / "dance_deploy"
    shutil.copytree(os.path.join(ROOT, "dance_deploy"), package, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    done = python("-m", "dance_deploy.runtime.kernels", env={"PYTHONPATH": str(tmp_path)}, cwd=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "make -C kernels" in done.stderr and str(package) in done.stderr
