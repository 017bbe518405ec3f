"""What is compared: our gated body, our kernels with nothing dropped, and dense runtimes on the same weights.

Each peer is a function that loads a bundle and returns a callable that runs the golden clip once and returns logits.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Callable, NamedTuple

import numpy as np

from dance_deploy.bench.forced import force_masks, forced_masks
from dance_deploy.bundle import Bundle, open_bundle
from dance_deploy.errors import MissingPackageError, OperationError
from dance_deploy.runtime import one_graph
from dance_deploy.runtime.backends import controller_file
from dance_deploy.runtime.kernels import library_path
from dance_deploy.runtime.onnxruntime_backend import (
    register, release_file, session_options, use_bf16, use_tuned_costs,
)

Run = Callable[[], np.ndarray]


class Case(NamedTuple):
    """What one run measures: budget of the gated body, or forced keep rates in place of the gates' decisions.

    precision: "fp32" or "bf16"; peers that have no bfloat16 compute in float32 (FLOAT32_ONLY).
    """

    threads: int
    budget: float
    rates: dict[str, float] | None = None
    pattern: str = "blob"
    seed: int = 0
    precision: str = "fp32"


def golden_clip(bundle: Bundle) -> np.ndarray:
    """The bundle's recorded clip, float32 [1, 3, T, H, W]."""
    from dance_deploy.runtime.selftest import golden_from_bundle

    return golden_from_bundle(bundle).clip


def open_session(data: bytes, threads: int, library: str | None = None, precision: str = "fp32") -> Any:
    """A session of ONNX Runtime; library: our op library's path, for a graph of dance ops, run as dance-run runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if library is not None:
        options = session_options(onnxruntime, threads)
        if precision == "bf16":
            use_bf16(options, library)
        use_tuned_costs(options, library, precision)
        register(options, library)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    release_file(session)
    return session


def _apart(rewrite: Callable[..., bytes], *arguments: Any) -> bytes:
    """rewrite(*arguments) in a process of its own: what rewriting a graph takes is no part of our memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(rewrite, *arguments).result()


def _rewritten_body(path: str, case: Case) -> bytes:
    bundle = open_bundle(path, verify=False)
    assert case.rates is not None
    masks = forced_masks(bundle.manifest.gates, case.rates, case.pattern, case.seed)
    return force_masks(bundle.read("body.onnx"), masks)


def built_library() -> str:
    """Path of our op library; raises OperationError where it is not built."""
    library = library_path()
    if library is None:
        raise OperationError("the op library is not built, so there is nothing to measure; run: make -C kernels")
    return library


def _ours(bundle: Bundle, case: Case) -> Run:
    """Controller and gated body; gates and controller are part of the time. As dance-run runs them."""
    library = built_library()
    body = bundle.read("body.onnx") if case.rates is None else _apart(_rewritten_body, bundle.path, case)
    first = bundle.read(controller_file(bundle.manifest, library))
    feeds = {"clip": golden_clip(bundle), "budget": np.array([case.budget], np.float32)}
    pieces = one_graph.joined(first, body) if case.precision == "fp32" else None
    if pieces is not None:
        del first, body
        data = b"".join(pieces)
        del pieces
        session = open_session(data, case.threads, library)
        return lambda: session.run(["logits"], feeds)[0]
    gated = open_session(body, case.threads, library, case.precision)
    del body
    controller = open_session(first, case.threads, library)

    def run() -> np.ndarray:
        stem, tau = controller.run(["stem", "tau"], feeds)
        return gated.run(["logits"], {"stem": stem, "tau": tau})[0]

    return run


def _ours_dense(bundle: Bundle, case: Case) -> Run:
    """Our kernels with nothing dropped: what pruning starts from. Gates and controller run all the same."""
    return _ours(bundle, case._replace(budget=1.0, rates=None))


def _ours_ungated(bundle: Bundle, case: Case) -> Run:
    """Our kernels in one graph, without gates and controller."""
    session = open_session(_apart(_ungated_graph, bundle.path), case.threads, built_library(), case.precision)
    clip = golden_clip(bundle)
    return lambda: session.run(["logits"], {"clip": clip})[0]


def _ungated_graph(path: str) -> bytes:
    from dance_deploy.bench.ungated import ungated_graph  # only here: onnx is no part of a peer's memory

    return ungated_graph(open_bundle(path, verify=False))


def _ours_float32(bundle: Bundle, case: Case) -> Run:
    """As _ours in float32, beside another precision: what it gains, and what its logits are compared with."""
    return _ours(bundle, case._replace(precision="fp32"))


def _onnxruntime(bundle: Bundle, case: Case) -> Run:
    dense, clip = open_session(bundle.read("dense.onnx"), case.threads), golden_clip(bundle)
    return lambda: dense.run(["logits"], {"clip": clip})[0]


def _torch(bundle: Bundle, case: Case) -> Run:
    import torch

    from dance_deploy.bench.torch_graph import TorchGraph

    torch.set_num_threads(case.threads)
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    graph, clip = TorchGraph(bundle.read("dense.onnx"), dtype), torch.from_numpy(golden_clip(bundle))
    return lambda: graph(clip).numpy()


def _openvino(bundle: Bundle, case: Case) -> Run:
    try:
        import openvino
    except ImportError:
        raise MissingPackageError("openvino", "bench", "the peer openvino") from None
    core = openvino.Core()
    hint = "bf16" if case.precision == "bf16" else "f32"
    settings = {"INFERENCE_NUM_THREADS": case.threads, "INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(bundle.read("dense.onnx")), "CPU", settings)
    request, clip = compiled.create_infer_request(), golden_clip(bundle)
    return lambda: next(iter(request.infer({"clip": clip}).values())).copy()


PEERS: dict[str, Callable[[Bundle, Case], Run]] = {
    "gated": _ours, "kept": _ours_dense, "ungated": _ours_ungated, "float32": _ours_float32,
    "onnxruntime": _onnxruntime, "torch": _torch, "openvino": _openvino}
PRECISIONS = ("fp32", "bf16")
FLOAT32_ONLY = ("float32", "onnxruntime")
OUTSIDERS = ("onnxruntime", "torch", "openvino")
MODEL_PEERS = (*OUTSIDERS, "ungated")  # a whole network's
DESCRIPTIONS = {"gated": "dance, gated", "kept": "dance, all kept", "ungated": "dance, without gates",
                "float32": "dance, gated, float32", "onnxruntime": "ONNX Runtime, dense", "torch": "PyTorch, dense",
                "openvino": "OpenVINO, dense"}
