"""Build an engine with TensorRT-RTX, which needs no GPU for that; prints one JSON object.

A process of its own: what TensorRT loads stays loaded.

    python build_rtx_engine.py MODEL.onnx LIBRARY ENGINE
"""
import json
import sys

import tensorrt_rtx_bindings as trt


class Log(trt.ILogger):
    """Keeps what is worse than a warning."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log(self, severity, line):
        if severity <= trt.ILogger.ERROR:
            self.lines.append(line)


def main(model, library, engine):
    log = Log()
    builder = trt.Builder(log)
    found = {"loaded": trt.get_plugin_registry().load_library(library) is not None, "built": False}
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    with open(model, "rb") as file:
        found["parsed"] = parser.parse(file.read())
    if found["parsed"]:
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        found["plugins"] = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        found["outputs"] = {tensor.name: list(tensor.shape) for tensor in outputs}
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM80, 0)
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        if any(-1 in tensor.shape for tensor in inputs):
            profile = builder.create_optimization_profile()
            for tensor in inputs:
                rest = list(tensor.shape)[1:]
                profile.set_shape(tensor.name, [1] + rest, [2] + rest, [4] + rest)
            config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is not None:
            found["built"] = True
            with open(engine, "wb") as file:
                file.write(memoryview(plan))
    found["errors"] = log.lines
    print(json.dumps(found))


main(*sys.argv[1:])
