"""What a backend is: the few functions that turn a bundle's graphs into numbers on one kind of hardware.

The base class checks what goes in and comes out, once for all; a backend fills in the four *_impl methods.
"""
import importlib
import time
from typing import List, NamedTuple, Tuple  # noqa: F401 (Tuple in a type comment)

import numpy as np

from dance_deploy.errors import InputError, OperationError
from dance_deploy.manifest import CONTROLLER_KERNELS
from dance_deploy.runtime.trt.wire import message

DEFAULT = "onnxruntime"
# name -> module with a class `Backend`; imported when chosen, because each needs its own package
MODULES = {
    "onnxruntime": "dance_deploy.runtime.onnxruntime_backend",
    "reference": "dance_deploy.runtime.reference_backend",
    "tensorrt": "dance_deploy.runtime.tensorrt_backend",
}
MASK_NAMES = ("frame_keep", "channel_keep", "feature_keep")


class LayerMasks(NamedTuple):
    """One gate's masks for one clip: bool [T], [C] and [H, W]; True keeps."""

    frame_keep: np.ndarray
    channel_keep: np.ndarray
    feature_keep: np.ndarray


class BodyOutput(NamedTuple):
    """logits: float32 [K]; kept: int64 [L, 3] frames, channels, features kept; masks: one LayerMasks a gate."""

    logits: np.ndarray
    kept: np.ndarray
    masks: List[LayerMasks]


class BackendBase(object):
    """Runs one bundle's graphs.

    load() once, then run_*() for any number of clips from one thread, then close().
    name: as chosen on the command line; description: one phrase on what really computes, known after load();
    precision: of the arithmetic, "fp32", "tf32", "fp16", or "bf16" where gated convolutions multiply in bfloat16.
    """

    name = ""
    description = ""
    precision = "fp32"
    precisions = ("fp32",)  # type: Tuple[str, ...]  # that load() may be asked for; empty where something else decides

    def __init__(self):
        self.tuned_costs = True
        self._manifest = None
        self._mask_names = []
        self._mask_shapes = []

    def load(self, bundle, gated=True, dense=False, threads=None, precision=None, tuned_costs=True):
        """Prepare what is asked for: the gated pair of graphs, the dense one, or both.

        threads: number of CPU threads, None for the backend's own choice; precision: of the gated graphs, one of
        `precisions`, None for the backend's own; tuned_costs: whether the CPU kernels may go by what `dance-bench
        tune` found on this machine (runtime/tuned_costs.py). Raises OperationError where a library refuses a graph,
        InputError where the backend or this machine lacks the precision, MissingPackageError where its package is
        absent.
        """
        self._check_against(bundle.manifest)
        if precision is not None:
            self._check_precision(precision)
            self.precision = precision
        self.tuned_costs = tuned_costs
        self.load_impl(bundle, gated, dense, threads)

    def run_controller(self, clip, budget):
        """clip: float32 [1, 3, T, H, W], budget: float in (0, 1] -> (stem, tau [L, 3]).

        Both may stay on the device until run_body() takes them; numpy.asarray() brings them over.
        """
        self._check_clip(clip)
        stem, tau = self.run_controller_impl(clip, np.array([budget], np.float32))
        self._check_output("controller.onnx", "tau", tau, (len(self._manifest.gates), 3))
        return stem, tau

    def run_gated(self, clip, budget):
        """What is run for a clip: (BodyOutput, the time.perf_counter() at which the body began).

        clip, budget: as run_controller() takes them.
        """
        stem, tau = self.run_controller(clip, budget)
        between = time.perf_counter()
        return self.run_body(stem, tau), between

    def take_apart(self):
        """Let go of what runs controller and body as one: from here on run_gated() runs the two that run_controller()
        and run_body() run. Returns whether there was such a thing."""
        return False

    def run_body(self, stem, tau):
        """What run_controller returned -> BodyOutput."""
        return self._body_output(*self.run_body_impl(stem, tau))

    def _body_output(self, logits, kept, flat):
        gates = self._manifest.gates
        self._check_output("body.onnx", "logits", logits, (1, len(self._manifest.model.labels)))
        self._check_output("body.onnx", "kept", kept, (len(gates), 3))
        if [array.shape for array in flat] != self._mask_shapes:  # at once: this runs beside every clip
            for array, name, shape in zip(flat, self._mask_names, self._mask_shapes):
                self._check_output("body.onnx", name, array, shape)
        masks = iter([array[0] if array.dtype == np.bool_ else array[0] != 0 for array in flat])
        return BodyOutput(logits[0], kept, [LayerMasks(*three) for three in zip(masks, masks, masks)])

    def run_dense(self, clip):
        """clip: float32 [1, 3, T, H, W] -> logits [K] of the network without gates."""
        self._check_clip(clip)
        logits = self.run_dense_impl(clip)
        self._check_output("dense.onnx", "logits", logits, (1, len(self._manifest.model.labels)))
        return logits[0]

    def expected(self, golden):
        """What this backend must give for the bundle's Golden; another one where it computes some layers otherwise."""
        return golden

    def use_cuda_graphs(self):
        """Launch what is loaded as CUDA graphs; raises InputError where the backend has none of them."""
        raise InputError("--cuda-graph is for the backend 'tensorrt', this one is '{}'".format(self.name))

    def close(self):
        """Let go of the graphs."""

    def load_impl(self, bundle, gated, dense, threads):
        raise NotImplementedError

    def run_controller_impl(self, clip, budget):
        """budget: float32 [1]; returns (stem, tau)."""
        raise NotImplementedError

    def run_body_impl(self, stem, tau):
        """Returns (logits, kept, flat), flat: the mask outputs in the order of mask_outputs()."""
        raise NotImplementedError

    def run_dense_impl(self, clip):
        """Returns logits."""
        raise NotImplementedError

    def _check_against(self, manifest):
        """Take what comes in and out of the graphs to be as this manifest says."""
        self._manifest = manifest
        outputs = mask_outputs(manifest)
        self._mask_names, self._mask_shapes = [name for name, _ in outputs], [shape for _, shape in outputs]

    def _check_precision(self, precision):
        if precision not in self.precisions:
            raise InputError("--precision {}: the backend '{}' {}".format(
                precision, self.name, "offers " + " and ".join(self.precisions) if self.precisions else
                "computes in what its engines were built for (dance-export --engine --precision)"))

    def _check_clip(self, clip):
        expected = self._manifest.clip.shape
        if clip.shape != expected or clip.dtype != np.float32:
            raise InputError("clip is {} {}, expected float32 {}".format(clip.dtype, list(clip.shape), list(expected)))

    def _check_output(self, graph, name, array, shape):
        if array.shape != shape:
            raise OperationError("{}: output '{}' is {}, the manifest says {}; export the bundle again".format(
                graph, name, list(array.shape), list(shape)))


