"""A machine with TensorRT that is a strict stand-in; see trt_standin.py."""
import onnx
import pytest
from onnx import TensorProto
from tiny_bundle import tiny_fields, tiny_files
from trt_standin import World, install

from dance_deploy.bundle import write_bundle
from dance_deploy.runtime.trt import target


def flavoured_files(generation, change=None):
    """The tiny bundle's files as the export writes them for a generation; change: of the weights."""
    files = tiny_files(change=change)
    if not generation.startswith("8"):
        return files
    for name in ("controller.onnx", "body.onnx", "dense.onnx"):
        model = onnx.load_from_string(files[name])
        del model.functions[:]
        model.ir_version = 7
        for opset in model.opset_import:
            opset.version = 13 if opset.domain == "" else opset.version
        files[name] = model.SerializeToString()
    part = onnx.ModelProto.FromString(files["body_masks.onnxpart"])
    for output in part.graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    files["body_masks.onnxpart"] = part.SerializePartialToString()
    return files


class Machine:
    """A World with what the tests need of it. bundle: folder; plugin: path of the plugin library."""

    def __init__(self, generation, tmp_path, monkeypatch):
        capability = (8, 6) if generation == "rtx" else (5, 3)
        self.world = World(generation, capability=capability)
        self.trt, self.cuda = install(monkeypatch, self.world)
        self.plugin = tmp_path / "libdance_trt.so"
        self.plugin.write_bytes(b"plugin for " + (b"8" if generation.startswith("8") else b"10"))
        monkeypatch.setattr(target, "plugin_path",
                            lambda: str(self.plugin) if self.plugin.exists() else None)
        self.bundle = str(tmp_path / "bundle")
        self.generation = generation

    def write_bundle(self, change=None, **changes):
        """Write the tiny bundle in this generation's flavour; change: of its weights, changes: of its manifest."""
        fields = dict(tiny_fields(), **changes)
        if self.generation.startswith("8"):
            fields["tools"] = dict(fields["tools"], opset=13, ir_version=7)
        return write_bundle(self.bundle, fields, flavoured_files(self.generation, change))


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
