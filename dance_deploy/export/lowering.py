"""Which ONNX nodes each torch layer becomes: one small function per layer or function, in two tables.

A lowering gets the emitter, the fx node and the layer, adds nodes, and returns the name of the result. Whatever cannot
be exact is refused with a line that names the layer. Those of the LAST_ tables read and make channels-last tensors;
they return None where only the other layout will do.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from dance_deploy.errors import InputError
from dance_deploy.export.layouts import LAST_AXIS
from dance_deploy.method.surgery import shape_of, source_of
from dance_deploy.ops import names
from dance_deploy.ops.functions import max_pool_node, scaled_swish_node

if TYPE_CHECKING:
    from dance_deploy.export.emitter import Emitter

Lowering = Callable[["Emitter", fx.Node, Any], str]
LastLowering = Callable[["Emitter", fx.Node, Any], "str | None"]


def _arguments(node: fx.Node, *known: str) -> dict[str, Any]:
    """What a function got behind its operand, by name; numpy's names, which torch takes too, are refused."""
    given = {**dict(zip(known, node.args[1:])), **node.kwargs}
    if set(given) - set(known) or len(node.args) - 1 > len(known):
        raise unsupported(node, f"an argument other than {', '.join(known)} (got {', '.join(sorted(given))})")
    return given


def _same(e: Emitter, node: fx.Node, layer: Any) -> str:
    return e.value(source_of(node))


def _unary(op: str) -> Lowering:
    def lower(e: Emitter, node: fx.Node, layer: Any) -> str:
        return e.builder.node(op, [e.value(source_of(node))], node.name)
    return lower


def _binary(op: str) -> Lowering:
    def lower(e: Emitter, node: fx.Node, layer: Any) -> str:
        if node.kwargs:
            raise e.unsupported(node, f"keyword arguments {sorted(node.kwargs)}")
        return e.builder.node(op, [e.operand(a) for a in node.args[:2]], node.name)
    return lower


def _silu(e: Emitter, node: fx.Node, layer: Any) -> str:
    x = e.value(source_of(node))
    return e.builder.node("Mul", [x, e.builder.node("Sigmoid", [x], node.name + ".sigmoid")], node.name)


def _batch_norm(e: Emitter, node: fx.Node, layer: nn.BatchNorm3d) -> str:
    if layer.running_mean is None or layer.running_var is None:
        raise e.unsupported(node, "a batch norm without running statistics")
    count = layer.num_features
    gamma = torch.ones(count) if layer.weight is None else layer.weight
    beta = torch.zeros(count) if layer.bias is None else layer.bias
    terms = [("scale", gamma), ("bias", beta), ("mean", layer.running_mean), ("var", layer.running_var)]
    inputs = [e.builder.constant(f"{node.target}.{n}", v.detach().cpu().float().numpy()) for n, v in terms]
    x = e.value(source_of(node))
    return e.builder.node("BatchNormalization", [x, *inputs], node.name, epsilon=float(layer.eps))


def _last_batch_norm(e: Emitter, node: fx.Node, layer: nn.BatchNorm3d) -> str | None:
    if layer.running_mean is None or layer.running_var is None:
        return None
    scale = 1.0 / torch.sqrt(layer.running_var.detach().double() + layer.eps)
    shift = -layer.running_mean.detach().double() * scale
    if layer.affine:
        scale, shift = (v * layer.weight.detach().double() for v in (scale, shift))
        shift = shift + layer.bias.detach().double()
    inputs = [e.builder.constant(f"{node.target}.{n}", v.cpu().float().numpy())
              for n, v in (("scale", scale), ("shift", shift))]
    scaled = e.builder.node("Mul", [e.value(source_of(node)), inputs[0]], node.name + ".scaled")
    return e.builder.node("Add", [scaled, inputs[1]], node.name)


def _linear(e: Emitter, node: fx.Node, layer: nn.Linear) -> str:
    x = e.value(source_of(node))
    weight = layer.weight.detach().cpu().float().numpy()
    bias = np.zeros(layer.out_features, np.float32) if layer.bias is None else layer.bias.detach().cpu().float().numpy()
    b = e.builder.constant(f"{node.target}.bias", bias)
    if len(shape_of(node)) == 2:
        w = e.builder.constant(f"{node.target}.weight", weight)
        return e.builder.node("Gemm", [x, w, b], node.name, transB=1)
    w = e.builder.constant(f"{node.target}.weight_t", np.ascontiguousarray(weight.T))
    return e.builder.node("Add", [e.builder.node("MatMul", [x, w], node.name + ".matmul"), b], node.name)


