"""The names of a graph's tensors in both layouts, [N, C, T, H, W] and channels last, [N, T, H, W, C].

A tensor exists in the layout that it was made in; the other one is made where it is first read, once.
"""

from __future__ import annotations

from torch import fx

from dance_deploy.export.onnx_builder import OnnxBuilder
from dance_deploy.method.surgery import shape_of
from dance_deploy.ops.functions import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, to_channels_last_node

LAST_AXIS = (0, 4, 1, 2, 3)  # where axes N, C, T, H, W lie in a channels-last tensor


class Tensors:
    """What the tensor of each fx node is called."""

    def __init__(self, builder: OnnxBuilder) -> None:
        self._builder = builder
        self._first: dict[fx.Node, str] = {}
        self._last: dict[fx.Node, str] = {}

    def bind(self, node: fx.Node, name: str, *, last: bool = False) -> None:
        """Say that the tensor of `node` is called `name`, in channels last or else as torch has it."""
        (self._last if last else self._first)[node] = name

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """Say that `node` passes on the tensor of `source`."""
        for names in (self._first, self._last):
            if source in names:
                names[node] = names[source]

    def knows(self, node: fx.Node) -> bool:
        """Whether the node has a tensor."""
        return node in self._first or node in self._last

    def is_last(self, node: fx.Node) -> bool:
        """Whether the tensor exists in channels last."""
        return node in self._last

    def name(self, node: fx.Node, *, last: bool = False, plain: bool = False) -> str:
        """Name of the tensor in the wanted layout, converted where it does not exist in it; plain: by standard ops."""
        names = self._last if last else self._first
        if node not in names:
            names[node] = self._converted(node, last, plain)
        return names[node]

    def _converted(self, node: fx.Node, last: bool, plain: bool) -> str:
        n, c, *size = shape_of(node)
        name = self._first[node] if last else self._last[node]
        wanted = f"{name}.{'last' if last else 'first'}"
        if size == [1, 1, 1]:
            shape = (n, 1, 1, 1, c) if last else (n, c, 1, 1, 1)
            return self._builder.node("Reshape", [name, self._builder.ints(*shape)], wanted)
        if not last or plain:
            return self._builder.node("Transpose", [name], wanted, perm=TO_CHANNELS_LAST if last else TO_CHANNELS_FIRST)
        output = self._builder.unique(wanted)
        self._builder.nodes.append(to_channels_last_node(name, output, output))
        return output
