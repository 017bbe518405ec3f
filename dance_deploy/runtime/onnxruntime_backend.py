"""Backend `onnxruntime`: any CPU, the dance ops by our library; without it, by the functions inside the graph."""
import functools
import logging
import time

import numpy as np

from dance_deploy import profiles
from dance_deploy.errors import InputError, OperationError
from dance_deploy.manifest import CONTROLLER_KERNELS
from dance_deploy.runtime import backends, one_graph

_LOG = logging.getLogger(__name__)
_ONLY_FATAL = 4  # ONNX Runtime's log severity; it raises every error as well, and we report that


class Backend(backends.BackendBase):
    """ONNX Runtime's CPU provider. Our kernels run controller and body as one graph, in one session; each of them has a
    session of its own where that cannot be, and as soon as it is asked for alone."""

    name = "onnxruntime"
    precisions = ("fp32", "bf16")

    def __init__(self):
        super(Backend, self).__init__()
        self._whole = self._dense = None
        self._parts = None       # (controller, body)
        self._open_parts = None  # makes them

    def load_impl(self, bundle, gated, dense, threads):
        ort = import_onnxruntime()
        options = session_options(ort, threads)
        if gated:
            self._load_gated(ort, bundle, options, threads)
        else:
            self.description = "standard ops"
        if dense:
            self._dense = _session(ort, options, bundle, "dense.onnx", bundle.read("dense.onnx"))

    def _load_gated(self, ort, bundle, options, threads):
        library, tuned = self._add_library(options, "fp32")
        if library is None:
            _do_without_library(bundle.manifest)
        body_options = options
        self.description = "functions, nothing skipped" if library is None else "dance kernels"
        if self.precision == "bf16":
            # only the body: what decides the thresholds stays in float32
            body_options = session_options(ort, threads)
            use_bf16(body_options, library)
            library, tuned = self._add_library(body_options, "bf16")
            self.description += ", bfloat16"
        if tuned is not None:
            self.description += ", tuned costs"
        controller = backends.controller_file(bundle.manifest, library)
        self._open_parts = functools.partial(_open_parts, ort, bundle, controller, options, body_options)
        if controller == CONTROLLER_KERNELS and body_options is options:
            self._whole = _open_whole(ort, bundle, controller, options)
        if self._whole is None:
            self._parts = self._open_parts()

    def _part(self, index):
        if self._parts is None and self._open_parts is not None:
            self._parts = self._open_parts()
        return None if self._parts is None else self._parts[index]

    def take_apart(self):
        was_whole, self._whole = self._whole is not None, None
        return was_whole

    def run_gated(self, clip, budget):
        if self._whole is None:
            return super(Backend, self).run_gated(clip, budget)
        self._check_clip(clip)
        start = time.perf_counter()
        found = _run(self._whole, "controller and body", [one_graph.CLOCK, "logits", "kept"] + self._mask_names,
                     {"clip": clip, "budget": np.array([budget], np.float32)})
        between = 1e-9 * float(found[0][0])
        if not start <= between <= time.perf_counter():  # Python reads another clock than C++ on some systems
            between = start
        return self._body_output(found[1], found[2], found[3:]), between

    def run_controller_impl(self, clip, budget):
        return _run(self._part(0), "controller.onnx", ["stem", "tau"], {"clip": clip, "budget": budget})

    def run_body_impl(self, stem, tau):
        found = _run(self._part(1), "body.onnx", ["logits", "kept"] + self._mask_names, {"stem": stem, "tau": tau})
        return found[0], found[1], found[2:]

    def run_dense_impl(self, clip):
        return _run(self._dense, "dense.onnx", ["logits"], {"clip": clip})[0]

    def close(self):
        self._whole = self._parts = self._open_parts = self._dense = None

    def _add_library(self, options, precision):
        """Register our op library for sessions of a precision; returns its path and the TunedCosts they go by, or None
        for each: where it is not built the functions run, and without tuned costs the built-in ones hold."""
        from dance_deploy.runtime.kernels import library_path
        library = library_path()
        tuned = use_tuned_costs(options, library, precision) if library is not None and self.tuned_costs else None
        if library is not None:
            register(options, library)
        return library, tuned


def _open_whole(ort, bundle, controller, options):
    """A session of controller and body as one graph that gives the masks as well, or None; controller: name of its
    file."""
    pieces = one_graph.joined(bundle.read(controller), bundle.read("body.onnx"))
    if pieces is None:
        return None
    data = b"".join(pieces + [backends.mask_part(bundle.manifest)])
    del pieces
    try:
        return _session(ort, options, bundle, "controller and body", data)
    except OperationError as error:
        from dance_deploy.runtime.kernels import HOW_TO_BUILD
        _LOG.warning("%s; they run one after the other, which takes longer; if the kernels are older than this "
                     "package, %s", error, HOW_TO_BUILD)
        return None


def _open_parts(ort, bundle, controller, options, body_options):
    """(session of the controller, of the body); controller: name of its file."""
    # the body first: while a session is made, its weights are in memory three times
    body = _session(ort, body_options, bundle, "body.onnx", backends.body_with_masks(bundle))
    return _session(ort, options, bundle, controller, bundle.read(controller)), body