def mask_output(layer, mask):
    """Name of the body's extra output that holds one mask of gate `layer`."""
    return "gate{}.{}".format(layer, mask)


def mask_outputs(manifest):
    """(name, shape) of all mask outputs, layer by layer."""
    found = []
    for layer, gate in enumerate(manifest.gates):
        channels, frames, height, width = gate.input_size
        for name, shape in zip(MASK_NAMES, ((1, frames), (1, channels), (1, height, width))):
            found.append((mask_output(layer, name), shape))
    return found


def mask_part(manifest):
    """Bytes that make body.onnx return the masks as well, laid behind its own: protobuf merges such messages.

    The part in the bundle states types too, and ONNX Runtime's op library gives bool where a graph for TensorRT 8 says
    float32: here the outputs have names alone, and runtimes infer the rest.
    """
    outputs = [(12, message([(1, name)])) for name, _ in mask_outputs(manifest)]  # GraphProto.output, in .graph
    return message([(7, message(outputs))])


def body_with_masks(bundle):
    """Bytes of the body graph with the masks as additional outputs."""
    return b"".join((bundle.read("body.onnx"), mask_part(bundle.manifest)))


def controller_file(manifest, library):
    """Name of the controller graph to run where our op library is (library: its path) or is not (None)."""
    return CONTROLLER_KERNELS if library is not None and CONTROLLER_KERNELS in manifest.files else "controller.onnx"


def files_needed(gated=True, dense=False):
    """Names of the bundle's files that load() may read; of the controllers it reads one."""
    return (("controller.onnx", CONTROLLER_KERNELS, "body.onnx") if gated else ()) + (("dense.onnx",) if dense else ())


def check_name(name):
    """Raise InputError, listing the backends, unless `name` is one."""
    if name not in MODULES:
        raise InputError("backend '{}': there is none of this name; there are: {}".format(
            name, ", ".join(sorted(MODULES))))


def create(name):
    """A backend by name, not yet loaded."""
    check_name(name)
    return importlib.import_module(MODULES[name]).Backend()
