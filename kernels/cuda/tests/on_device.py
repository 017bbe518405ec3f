#!/usr/bin/env python3
"""Check and time the CUDA kernels on a real GPU: against the definition, and against cuDNN's conv3d through torch.

    make -C kernels/cuda library ARCH=sm_87            (or what the device is)
    python kernels/cuda/tests/on_device.py             right, then fast; --json FILE keeps the raw figures

Needs torch with CUDA. Right: every case of tests/kernels/cuda_cases.py (NaN in whatever a mask drops, NaN in outputs
and workspaces, sentinels round them), and a CUDA graph replayed with other masks. Run it under `compute-sanitizer
--tool memcheck`, `racecheck` and `initcheck` too (add --no-timing). Fast: layers of R3D-18 and C3D at batch 1, float32
without TF32 and float16, dense and at 75, 50 and 25 % of frames, channels and features, ours and cuDNN's in turn in one
process, CUDA events, medians. In float16 cuDNN uses tensor cores where the GPU has them; these kernels do not.

--device cpu with libdance_cuda_host.so (make host_library) tries this script itself, without
timings: that is no result.
"""
import argparse
import json
import os
import pathlib
import statistics
import struct
import sys

import numpy as np
import torch

CUDA = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CUDA.parents[1] / "tests" / "kernels"), str(CUDA.parents[1])]
import cuda_cases  # noqa: E402
import emulated_cuda  # noqa: E402

from dance_deploy.bench import cuda_library  # noqa: E402
from dance_deploy.errors import OperationError  # noqa: E402
from dance_deploy.runtime import kernels  # noqa: E402

GUARD = 1024    # bytes before and after every buffer that is written
ALGORITHMS = {"direct": cuda_library.DIRECT, "winograd": cuda_library.WINOGRAD}
SHARES = (1.0, 0.75, 0.5, 0.25)

# name, C, T, H, W, M, kernel, strides; padding keeps the extents
LAYERS = [
    ("r3d18.layer1", 64, 16, 56, 56, 64, (3, 3, 3), (1, 1, 1)),
    ("r3d18.layer2.0", 64, 16, 56, 56, 128, (3, 3, 3), (2, 2, 2)),
    ("r3d18.layer2", 128, 8, 28, 28, 128, (3, 3, 3), (1, 1, 1)),
    ("r3d18.layer3", 256, 4, 14, 14, 256, (3, 3, 3), (1, 1, 1)),
    ("r3d18.layer4", 512, 2, 7, 7, 512, (3, 3, 3), (1, 1, 1)),
    ("r3d18.layer2.shortcut", 64, 16, 56, 56, 128, (1, 1, 1), (2, 2, 2)),
    ("c3d.conv2a", 64, 16, 56, 56, 128, (3, 3, 3), (1, 1, 1)),
    ("c3d.conv3b", 256, 8, 28, 28, 256, (3, 3, 3), (1, 1, 1)),
    ("c3d.conv4b", 512, 4, 14, 14, 512, (3, 3, 3), (1, 1, 1)),
    ("r2plus1d18.layer1.spatial", 64, 16, 56, 56, 144, (1, 3, 3), (1, 1, 1)),
    ("r2plus1d18.layer1.temporal", 144, 16, 56, 56, 64, (3, 1, 1), (1, 1, 1)),
]


class Guarded:
    """Device bytes between sentinels; the bytes hold NaN (0xff) at first."""

    def __init__(self, size, device):
        self.whole = torch.full((size + 2 * GUARD,), 255, dtype=torch.uint8, device=device)
        self.inner = self.whole[GUARD:GUARD + size]

    def intact(self):
        return bool((self.whole[:GUARD] == 255).all() and (self.whole[GUARD + self.inner.numel():] == 255).all())