def _do_without_library(manifest):
    """Warn that nothing is saved; raise OperationError where the bundle's graphs do not carry the ops as functions."""
    from dance_deploy.runtime.kernels import HOW_TO_BUILD
    try:
        functions = profiles.load(manifest.profile).functions
    except InputError:
        functions = True  # a profile of the user's own: ONNX Runtime says what it lacks
    if not functions:
        raise OperationError("the bundle was exported for {}, whose graphs do not carry the dance ops as functions, "
                             "and the dance kernels are not built; {}, or export it again with --profile cpu".format(
                                 manifest.profile, HOW_TO_BUILD))
    _LOG.warning("the dance kernels are not built: results are right, but pruned work is not skipped and nothing is "
                 "saved; %s", HOW_TO_BUILD)


def import_onnxruntime():
    """The package onnxruntime; raises OperationError where it is absent (it is no extra: every CPU runs by it)."""
    try:
        import onnxruntime
    except ImportError:
        raise OperationError("the backend 'onnxruntime' needs the package 'onnxruntime', which is not installed; "
                             "run: pip install onnxruntime") from None
    return onnxruntime


def session_options(ort, threads):
    """How our sessions run; threads: None for as many as there are cores."""
    options = ort.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.inter_op_num_threads = 1
    # In the graph's order. By default ONNX Runtime runs what needs no thresholds before the controller, where a network
    # has such branches, and the controller's time would be none of its own.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    # Threads spin while a graph runs, since its parallel steps are short, and stop with it: the controller's would take
    # the cores from the body's and from decoding, and energy. Measured on 2 cores, against not spinning at all: X3D-S
    # gated 0.7 of the time, R3D-18 within noise; against spinning on: 0.3 and 0.7.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A plan of the memory is a second block beside the one that the first run filled: 53 MB for an R3D-18, no time won.
    options.enable_mem_pattern = False
    # Our kernels read packed copies; in a bundle no weights are read by two nodes. 133 MB for an R3D-18.
    options.add_session_config_entry("dance.weights_once", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def use_bf16(options, library):
    """Have the gated convolutions of sessions with these options multiply in bfloat16.

    To be called before the library is registered; library: its path, None where it is not built.
    Raises InputError where this machine cannot.
    """
    from dance_deploy.runtime.kernels import HOW_TO_BUILD, has_bf16
    if library is None:
        raise InputError("--precision bf16: the dance kernels are not built; " + HOW_TO_BUILD)
    if not has_bf16(library):
        raise InputError("--precision bf16: this processor has no AVX512-BF16 (Zen 4 and newer, Cooper Lake, Sapphire "
                         "Rapids and newer have it), or the dance kernels were built by a compiler that does not know "
                         "it (older than g++ 10 or clang 9); leave it out and compute in float32")
    options.add_session_config_entry("dance.precision", "bf16")


def use_tuned_costs(options, library, precision):
    """Have sessions with these options choose their kernels' variants by the costs that were found on this machine.

    To be called before the library is registered; library: its path. Returns the TunedCosts, or None for the built-in
    ones.
    """
    from dance_deploy.runtime import tuned_costs
    tuned = tuned_costs.for_session(library, precision)
    if tuned is not None:
        options.add_session_config_entry(tuned_costs.ENTRY, tuned.entry())
    return tuned


def register(options, library):
    """Have sessions with these options know our ops; library: the op library's path.

    Raises OperationError where ONNX Runtime does not take it, InputError where DANCE_ISA asks for kernels that are not
    to be had here.
    """
    from dance_deploy.runtime.kernels import isa_refused
    try:
        options.register_custom_ops_library(library)
    except Exception as error:  # ONNX Runtime's own exception types share no base but this
        refused = isa_refused(library)
        if refused is not None:
            raise InputError(refused) from error
        raise OperationError("'{}' does not load into ONNX Runtime ({}); build it anew with: make -C kernels".format(
            library, _first_line(error))) from error


def release_file(session):
    """Let go of the file's bytes, which ONNX Runtime's Python class keeps to load the model again elsewhere.

    For an R3D-18 these are 133 MB. Where a version keeps them under another name, nothing happens.
    """
    if getattr(session, "_model_bytes", None) is not None:
        session._model_bytes = None


def _session(ort, options, bundle, name, data):
    try:
        session = ort.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
        release_file(session)
        return session
    except Exception as error:
        raise OperationError("bundle '{}': {} is undamaged, but ONNX Runtime {} refuses it: {}".format(
            bundle.path, name, ort.__version__, _first_line(error))) from error


def _run(session, graph, outputs, feeds):
    if session is None:
        raise OperationError("{} cannot be run: it was not loaded, or it was closed".format(graph))
    try:
        return session.run(outputs, feeds)
    except Exception as error:
        raise OperationError("{}: ONNX Runtime could not run it: {}".format(graph, _first_line(error))) from error


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