def _triple(value: Any) -> list[int]:
    return [int(value)] * 3 if isinstance(value, int) else [int(v) for v in value]


def _pool(op: str) -> Lowering:
    def lower(e: Emitter, node: fx.Node, layer: Any) -> str:
        pads = _triple(layer.padding)
        extra: dict[str, Any] = {}
        if op == "MaxPool":
            extra["dilations"] = _triple(layer.dilation)
        elif layer.divisor_override:
            raise e.unsupported(node, "divisor_override")
        else:
            extra["count_include_pad"] = int(layer.count_include_pad)
        if layer.ceil_mode and op == "AveragePool":
            # ONNX and torch divide the last, partial windows by different counts
            raise e.unsupported(node, "average pooling with ceil_mode")
        return e.builder.node(op, [e.value(source_of(node))], node.name, kernel_shape=_triple(layer.kernel_size),
                              strides=_triple(layer.stride or layer.kernel_size), pads=pads * 2,
                              ceil_mode=int(layer.ceil_mode), **extra)
    return lower


def _last_max_pool(e: Emitter, node: fx.Node, layer: nn.MaxPool3d) -> str | None:
    if layer.ceil_mode or layer.return_indices or _triple(layer.dilation) != [1, 1, 1]:
        return None
    output = e.builder.unique(node.name)
    e.builder.nodes.append(max_pool_node(
        e.value(source_of(node)), output, node.name, _triple(layer.kernel_size),
        _triple(layer.stride or layer.kernel_size), _triple(layer.padding) * 2))
    return output


def _last_silu(e: Emitter, node: fx.Node, layer: Any) -> str:
    """As a part of the op before it where that has a form with it, which saves a pass over the map.

    Such are a product by channel, an excitation, and an expansion with its depthwise convolution.
    """
    x = source_of(node)
    end = _behind_passed_on(e, x)
    expansion = e.expansions.get(end)
    if expansion is not None and len(end.users) == 1:
        expansion.swish, expansion.last = True, node
        maker = e.builder.maker(e.value(x))
        assert maker is not None
        maker.op_type = names.EXPAND_DEPTHWISE_SWISH_CL
        return maker.output[0]
    scale = _scale_by_channel(x)
    if scale is None or len(x.users) > 1:
        return _silu(e, node, layer)
    product = next((n for n in reversed(e.builder.nodes) if n.op_type == "Mul" and n.output[0] == e.value(x)), None)
    if product is None:
        return _silu(e, node, layer)
    e.builder.nodes.remove(product)
    inputs = [e.value(a) for a in x.args[:2]]
    output = e.builder.unique(node.name)
    e.builder.nodes.append(scaled_swish_node(inputs[1 - scale], inputs[scale], output, node.name))
    return output


def _behind_passed_on(e: Emitter, node: fx.Node) -> fx.Node:
    """The node whose tensor is passed on to `node` by layers that change nothing, each for one reader."""
    while len(node.users) == 1 and node.op == "call_module":
        if lowering_for(node, e.traced.get_submodule(str(node.target))) is not _same:
            break
        node = source_of(node)
    return node


def _scale_by_channel(node: fx.Node) -> int | None:
    """Which operand of a product of tensors is [N, C, 1, 1, 1], the other one having the product's shape; else None."""
    if node.op != "call_function" or FUNCTIONS.get(node.target) is not FUNCTIONS[operator.mul] or len(node.args) != 2:
        return None
    tensors = [a for a in node.args if isinstance(a, fx.Node) and "tensor_meta" in a.meta]
    if len(tensors) != 2:
        return None
    shapes, whole = [shape_of(a) for a in tensors], shape_of(node)
    small = (*whole[:2], 1, 1, 1)
    return next((i for i in (0, 1) if shapes[i] == small and shapes[1 - i] == whole), None)


def _last_adaptive_pool(e: Emitter, node: fx.Node, layer: Any) -> str | None:
    if shape_of(source_of(node)) == shape_of(node):
        return e.value(source_of(node))
    if shape_of(node)[2:] != (1, 1, 1):
        return None
    # H and W, then T: what ONNX Runtime does in one step is ten times slower (1.31)
    per_frame = e.builder.reduce("ReduceMean", e.value(source_of(node)), [2, 3], node.name + ".frames", keepdims=1)
    return e.builder.reduce("ReduceMean", per_frame, [1], node.name, keepdims=1)


