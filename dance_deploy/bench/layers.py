"""Which convolutions `dance-bench kernels` times: those of named architectures, and named ones of R3D-18."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry

R3D18 = "r3d18"


class Layer(NamedTuple):
    """One convolution: label for people, how often its architecture runs it, geometry."""

    label: str
    times: int
    geometry: Conv3dGeometry


def _cube(name: str, channels: tuple[int, int], in_size: tuple[int, int, int], stride: int = 1) -> Conv3dGeometry:
    return Conv3dGeometry(name, *channels, in_size, (3, 3, 3), (stride,) * 3, (1,) * 6)


# What design and tests of the kernels speak of, at 1x3x16x112x112: stages of R3D-18, and what enters them (s).
NAMED = {
    "stem": Conv3dGeometry("stem", 3, 64, (16, 112, 112), (3, 7, 7), (1, 2, 2), (1, 3, 3) * 2),
    "L1": _cube("L1", (64, 64), (16, 56, 56)), "L2s": _cube("L2s", (64, 128), (16, 56, 56), 2),
    "L2": _cube("L2", (128, 128), (8, 28, 28)), "L3s": _cube("L3s", (128, 256), (8, 28, 28), 2),
    "L3": _cube("L3", (256, 256), (4, 14, 14)), "L4s": _cube("L4s", (256, 512), (4, 14, 14), 2),
    "L4": _cube("L4", (512, 512), (2, 7, 7)),
}


def named_layers() -> list[Layer]:
    """The named layers of R3D-18."""
    return [Layer(name, 1, geometry) for name, geometry in NAMED.items()]


def layers_of(architecture: str) -> list[Layer]:
    """The different convolutions of a named architecture in the order in which they run; raises InputError."""
    from dance_deploy.method.surgery import conv_nodes, geometry_of, shape_of, source_of, trace
    from dance_deploy.models import ARCHITECTURES, build

    if architecture not in ARCHITECTURES:
        raise InputError(f"--arch: '{architecture}' is unknown; choose from {', '.join(ARCHITECTURES)}")
    spec = ARCHITECTURES[architecture].clip
    traced = trace(build(architecture, 2, seed=0), spec.shape)
    found: dict[Conv3dGeometry, Layer] = {}
    for node, conv in conv_nodes(traced):
        name = str(node.target)
        geometry = geometry_of(name, conv, shape_of(source_of(node))[2:])
        known = found.setdefault(geometry._replace(name=""), Layer(name, 0, geometry))
        found[geometry._replace(name="")] = known._replace(times=known.times + 1)
    return list(found.values())


def chosen_layers(architectures: Sequence[str], names: Sequence[str]) -> list[Layer]:
    """Layers of the architectures, or the named ones where there are none; of them those that `names` lists, if any.

    A name is a label, or the beginning of labels up to a dot. Raises InputError for names of nothing.
    """
    layers = [layer for name in architectures for layer in layers_of(name)] if architectures else named_layers()
    if not names:
        return layers
    for name in names:
        if not any(_is_called(layer, name) for layer in layers):
            raise InputError(f"--layers: '{name}' is none of {', '.join(layer.label for layer in layers)}")
    return [layer for layer in layers if any(_is_called(layer, name) for name in names)]


def _is_called(layer: Layer, name: str) -> bool:
    return layer.label == name or layer.label.startswith(name + ".")
