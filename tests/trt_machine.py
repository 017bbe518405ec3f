"""A machine with TensorRT that is a strict stand-in (trt_standin.py), and a small bundle for it."""
import onnx
from onnx import TensorProto, helper
from tiny_bundle import tiny_fields, tiny_files
from trt_standin import install, plugin_bytes
from trt_world import World

from dance_deploy.bundle import write_bundle
from dance_deploy.runtime import kernels


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
        sum_as_floats(model)
        files[name] = model.SerializeToString()
    part = onnx.ModelProto.FromString(files["body_masks.onnxpart"])
    for output in part.graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    files["body_masks.onnxpart"] = part.SerializePartialToString()
    return files


def sum_as_floats(model):
    """Counts of the masks as our export writes them for TensorRT 8, which sums floats only."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "ReduceSum":
            cast = next(n for n in model.graph.node if n.output[0] == node.input[0])
            cast.attribute[0].i = TensorProto.FLOAT
            count = node.output[0]
            node.output[0] = count + ".sum"
            nodes += [node, helper.make_node("Cast", [count + ".sum"], [count], to=TensorProto.INT64)]
        else:
            nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def silent_log(trt):
    """A logger that forgets."""
    class Log(trt.ILogger):
        def log(self, severity, msg):
            pass
    return Log()


class Machine:
    """A World with what the tests need of it. bundle: folder; plugin: path of the plugin library."""

    def __init__(self, generation, tmp_path, monkeypatch):
        capability = (8, 6) if generation == "rtx" else (5, 3)
        self.world = World(generation, capability=capability)
        self.trt, self.cuda = install(monkeypatch, self.world)
        self.plugin = tmp_path / "libdance_trt.so"
        self.plugin.write_bytes(plugin_bytes(generation))
        monkeypatch.setattr(kernels, "plugin_path",
                            lambda: str(self.plugin) if self.plugin.exists() else None)
        self.bundle = str(tmp_path / "bundle")
        self.generation = generation

    def write_bundle(self, change=None, edit=None, **changes):
        """Write the tiny bundle in this generation's flavour.

        change: called with its weights, edit: with its files, to change them; changes: of the manifest.
        """
        profile = "jetson-nano" if self.generation.startswith("8") else "desktop-gpu"
        fields = dict(tiny_fields(), **dict({"profile": profile}, **changes))
        if self.generation.startswith("8"):
            fields["tools"] = dict(fields["tools"], opset=13, ir_version=7)
        files = flavoured_files(self.generation, change)
        if edit is not None:
            edit(files)
        return write_bundle(self.bundle, fields, files)
