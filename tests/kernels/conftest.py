"""Every test of a kernel runs on every variant that is compiled in; one this machine lacks is skipped by name."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))    # pytest's importlib mode adds no folder to the path
import native_kernels  # noqa: E402


@pytest.fixture(scope="session")
def lib():
    return native_kernels.library()


@pytest.fixture(params=native_kernels.isas())
def isa(request, lib):
    yield from native_kernels.forced(lib, request.param)