def _adaptive_pool(e: Emitter, node: fx.Node, layer: Any) -> str:
    x, have, want = e.value(source_of(node)), shape_of(source_of(node))[2:], shape_of(node)[2:]
    if have == want:
        return x
    if all(n == 1 for n in want):
        return e.builder.node("GlobalAveragePool", [x], node.name)
    if any(h % w for h, w in zip(have, want)):
        raise e.unsupported(node, f"adaptive pooling from {list(have)} to {list(want)}, whose windows differ in size")
    kernel = [h // w for h, w in zip(have, want)]
    return e.builder.node("AveragePool", [x], node.name, kernel_shape=kernel, strides=kernel)


def _reshape(e: Emitter, node: fx.Node, layer: Any) -> str:
    shape = shape_of(node)
    if shape[0] != 1:
        raise e.unsupported(node, f"a reshape that folds the batch axis into others (result {list(shape)})")
    return e.builder.node("Reshape", [e.value(source_of(node)), e.builder.ints(*shape)], node.name)


def _mean(e: Emitter, node: fx.Node, layer: Any) -> str:
    args = _arguments(node, "dim", "keepdim")
    axes = args.get("dim")
    if axes is None:
        raise e.unsupported(node, "a mean without dimensions")
    axes = [axes] if isinstance(axes, int) else list(axes)
    return e.builder.reduce("ReduceMean", e.value(source_of(node)), axes, node.name, int(args.get("keepdim", False)))


def _last_mean(e: Emitter, node: fx.Node, layer: Any) -> str | None:
    args = _arguments(node, "dim", "keepdim")
    axes = args.get("dim")
    if axes is None:
        return None
    axes = {axis % 5 for axis in ([axes] if isinstance(axes, int) else axes)}
    if not args.get("keepdim", False) and not {2, 3, 4} <= axes:
        return None  # the axes that stay would be in another order than torch's
    last = sorted(LAST_AXIS[axis] for axis in axes)
    return e.builder.reduce("ReduceMean", e.value(source_of(node)), last, node.name, int(args.get("keepdim", False)))


def _nodes(argument: Any) -> list[fx.Node]:
    """The tensors that torch.cat is given."""
    return list(argument)


def _last_concat(e: Emitter, node: fx.Node, layer: Any) -> str | None:
    axis = LAST_AXIS[_arguments(node, "dim").get("dim", 0) % 5]
    return e.builder.node("Concat", [e.value(a) for a in _nodes(node.args[0])], node.name, axis=axis)


def _concat(e: Emitter, node: fx.Node, layer: Any) -> str:
    axis = _arguments(node, "dim").get("dim", 0)
    return e.builder.node("Concat", [e.value(a) for a in _nodes(node.args[0])], node.name, axis=axis)


def _softmax(e: Emitter, node: fx.Node, layer: Any) -> str:
    dim = layer.dim if layer is not None else node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if dim is None:
        raise e.unsupported(node, "softmax without a dimension")
    return e.builder.node("Softmax", [e.value(source_of(node))], node.name, axis=dim)


def _gelu(e: Emitter, node: fx.Node, layer: Any) -> str:
    approximate = layer.approximate if layer is not None else node.kwargs.get("approximate", "none")
    if approximate != "none":
        raise e.unsupported(node, "the tanh form of GELU")
    x = e.value(source_of(node))
    one, half, root = (e.builder.constant(f"float.{v:.6g}", np.array(v, np.float32)) for v in (1, .5, math.sqrt(.5)))
    erf = e.builder.node("Erf", [e.builder.node("Mul", [x, root], node.name + ".scaled")], node.name + ".erf")
    gate = e.builder.node("Mul", [e.builder.node("Add", [erf, one], node.name + ".plus1"), half], node.name + ".half")
    return e.builder.node("Mul", [x, gate], node.name)


def _leaky_relu(e: Emitter, node: fx.Node, layer: nn.LeakyReLU) -> str:
    return e.builder.node("LeakyRelu", [e.value(source_of(node))], node.name, alpha=float(layer.negative_slope))


def _clip(low: float, high: float) -> Lowering:
    def lower(e: Emitter, node: fx.Node, layer: Any) -> str:
        bounds = [e.builder.constant(f"float.{v:g}", np.array(v, np.float32)) for v in (low, high)]
        return e.builder.node("Clip", [e.value(source_of(node)), *bounds], node.name)
    return lower


MODULES: dict[type[nn.Module], Lowering] = {
    nn.Identity: _same, nn.Dropout: _same, nn.Dropout3d: _same,
    nn.ReLU: _unary("Relu"), nn.Sigmoid: _unary("Sigmoid"), nn.Tanh: _unary("Tanh"), nn.SiLU: _silu, nn.GELU: _gelu,
    nn.ReLU6: _clip(0.0, 6.0), nn.LeakyReLU: _leaky_relu, nn.Softmax: _softmax,
    nn.BatchNorm3d: _batch_norm, nn.Linear: _linear, nn.Flatten: _reshape,
    nn.MaxPool3d: _pool("MaxPool"), nn.AvgPool3d: _pool("AveragePool"), nn.AdaptiveAvgPool3d: _adaptive_pool,
}

FUNCTIONS: dict[Any, Lowering] = {
    operator.add: _binary("Add"), operator.iadd: _binary("Add"), torch.add: _binary("Add"), "add": _binary("Add"),
    operator.mul: _binary("Mul"), operator.imul: _binary("Mul"), torch.mul: _binary("Mul"), "mul": _binary("Mul"),
    operator.sub: _binary("Sub"), operator.truediv: _binary("Div"),
    torch.relu: _unary("Relu"), F.relu: _unary("Relu"), "relu": _unary("Relu"),
    torch.sigmoid: _unary("Sigmoid"), "sigmoid": _unary("Sigmoid"), torch.tanh: _unary("Tanh"), F.silu: _silu,
    F.gelu: _gelu, F.dropout: _same, F.dropout3d: _same, "contiguous": _same,
    F.adaptive_avg_pool3d: _adaptive_pool, torch.flatten: _reshape, "flatten": _reshape, "view": _reshape,
    "reshape": _reshape, torch.reshape: _reshape, torch.mean: _mean, "mean": _mean, torch.cat: _concat,
    F.softmax: _softmax, torch.softmax: _softmax, "softmax": _softmax,
}


# elementwise ones do not ask for the layout
_ELEMENTWISE_MODULES = (nn.Identity, nn.Dropout, nn.Dropout3d, nn.ReLU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.ReLU6,
                        nn.LeakyReLU)
LAST_MODULES: dict[type[nn.Module], LastLowering] = {
    **{cls: MODULES[cls] for cls in _ELEMENTWISE_MODULES},
    nn.BatchNorm3d: _last_batch_norm, nn.MaxPool3d: _last_max_pool, nn.AdaptiveAvgPool3d: _last_adaptive_pool,
    nn.SiLU: _last_silu,
}
_NOT_ELEMENTWISE = (_adaptive_pool, _reshape, _mean, _concat, _softmax)
LAST_FUNCTIONS: dict[Any, LastLowering] = {
    **{function: lower for function, lower in FUNCTIONS.items() if lower not in _NOT_ELEMENTWISE},
    F.adaptive_avg_pool3d: _last_adaptive_pool, torch.mean: _last_mean, "mean": _last_mean, torch.cat: _last_concat,
    F.silu: _last_silu,
}


def last_lowering_for(node: fx.Node, layer: nn.Module | None) -> LastLowering | None:
    """The lowering of a node whose operands lie in channels last, or None where there is none."""
    if layer is not None:
        return next((LAST_MODULES[cls] for cls in type(layer).__mro__ if cls in LAST_MODULES), None)
    return None if node.op == "get_attr" else LAST_FUNCTIONS.get(node.target)


def lowering_for(node: fx.Node, layer: nn.Module | None) -> Lowering | None:
    """The lowering of a node, or None where there is none."""
    if layer is not None:
        return next((MODULES[cls] for cls in type(layer).__mro__ if cls in MODULES), None)
    return None if node.op == "get_attr" else FUNCTIONS.get(node.target)


def works_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node writes its result into its (first) operand."""
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace")) or node.target in (operator.iadd, operator.imul)


def unsupported(node: fx.Node, what: str) -> InputError:
    """The error for a layer that cannot be exported exactly."""
    return InputError(f"layer '{node.target if node.op == 'call_module' else node.name}': {what} cannot be exported; "
                      "replace it by one of: " + ", ".join(sorted(cls.__name__ for cls in MODULES)) +
                      ", or an elementwise function of them")
