"""What the jetson-nano profile writes is what TensorRT 8.2's parser reads."""
import numpy as np
import onnx
import pytest

from dance_deploy import profiles
from dance_deploy.export.graphs import graphs_from_model
from dance_deploy.runtime.reference_backend import evaluator_from_bytes

# Operators that TensorRT 8.2 parses, with the types it takes ("f": FP32 and FP16, "i": INT32, "b": BOOL); those that
# our exporter may write. Source: onnx/onnx-tensorrt, tag 8.2-GA, docs/operators.md. Its 64-bit integers are INT32.
PARSED = {
    "Abs": "fi", "Add": "fi", "And": "b", "AveragePool": "fi", "BatchNormalization": "f", "Cast": "fib", "Clip": "f",
    "Concat": "fib", "Constant": "fib", "Conv": "f", "Div": "fi", "Erf": "f", "Flatten": "fib", "Gather": "fi",
    "Gemm": "f", "GlobalAveragePool": "f", "LeakyRelu": "f", "Less": "fi", "Log": "f", "MatMul": "f", "Max": "fi",
    "MaxPool": "f", "Min": "fi", "Mul": "fi", "Not": "b", "ReduceMean": "f", "ReduceSum": "f", "Relu": "f",
    "Reshape": "fib", "Sigmoid": "f", "Softmax": "f", "Split": "fib", "Sub": "fi", "Tanh": "f", "Unsqueeze": "fib",
    "Where": "fib",
}


@pytest.fixture
def graphs(gated):
    return graphs_from_model(gated, profiles.load("jetson-nano"))


def without_functions(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]
    return copy


@pytest.mark.parametrize("graph", ["controller", "body", "dense"])
def test_opset_and_ir_are_those_of_its_time(graphs, graph):
    model = getattr(graphs, graph)
    assert model.ir_version <= 7
    assert {o.domain: o.version for o in model.opset_import if o.domain != "dance"} == {"": 13}


@pytest.mark.parametrize("graph", ["controller", "body", "dense"])
def test_every_operator_and_type_is_parsed(graphs, gated, graph):
    model = without_functions(getattr(graphs, graph))
    inputs = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32)
              for i in model.graph.input}
    declared = {o.name for o in model.graph.output}
    wanted = [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in declared)
    values = dict(zip(wanted, evaluator_from_bytes(model.SerializeToString(), graph).run(wanted, inputs)), **inputs)
    values.update((i.name, onnx.numpy_helper.to_array(i)) for i in model.graph.initializer)
    masks = {m.name for m in graphs.masks}
    for node in model.graph.node:
        if node.domain == "dance":
            continue
        first = np.asarray(values[node.input[0]])  # the others are of the same type, or constants such as axes
        kind = "f" if node.input[0] in masks else first.dtype.kind  # the numpy definition's masks are bool
        assert kind in PARSED[node.op_type], (node.op_type, node.name, first.dtype)
        assert "" not in node.input


def test_the_plugin_is_found_and_gets_all_it_needs(graphs):
    nodes = [node for node in graphs.body.graph.node if node.domain == "dance"]
    assert nodes
    initializers = {i.name for i in graphs.body.graph.initializer}
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert (attributes["plugin_version"], attributes["plugin_namespace"]) == (b"1", b"")
        assert not any(a.ref_attr_name for a in node.attribute)
        if node.op_type != "ActivationGate":
            assert {"strides", "pads", "dilations", "group", "min"} <= set(attributes)
            assert set(node.input[1:3]) <= initializers  # packed once, so they must be there when it is built


def test_convolutions_have_their_weights_in_the_file(graphs):
    for model in (graphs.controller, graphs.body, graphs.dense):
        initializers = {i.name for i in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Conv":
                assert set(node.input[1:]) <= initializers and len(node.input) == 3


def test_masks_cross_as_floats(graphs):
    assert {m.type.tensor_type.elem_type for m in graphs.masks} == {onnx.TensorProto.FLOAT}


def test_the_written_body_carries_no_functions():
    """The ladder needs them, the file does not: bundle_from_checkpoint takes them out by the profile's word."""
    assert profiles.load("jetson-nano").functions is False
