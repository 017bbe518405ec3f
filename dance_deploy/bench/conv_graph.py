"""One convolution as an ONNX model: ours with its masks as inputs, or the plain Conv that other runtimes get."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names
from dance_deploy.ops.functions import conv_node, gate_node

OPSET, IR_VERSION = 17, 8


def weights_of(geometry: Conv3dGeometry, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(W [M, C/group, kT, kH, kW], B [M]) of a layer, scaled so that outputs have about the variance of inputs."""
    rng = np.random.default_rng(seed)
    shape = (geometry.out_channels, geometry.in_channels // geometry.group, *geometry.kernel)
    w = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    return w, rng.standard_normal(shape[0], np.float32)


def input_of(geometry: Conv3dGeometry, seed: int) -> np.ndarray:
    """X [1, C, T, H, W] float32."""
    return np.random.default_rng(seed + 1).standard_normal((1, geometry.in_channels, *geometry.in_size), np.float32)


def _attributes(geometry: Conv3dGeometry) -> dict[str, Any]:
    return {"strides": list(geometry.strides), "pads": list(geometry.pads), "dilations": list(geometry.dilations),
            "group": geometry.group}


def _floats(name: str, shape: tuple[int, ...]) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(nodes, "layer", inputs, outputs,
                              [numpy_helper.from_array(value, name) for name, value in constants.items()])
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(names.DOMAIN, names.DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION).SerializeToString()


def dense_conv(geometry: Conv3dGeometry, seed: int) -> bytes:
    """X [1, C, T, H, W] -> Conv -> Y; no relu, so that every runtime computes the same."""
    w, b = weights_of(geometry, seed)
    node = helper.make_node("Conv", ["X", "W", "B"], ["Y"], kernel_shape=list(geometry.kernel), **_attributes(geometry))
    return _model([node], [_floats("X", (1, geometry.in_channels, *geometry.in_size))],
                  [_floats("Y", (1, geometry.out_channels, *geometry.out_size))], {"W": w, "B": b})


def gated_conv(geometry: Conv3dGeometry, seed: int) -> bytes:
    """X [1, T, H, W, C] and the three masks -> GatedConv3dCl -> Y [1, T', H', W', M]."""
    w, b = weights_of(geometry, seed)
    node = conv_node(["X", "W", "B", *names.MASK_NAMES], "Y", "conv", channels_last=True, **_attributes(geometry))
    t, h, width = geometry.in_size
    masks = [helper.make_tensor_value_info(name, TensorProto.BOOL, shape) for name, shape in zip(
        names.MASK_NAMES, ((1, t), (1, geometry.in_channels), (1, h, width)))]
    return _model([node], [_floats("X", (1, t, h, width, geometry.in_channels)), *masks],
                  [_floats("Y", (1, *geometry.out_size, geometry.out_channels))], {"W": w, "B": b})


def gate(geometry: Conv3dGeometry) -> bytes:
    """X [1, T, H, W, C], tau [1, 3] -> ActivationGateCl -> the three masks: what deciding costs."""
    t, h, w = geometry.in_size
    outputs = [helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in names.MASK_NAMES]
    return _model([gate_node(["X", "tau"], list(names.MASK_NAMES), "gate", channels_last=True)],
                  [_floats("X", (1, t, h, w, geometry.in_channels)), _floats("tau", (1, 3))], outputs, {})
