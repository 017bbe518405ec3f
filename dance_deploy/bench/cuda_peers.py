"""Who computes a layer in `dance-bench kernels --backend cuda`: our CUDA kernels, and cuDNN's convolutions by torch.

All in one process, on one stream: they share clocks and heat, and take turns.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

import numpy as np

from dance_deploy.bench import cuda_library
from dance_deploy.bench.conv_graph import input_of, weights_of
from dance_deploy.bench.cuda_gpu import Gpu
from dance_deploy.bench.keep_cases import DENSE as ALL_KEPT
from dance_deploy.bench.keep_cases import KeepCase, masks_of
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, GATE_TAU, unequal_pads
from dance_deploy.bench.kernels import CUDA_RIVALS
from dance_deploy.errors import OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names

_KINDS = (1, 0, 0)  # channels last, float32, masks of bytes
_PREFIX = "gated_conv3d_f32_"


class Peer(Protocol):
    """What computes one layer; ways as in kernel_peers."""

    def ms(self, what: str) -> float:
        """Milliseconds on the device of one run."""

    def output(self, what: str) -> np.ndarray:
        """Y [1, M, T', H', W'] of one run."""


class Ours:
    """Our kernels, channels last, as a body's plugins run them. One graph for all masks: they are written in place."""

    def __init__(self, gpu: Gpu, geometry: Conv3dGeometry, seed: int) -> None:
        self.gpu, self.geometry, self.seed = gpu, geometry, seed
        w, b = weights_of(geometry, seed)
        self.x = gpu.tensor(np.moveaxis(input_of(geometry, seed), 1, -1))
        self.w, self.b = gpu.tensor(w), gpu.tensor(b)
        self.y = gpu.empty((1, *geometry.out_size, geometry.out_channels))
        self.keep = [gpu.tensor(mask[None].astype(np.uint8)) for mask in masks_of(ALL_KEPT, geometry, seed)]
        self.masks: dict[str, list[Any]] = {}
        self.variants: dict[str, str] = {}
        self.calls: dict[str, Callable[[], object]] = {GATE: gpu.captured(self._gate())}
        for name, algorithm in ((AUTOMATIC, cuda_library.AUTOMATIC), (DIRECT, cuda_library.DIRECT)):
            self._load(name, algorithm)

    def _load(self, name: str, algorithm: int) -> None:
        gpu, conv = self.gpu, self._setup(algorithm)
        try:
            sizes = gpu.library.conv_sizes(conv)
        except OperationError:
            if name == AUTOMATIC:
                raise
            self.calls[name], self.variants[name] = self.calls[AUTOMATIC], self.variants[AUTOMATIC]
            return  # a geometry that the direct kernel does not serve
        packed = gpu.empty((sizes.packed_bytes,), "uint8")
        workspace = gpu.empty((sizes.workspace_bytes,), "uint8")
        gpu.library.pack_weights(conv, self.w.data_ptr(), packed.data_ptr(), gpu.stream())

        def launch() -> None:
            tensors = [t.data_ptr() for t in (self.x, packed, self.b, *self.keep)] + [None, self.y.data_ptr()]
            gpu.library.conv(conv, tensors, workspace.data_ptr(), sizes.workspace_bytes, gpu.stream())

        variant = sizes.variant[len(_PREFIX):] if sizes.variant.startswith(_PREFIX) else sizes.variant
        self.calls[name], self.variants[name] = gpu.captured(launch), variant

    def _setup(self, algorithm: int) -> cuda_library.Conv:
        g = self.geometry
        return cuda_library.Conv(
            x_shape=(1, g.in_channels, *g.in_size), w_shape=(g.out_channels, g.in_channels // g.group, *g.kernel),
            strides=g.strides, pads=g.pads, dilations=g.dilations, group=g.group, channels_last=1, type=0, mask_type=0,
            algorithm=algorithm, multiprocessors=self.gpu.multiprocessors(), minimum=names.MIN_DEFAULT)

    def _gate(self) -> Callable[[], None]:
        gpu, shape = self.gpu, (1, self.geometry.in_channels, *self.geometry.in_size)
        size = gpu.library.gate_workspace(shape, _KINDS)
        tau, workspace = gpu.tensor(np.full((1, 3), GATE_TAU, np.float32)), gpu.empty((size,), "uint8")
        # masks of its own: what the gate decides must not change what the convolutions keep
        masks = [gpu.empty(tuple(mask.shape), "uint8") for mask in self.keep]

        def launch() -> None:
            pointers = [t.data_ptr() for t in (self.x, tau, *masks, workspace)]
            gpu.library.gate(shape, _KINDS, pointers, size, gpu.stream())

        return launch

    def _prepared(self, what: str) -> Callable[[], object]:
        if what == GATE:
            return self.calls[GATE]
        name, kind, rate = what.split()
        if what not in self.masks:
            wanted = masks_of(KeepCase(kind, float(rate)), self.geometry, self.seed)
            self.masks[what] = [self.gpu.tensor(mask[None].astype(np.uint8)) for mask in wanted]
        for kept, mask in zip(self.keep, self.masks[what]):
            kept.copy_(mask)
        return self.calls[name]

    def ms(self, what: str) -> float:
        """Milliseconds of one run; writing the masks is not in it."""
        return self.gpu.ms(self._prepared(what))

    def output(self, what: str) -> np.ndarray:
        """Y in [N, C, T, H, W]."""
        self.y.fill_(float("nan"))
        self._prepared(what)()
        return np.moveaxis(self.gpu.array(self.y), -1, 1)


class CudnnConv3d:
    """cuDNN's 3D convolution in float32, TF32 off, in whichever memory format is faster here."""

    def __init__(self, gpu: Gpu, geometry: Conv3dGeometry, seed: int) -> None:
        self.gpu, torch = gpu, gpu.torch
        x = torch.nn.functional.pad(gpu.tensor(input_of(geometry, seed)), unequal_pads(geometry))
        w, b = (gpu.tensor(array) for array in weights_of(geometry, seed))
        settings = dict(stride=geometry.strides, padding=tuple(map(min, geometry.pads[:3], geometry.pads[3:])),
                        dilation=geometry.dilations, groups=geometry.group)
        self.out: list[Any] = []
        ways = [gpu.captured(self._conv(x.contiguous(memory_format=f), w.contiguous(memory_format=f), b, settings))
                for f in (torch.contiguous_format, torch.channels_last_3d)]
        self.call = min(ways, key=lambda call: min(gpu.ms(call) for _ in range(4)))
        self.chosen = ways.index(self.call)

    def _conv(self, x: Any, w: Any, b: Any, settings: dict[str, Any]) -> Callable[[], None]:
        place, at = self.out, len(self.out)
        place.append(None)

        def launch() -> None:
            place[at] = self.gpu.torch.nn.functional.conv3d(x, w, b, **settings)

        return launch

    def ms(self, what: str) -> float:
        """Milliseconds of one run."""
        return self.gpu.ms(self.call)

    def output(self, what: str) -> np.ndarray:
        """Y of one run."""
        self.call()
        return self.gpu.array(self.out[self.chosen])


class CudnnConv2d(CudnnConv3d):
    """The same as one 2D convolution a kernel frame, added up: cuDNN has Winograd for 2D, and none for 3D."""

    def _conv(self, x: Any, w: Any, b: Any, settings: dict[str, Any]) -> Callable[[], None]:
        torch, place, at = self.gpu.torch, self.out, len(self.out)
        place.append(None)
        flat = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        # of the frames' axis
        step, pad, apart = (settings[key][0] for key in ("stride", "padding", "dilation"))
        frames = x[0].transpose(0, 1).contiguous(memory_format=flat)
        slices = [w[:, :, k].contiguous(memory_format=flat) for k in range(w.shape[2])]
        t_out = (x.shape[2] + 2 * pad - apart * (w.shape[2] - 1) - 1) // step + 1
        plane = {key: settings[key][1:] for key in ("stride", "padding", "dilation")}

        def launch() -> None:
            total: Any = None
            for k, part in enumerate(slices):
                # output frames whose frame under this kernel frame exists
                first = max(0, -(-(pad - k * apart) // step))
                last = min(t_out - 1, (x.shape[2] - 1 + pad - k * apart) // step)
                if last < first:
                    continue
                begin = first * step + k * apart - pad
                seen = frames[begin:begin + (last - first) * step + 1:step]
                made = torch.nn.functional.conv2d(seen, part, None, groups=settings["groups"], **plane)
                if total is None:
                    total = b.view(1, -1, 1, 1).repeat(t_out, 1, *made.shape[2:]).contiguous(memory_format=flat)
                total[first:last + 1] += made
            place[at] = total.transpose(0, 1)[None]  # a view

        return launch


RIVALS: dict[str, type] = dict(zip(CUDA_RIVALS, (CudnnConv3d, CudnnConv2d)))