class Device:
    """The library on a device. `ask` answers the emulator's requests, so its cases run here as they are."""

    def __init__(self, library, device):
        self.library, self.device = cuda_library.CudaLibrary(library), device

    def stream(self):
        return torch.cuda.current_stream().cuda_stream if self.device == "cuda" else None

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def tensor(self, array):
        """Bytes of an array on the device, at an address fit for vector loads."""
        return torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).reshape(-1).copy()).to(self.device)

    def conv(self, conv, tensors, workspace):
        """tensors: x, packed, b, masks, z or None, y."""
        self.library.conv(conv, [None if t is None else t.data_ptr() for t in tensors], workspace.data_ptr(),
                          workspace.numel(), self.stream())

    def pack(self, conv, w, packed):
        self.library.pack_weights(conv, w.data_ptr(), packed.data_ptr(), self.stream())

    def ask(self, op, numbers, arrays, tail=b""):
        """As emulated_cuda.Emulator.ask; launches are not counted."""
        return self._ask_conv(numbers, arrays, tail) if op == 0 else self._ask_gate(numbers, arrays)

    def _ask_conv(self, numbers, arrays, tail):
        n, c, t, h, w, m = (int(v) for v in numbers[:6])
        k, s, p, d = (tuple(int(v) for v in numbers[a:b]) for a, b in ((6, 9), (9, 12), (12, 18), (18, 21)))
        group, channels_last, kind, mask_type, algorithm, multiprocessors, with_z, _ = (int(v) for v in numbers[21:29])
        conv = cuda_library.Conv((n, c, t, h, w), (m, c // group, *k), s, p, d, group, channels_last, kind, mask_type,
                                 algorithm, multiprocessors, struct.unpack("<d", tail)[0])
        packed_bytes, workspace_bytes, algorithm, variant = self.library.conv_sizes(conv)
        out = [(size + p[i] + p[i + 3] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i, size in enumerate((t, h, w))]
        element = 2 if kind else 4
        y = Guarded(n * m * int(np.prod(out)) * element, self.device)
        packed, workspace = Guarded(packed_bytes, self.device), Guarded(workspace_bytes, self.device)
        x, weights, *rest = (self.tensor(a) for a in arrays)
        self.pack(conv, weights, packed.inner)
        self.conv(conv, [x, packed.inner, *rest[:4], rest[4] if with_z else None, y.inner], workspace.inner)
        self.synchronise()
        assert y.intact() and packed.intact() and workspace.intact(), "a sentinel was overwritten"
        return emulated_cuda.OK, 0, algorithm, variant, y.inner.cpu().numpy().tobytes()

    def _ask_gate(self, numbers, arrays):
        shape, kinds = [int(v) for v in numbers[:5]], [int(v) for v in numbers[5:]]
        n, c, t, h, w = shape
        size = self.library.gate_workspace(shape, kinds)
        each = 4 if kinds[2] else 1
        masks = [Guarded(count * each, self.device) for count in (n * t, n * c, n * h * w)]
        workspace = Guarded(size, self.device)
        x, tau = (self.tensor(a) for a in arrays)
        pointers = [one.data_ptr() for one in (x, tau, *(mask.inner for mask in masks), workspace.inner)]
        self.library.gate(shape, kinds, pointers, size, self.stream())
        self.synchronise()
        assert workspace.intact() and all(mask.intact() for mask in masks), "a sentinel was overwritten"
        return emulated_cuda.OK, 0, 0, "", b"".join(mask.inner.cpu().numpy().tobytes() for mask in masks)


class Layer:
    """One layer with its tensors on the device, ready to run with any masks."""

    def __init__(self, device, layer, dtype, algorithm, channels_last=True):
        self.device = device
        self.name, c, t, h, w, m, kernel, strides = layer
        pads = tuple((k - 1) // 2 for k in kernel)
        self.setup = cuda_library.Conv((1, c, t, h, w), (m, c, *kernel), strides, pads * 2, (1, 1, 1), 1, channels_last,
                          dtype == torch.float16, 0, ALGORITHMS[algorithm], 0, 0.0)
        packed_bytes, workspace_bytes, _, self.variant = device.library.conv_sizes(self.setup)
        generator = torch.Generator().manual_seed(0)
        make = lambda *shape: torch.randn(*shape, generator=generator).to(device.device, dtype)  # noqa: E731
        self.x, self.w, self.b = make(1, c, t, h, w), make(m, c, *kernel) / (c * 27) ** 0.5, make(m)
        out = [(size + 2 * p - k) // s + 1 for size, p, k, s in zip((t, h, w), pads, kernel, strides)]
        self.laid = self.x.permute(0, 2, 3, 4, 1).contiguous() if channels_last else self.x
        self.y = torch.empty((1, *out, m) if channels_last else (1, m, *out), dtype=dtype, device=device.device)
        self.packed = torch.empty(packed_bytes, dtype=torch.uint8, device=device.device)
        self.workspace = torch.empty(workspace_bytes, dtype=torch.uint8, device=device.device)
        self.masks = [torch.ones(s, dtype=torch.uint8, device=device.device) for s in ((1, t), (1, c), (1, h, w))]
        device.pack(self.setup, self.w, self.packed)
        self.strides, self.pads = strides, pads
        self.macs = m * int(np.prod(out)) * c * int(np.prod(kernel))

    def run(self):
        self.device.conv(self.setup, [self.laid, self.packed, self.b, *self.masks, None, self.y], self.workspace)

    def cudnn(self):
        return torch.nn.functional.conv3d(self.x, self.w, self.b, self.strides, self.pads).relu_()

    def keep(self, kind, share):
        """kind: frames, channels, blob or random. Masks are written in place: a captured graph sees them."""
        for mask in self.masks:
            mask.fill_(1)
        rng = np.random.default_rng(1)
        index = {"frames": 0, "channels": 1}.get(kind, 2)
        mask = np.ones(tuple(self.masks[index].shape), np.uint8)
        if kind == "blob":
            height, width = np.mgrid[:mask.shape[1], :mask.shape[2]]
            distance = np.hypot(height - mask.shape[1] * 0.4, width - mask.shape[2] * 0.6)
            mask[0] = distance <= np.quantile(distance, share)
        else:
            dropped = rng.permutation(mask.size)[:int(round(mask.size * (1 - share)))]
            mask.reshape(-1)[dropped] = 0
        self.masks[index].copy_(torch.from_numpy(mask))


def check_cases(device):
    """Names of the cases that fail, printed with their problem."""
    failed = []
    for case in cuda_cases.CASES:
        problem = cuda_cases.problem(device, case)
        print(f"{'FAILED' if problem else 'ok    '}  {case.name}" + (f": {problem}" if problem else ""))
        failed += [case.name] if problem else []
    return failed


def check_graph(device):
    """A graph captured with all kept, replayed with other masks, gives what a plain call gives."""
    for algorithm in ALGORITHMS:
        layer = Layer(device, LAYERS[2], torch.float32, algorithm)
        layer.run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            layer.run()
        for kind in ("frames", "channels", "blob"):
            layer.keep(kind, 0.5)
            layer.y.fill_(float("nan"))
            graph.replay()
            replayed = layer.y.clone()
            layer.run()
            torch.cuda.synchronize()
            assert torch.equal(replayed, layer.y), f"graph, {algorithm}, {kind}"
    print("ok      CUDA graph replayed with other masks")


def milliseconds(calls, repeats):
    """Median ms of each call by CUDA events, in turn, so that clocks and heat are shared."""
    times = {name: [] for name in calls}
    for _ in range(5):
        for call in calls.values():
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(each) for name, each in times.items()}


def time_layers(device, repeats):
    """Rows of the table: one a layer, type, algorithm, kind of mask and share."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    out = torch.empty(1 << 16, device="cuda")
    blocks = torch.cuda.get_device_properties(0).multi_processor_count * 16
    launch = lambda: device.library.fma_peak(out.data_ptr(), blocks, device.stream())  # noqa: E731
    peak = launch() / milliseconds({"peak": launch}, repeats)["peak"]
    print(f"FP32 FMA peak, register-only loop: {peak / 1e9:.2f} TMAC/s")
    rows = []
    for layer_of in LAYERS:
        for dtype in (torch.float32, torch.float16):
            for algorithm in ALGORITHMS:
                try:
                    layer = Layer(device, layer_of, dtype, algorithm)
                except OperationError as refused:
                    print(f"{layer_of[0]} {algorithm}: {refused}")
                    continue
                dense = None
                for kind in ("frames", "channels", "blob", "random"):
                    for share in SHARES if kind == "frames" else SHARES[1:]:
                        layer.keep(kind, share)
                        ms = milliseconds({"ours": layer.run, "cudnn": layer.cudnn}, repeats)
                        dense = dense or ms["ours"]
                        row = dict(layer=layer.name, type=str(dtype), variant=layer.variant, kind=kind, share=share,
                                   over_cudnn=ms["ours"] / ms["cudnn"], over_ideal=ms["ours"] / (dense * share),
                                   share_of_fp32_peak=layer.macs * share / ms["ours"] / peak, **ms)
                        rows.append(row)
                        print("{layer:28} {variant:28} {kind:9} {share:4.0%}  {ours:8.4f} ms  cuDNN dense {cudnn:8.4f} "
                              "ms  over cuDNN {over_cudnn:5.2f}  over ideal {over_ideal:5.2f}  of FP32 peak "
                              "{share_of_fp32_peak:4.0%}".format(**row))
    return rows


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", default=kernels.expected_cuda_path())
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--no-timing", action="store_true", help="correctness only")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", metavar="FILE", help="write the raw figures there")
    options = parser.parse_args()
    if not os.path.exists(options.library):
        parser.error(f"no library at {options.library}: make -C kernels/cuda library ARCH=sm_..")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; nothing was checked")
    device = Device(options.library, options.device)
    failed = check_cases(device)
    if options.device == "cpu":
        print("the host build ran: this tried the script, not a GPU")
        return 1 if failed else 0
    check_graph(device)
    if not options.no_timing and not failed:
        rows = time_layers(device, options.repeats)
        if options.json:
            about = dict(device=torch.cuda.get_device_name(), torch=torch.__version__, cuda=torch.version.cuda,
                         cudnn=torch.backends.cudnn.version())
            pathlib.Path(options.json).write_text(json.dumps(dict(about=about, rows=rows), indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
