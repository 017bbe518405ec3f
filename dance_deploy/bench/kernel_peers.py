"""Who computes a layer in `dance-bench kernels`: our kernels, and the dense convolutions of other runtimes.

A peer is a class: made for one layer, `ms(what)` runs it once and returns the milliseconds by a clock in seconds.
`what` is the name of a way to run it: for ours, a kind and rate of masks by automatic or direct kernels, or the gate;
for others only "dense".
"""

from __future__ import annotations

import functools
import time
from typing import Any, Callable, Protocol

import numpy as np

from dance_deploy.bench.conv_graph import dense_conv, gate, gated_conv, input_of, weights_of
from dance_deploy.bench.keep_cases import DENSE as ALL_KEPT
from dance_deploy.bench.keep_cases import KeepCase, masks_of
from dance_deploy.errors import MissingPackageError, OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.ops import names
from dance_deploy.runtime import tuned_costs
from dance_deploy.runtime.kernels import library_path
from dance_deploy.runtime.onnxruntime_backend import register

OURS = "dance"
GATE, DENSE = "gate", "dense"
AUTOMATIC, DIRECT = "automatic", "direct"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
GATE_TAU = 0.5  # every step of the gate has something to decide


def way(variant: str, case: KeepCase) -> str:
    """Name of running our kernels on a case; variant: AUTOMATIC or DIRECT."""
    return f"{variant} {case.kind} {case.rate}"


def dense_way(peer: str) -> str:
    """Name of running a peer's dense convolution."""
    return way(AUTOMATIC, ALL_KEPT) if peer == OURS else DENSE


class Peer(Protocol):
    """What computes one layer."""

    def ms(self, what: str) -> float:
        """Milliseconds of one run."""

    def output(self, what: str) -> np.ndarray:
        """Y [1, M, T', H', W'] of the last run, float32."""


@functools.lru_cache(maxsize=None)
def costs_entry(library: str) -> str | None:
    """The tuned costs that our sessions go by, or None; looked up, and warned of, once for all layers."""
    found = tuned_costs.for_session(library, "fp32")
    return None if found is None else found.entry()


