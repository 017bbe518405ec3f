"""Machines with TensorRT of each generation; see trt_machine.py."""
import pytest
from trt_machine import Machine


@pytest.fixture(params=["8.2", "8.4", "8.6", "10", "11", "rtx"])
def machine(request, tmp_path, monkeypatch):
    """A Machine for each generation in turn; at the end nothing may have been misused or left behind."""
    made = Machine(request.param, tmp_path, monkeypatch)
    made.write_bundle()
    yield made
    made.world.settled()


@pytest.fixture
def make_machine(tmp_path, monkeypatch):
    """make_machine(generation): a Machine with its bundle written."""
    def make(generation):
        made = Machine(generation, tmp_path, monkeypatch)
        made.write_bundle()
        return made
    return make
