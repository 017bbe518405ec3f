"""Runs dense.onnx by torch: the baseline of a torch user, from the very weights of the bundle."""

from __future__ import annotations

from typing import Any, Callable

import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from dance_deploy.errors import InputError


def _begins(pads: list[int]) -> list[int]:
    if pads[:3] != pads[3:]:
        raise InputError(f"the torch peer knows symmetric padding only, not {pads}")
    return pads[:3]


def _conv(x: list[torch.Tensor], a: dict[str, Any]) -> torch.Tensor:
    bias = x[2] if len(x) > 2 else None
    return F.conv3d(x[0], x[1], bias, a["strides"], _begins(a["pads"]), a["dilations"], a["group"])


def _max_pool(x: list[torch.Tensor], a: dict[str, Any]) -> torch.Tensor:
    return F.max_pool3d(x[0], a["kernel_shape"], a["strides"], _begins(a["pads"]), a.get("dilations", 1),
                        bool(a.get("ceil_mode", 0)))


def _average_pool(x: list[torch.Tensor], a: dict[str, Any]) -> torch.Tensor:
    return F.avg_pool3d(x[0], a["kernel_shape"], a["strides"], _begins(a.get("pads", [0] * 6)),
                        count_include_pad=bool(a.get("count_include_pad", 0)))


def _batch_norm(x: list[torch.Tensor], a: dict[str, Any]) -> torch.Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=a["epsilon"])


OPS: dict[str, Callable[[list[torch.Tensor], dict[str, Any]], torch.Tensor]] = {
    "Conv": _conv, "MaxPool": _max_pool, "AveragePool": _average_pool, "BatchNormalization": _batch_norm,
    "Relu": lambda x, a: F.relu(x[0]), "Sigmoid": lambda x, a: torch.sigmoid(x[0]), "Add": lambda x, a: x[0] + x[1],
    "Mul": lambda x, a: x[0] * x[1], "GlobalAveragePool": lambda x, a: F.adaptive_avg_pool3d(x[0], 1),
    "Flatten": lambda x, a: x[0].flatten(1),
    "Reshape": lambda x, a: x[0].reshape(x[1].tolist()), "Gemm": lambda x, a: F.linear(x[0], x[1], x[2]),
}


class TorchGraph:
    """A standard-op graph as a torch callable: one input, one output."""

    def __init__(self, data: bytes) -> None:
        """data: bytes of an ONNX model. Raises InputError where it holds an op that this peer does not know."""
        graph = onnx.load_model_from_string(data).graph
        unknown = sorted({node.op_type for node in graph.node} - set(OPS))
        if unknown:
            raise InputError(f"the torch peer cannot run the ONNX ops {', '.join(unknown)}; "
                             "leave torch out of --against")
        self.weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.steps = [(OPS[n.op_type], list(n.input), n.output[0],
                       {a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in graph.node]

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run the graph."""
        values = dict(self.weights, **{self.input: x})
        for op, inputs, output, attributes in self.steps:
            values[output] = op([values[name] for name in inputs], attributes)
        return values[self.output]