def _session(data: bytes, threads: int, library: str | None = None, strict: bool = False) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if library is not None:
        if strict:
            options.add_session_config_entry("dance.winograd", "0")
        elif costs_entry(library) is not None:
            options.add_session_config_entry(tuned_costs.ENTRY, costs_entry(library))
        register(options, library)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _value(array: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


class _Bound:
    """A session with inputs and outputs where they stay: nothing is copied around a run.

    inputs: OrtValues; y: one that the output is written to, or None for wherever the session puts its outputs.
    """

    def __init__(self, session: Any, inputs: dict[str, Any], y: Any, clock: Callable[[], float]) -> None:
        self.clock, self.y, self.kept = clock, y, inputs
        self.session, self.binding = session, session.io_binding()
        for name, value in inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        if y is not None:
            self.binding.bind_ortvalue_output("Y", y)
        else:
            for output in session.get_outputs():
                self.binding.bind_output(output.name)

    def ms(self) -> float:
        start = self.clock()
        self.session.run_with_iobinding(self.binding)
        return 1e3 * (self.clock() - start)


class Ours:
    """Our kernels, channels last, as a body runs them: in ONNX Runtime, on its threads."""

    def __init__(self, geometry: Conv3dGeometry, threads: int, seed: int, clock: Callable[[], float]) -> None:
        library = library_path()
        if library is None:
            raise OperationError("the op library is not built, so there is nothing to measure; run: make -C kernels")
        self.geometry, self.seed, self.clock = geometry, seed, clock
        data = gated_conv(geometry, seed)
        self.sessions = {AUTOMATIC: _session(data, threads, library),
                         DIRECT: _session(data, threads, library, strict=True)}
        self.x = _value(np.ascontiguousarray(np.moveaxis(input_of(geometry, seed), 1, -1)))
        # one output for all ways, as warm in the caches as those of peers, which have but one way
        self.y = _value(np.empty((1, *geometry.out_size, geometry.out_channels), np.float32))
        tau = _value(np.full((1, 3), GATE_TAU, np.float32))
        self.bound = {GATE: _Bound(_session(gate(geometry), threads, library), {"X": self.x, "tau": tau}, None, clock)}

    def _way(self, what: str) -> _Bound:
        if what not in self.bound:
            variant, kind, rate = what.split()
            masks = masks_of(KeepCase(kind, float(rate)), self.geometry, self.seed)
            inputs = {"X": self.x, **{name: _value(mask[None]) for name, mask in zip(names.MASK_NAMES, masks)}}
            self.bound[what] = _Bound(self.sessions[variant], inputs, self.y, self.clock)
        return self.bound[what]

    def ms(self, what: str) -> float:
        """Milliseconds of one run."""
        return self._way(what).ms()

    def output(self, what: str) -> np.ndarray:
        """Y in [N, C, T, H, W]."""
        self._way(what)
        return np.moveaxis(self.y.numpy(), -1, 1)


class OnnxRuntime:
    """ONNX Runtime's own Conv."""

    def __init__(self, geometry: Conv3dGeometry, threads: int, seed: int, clock: Callable[[], float]) -> None:
        y = _value(np.empty((1, geometry.out_channels, *geometry.out_size), np.float32))
        self.bound = _Bound(_session(dense_conv(geometry, seed), threads), {"X": _value(input_of(geometry, seed))}, y,
                            clock)

    def ms(self, what: str) -> float:
        """Milliseconds of one run."""
        return self.bound.ms()

    def output(self, what: str) -> np.ndarray:
        """Y of the last run."""
        return self.bound.y.numpy()


def unequal_pads(geometry: Conv3dGeometry) -> list[int]:
    """What begins and ends do not share, in the order of torch's pad."""
    extra: list[int] = []
    for begin, end in reversed(list(zip(geometry.pads[:3], geometry.pads[3:]))):
        extra += [begin - min(begin, end), end - min(begin, end)]
    return extra


class Torch:
    """torch's conv3d, in whichever memory format is faster here."""

    def __init__(self, geometry: Conv3dGeometry, threads: int, seed: int, clock: Callable[[], float]) -> None:
        import torch

        torch.set_num_threads(threads)
        x = torch.nn.functional.pad(torch.from_numpy(input_of(geometry, seed)), unequal_pads(geometry))
        w, b = (torch.from_numpy(a) for a in weights_of(geometry, seed))
        settings: dict[str, Any] = {
            "stride": geometry.strides, "padding": tuple(map(min, geometry.pads[:3], geometry.pads[3:])),
            "dilation": geometry.dilations, "groups": geometry.group}
        self.torch, self.clock = torch, clock
        self.y: Any = None
        self.formats = [(x.contiguous(memory_format=f), w.contiguous(memory_format=f), b, settings)
                        for f in (torch.contiguous_format, torch.channels_last_3d)]
        self.chosen = min(self.formats, key=self._best_ms)

    def _best_ms(self, chosen: Any) -> float:
        self.chosen = chosen
        return min(self.ms(DENSE) for _ in range(4))

    def ms(self, what: str) -> float:
        """Milliseconds of one run."""
        x, w, b, settings = self.chosen
        with self.torch.inference_mode():
            start = self.clock()
            self.y = self.torch.nn.functional.conv3d(x, w, b, **settings)
            return 1e3 * (self.clock() - start)

    def output(self, what: str) -> np.ndarray:
        """Y of the last run."""
        return self.y.numpy()


class OpenVino:
    """OpenVINO's convolution alone, by its own counters: conversions at the graph's ends, which a network shares, are
    not counted."""

    def __init__(self, geometry: Conv3dGeometry, threads: int, seed: int, clock: Callable[[], float]) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingPackageError("openvino", "bench", "the peer openvino") from None
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                    "PERF_COUNT": True}
        compiled = core.compile_model(core.read_model(dense_conv(geometry, seed)), "CPU", settings)
        self.request, self.x = compiled.create_infer_request(), input_of(geometry, seed)
        self.y: np.ndarray | None = None
        self.clock = clock

    def ms(self, what: str) -> float:
        """Milliseconds of the convolution's nodes in one run; of processor time, their share of the run's."""
        start = self.clock()
        self.y = next(iter(self.request.infer({"X": self.x}, share_inputs=True).values()))
        taken = self.clock() - start
        ends = ("Parameter", "Input", "Constant", "Reorder", "Result", "Output")
        seconds = {True: 0.0, False: 0.0}
        for node in self.request.profiling_info:
            seconds[node.node_type in ends] += node.real_time.total_seconds()
        if self.clock is CLOCKS["wall"]:
            return 1e3 * seconds[False]
        return 1e3 * taken * seconds[False] / sum(seconds.values())

    def output(self, what: str) -> np.ndarray:
        """Y of the last run."""
        return self.y.copy()  # type: ignore[union-attr]


PEERS: dict[str, type] = {OURS: Ours, "onnxruntime": OnnxRuntime, "torch": Torch, "openvino": OpenVino}
