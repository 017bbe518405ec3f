"""All engines of a bundle for this machine: built, checked against the golden clip, written with their record."""
import io
from typing import NamedTuple, Optional

import numpy as np

from dance_deploy import profiles
from dance_deploy.errors import InputError, OperationError
from dance_deploy.ops import names
from dance_deploy.runtime import selftest
from dance_deploy.runtime.trt import choice, graph_edit, memory, onnx_file, precision, records, target
from dance_deploy.runtime.trt.api import Settings
from dance_deploy.runtime.trt.onnx_file import Model
from dance_deploy.runtime.trt.session import Session
from dance_deploy.runtime.trt.wire import WireError

GRAPH_FILES = {"controller": "controller.onnx", "body": "body.onnx", "dense": "dense.onnx"}
_SERVED = (names.ACTIVATION_GATE, names.GATED_CONV3D, names.GATED_CONV3D_ADD)  # in their place a gate can be left out
_ROUNDS = 8  # of comparing layers: what stands behind an overflow shows once that is mended


class Options(NamedTuple):
    """precision: as in api.PRECISIONS; measure: choose dense or gated per gate from measurement; workspace: bytes or
    None; plugin: path of the plugin library, None to build the gates from standard ops (nothing is skipped then).
    """

    precision: str = "fp32"
    measure: bool = True
    workspace: Optional[int] = None
    plugin: Optional[str] = None


def build_engines(bundle, api, device, options, progress):
    """Build and write; returns the Record.

    bundle: opened; api: Api, its plugin loaded; device: cuda.Device; progress: Progress. Raises InputError where the
    bundle does not suit this TensorRT, OperationError where building or a check fails; engines that stood there before
    stay then.
    """
    return _Build(bundle, api, device, options, progress).run()


def check_bundle_suits(manifest, api, with_plugin=True):
    """Raise InputError where the bundle's graphs were exported for another generation of TensorRT, or for CPUs."""
    try:
        channels_last = profiles.load(manifest.profile).channels_last
    except InputError:
        channels_last = False  # a profile of the user's own: seen when the body is read
    if channels_last and with_plugin:
        raise _for_cpus()
    opset = int(manifest.tools["opset"])
    if opset > api.newest_opset:
        raise InputError("the bundle's graphs are of opset {}, {} reads up to {}; export it again: "
                         "dance-export CKPT --profile jetson-nano -o BUNDLE".format(
                             opset, api.title, api.newest_opset))


def _for_cpus():
    return InputError("the bundle's body is channels last, which is for CPUs; export it again for this device: "
                      "dance-export CKPT --profile jetson-nano (or another board's, or desktop-gpu) -o BUNDLE")


def golden_outputs(golden, body):
    """The golden clip's file for engines that leave gates out: what they compute, in the bundle's own format."""
    arrays = {"clip": golden.clip, "budget": np.array([golden.budget], np.float32), "stem": golden.stem,
              "tau": golden.tau, "logits": body.logits[None], "kept": body.kept}
    for layer, masks in enumerate(body.masks):
        arrays.update(("gate{}_{}".format(layer, name), mask[None]) for name, mask in zip(masks._fields, masks))
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


class _Build(object):
    def __init__(self, bundle, api, device, options, progress):
        self.bundle, self.api, self.device, self.options, self.progress = bundle, api, device, options, progress
        self.manifest = bundle.manifest
        self.target = target.target_of(api, device, options.plugin)
        self.timing_cache = records.read_timing_cache(bundle.path, self.target)
        self.pinned = {}
        self.workspace = memory.workspace_bytes(self.manifest, memory.free_bytes(device), options.workspace,
                                                memory.board_bytes(self.manifest.profile, device))

    def run(self):
        check_bundle_suits(self.manifest, self.api, self.options.plugin is not None)
        golden = selftest.golden_from_bundle(self.bundle)
        graphs = {graph: self.bundle.read(name) for graph, name in GRAPH_FILES.items()}
        graphs["body"] = self._for_this_plugin(graphs["body"] + self.bundle.read("body_masks.onnxpart"))
        if self.options.precision == "fp16":
            self._pin_layers(graphs, golden)
        plans = {graph: self._build(self._model(data, graph), graph) for graph, data in graphs.items()}
        dense_logits = self._check(plans, golden)
        timings, left = {}, ()
        if self.options.measure and self.options.plugin is not None:
            timings = choice.measured(lambda model, what: self._build(model, "body", what), self._session, self.device,
                                      graphs["body"], self.manifest, golden, self.progress)
            left = choice.gates_to_leave(timings)
        if left:
            plans["body"] = self._without(left, graphs["body"], plans, golden)
        extra = {}
        if left or self.options.precision != "fp32":  # the bundle's own golden results are for other arithmetic
            extra[records.GOLDEN] = golden_outputs(golden, self._body_output(plans, golden.stem, golden.tau))
        return self._write(plans, extra, timings, left, dense_logits)

    def _for_this_plugin(self, data):
        """The body with masks of the type that this TensorRT's plugin takes; InputError for one that it does not serve.

        Which type a bundle has follows from its profile, and boards of one profile may have several TensorRT: an Orin
        has 8.5 with JetPack 5 and 10.3 with JetPack 6.
        """
        model = self._model(data, "body")
        wanted = onnx_file.BOOL if self.api.bool_masks else onnx_file.FLOAT
        unread = bool(model.functions) and not self.api.strongly_typed
        if self.options.plugin is not None and any(
                node.domain == names.DOMAIN and node.op_type not in _SERVED for node in model.nodes):
            raise _for_cpus()
        if self.options.plugin is None or (graph_edit.mask_type(model) == wanted and not unread):
            return data
        if unread:
            model.functions.clear()  # TensorRT 8 knows none; they speak of masks of the other type
        graph_edit.set_mask_type(model, wanted)
        return model.to_bytes()

    def _model(self, data, graph):
        try:
            return Model(data)
        except WireError as error:
            raise InputError("bundle '{}': {} is no ONNX model ({}); export the bundle again".format(
                self.bundle.path, GRAPH_FILES[graph], error)) from error

    def _build(self, model, graph, what=None, precision_wanted=None):
        """Plan of a Model; graph: whose pinned layers hold."""
        wanted = precision_wanted or self.options.precision
        what = what or GRAPH_FILES[graph]
        self.progress.step("building {} ({})".format(what, wanted))
        if graph_edit.has_dance_ops(model) and self.options.plugin is None:
            graph_edit.inline_functions(model)
        pinned = self.pinned.get(graph, ()) + (graph_edit.behind_stem(model) if graph == "controller" else ())
        if wanted == "fp16" and self.api.strongly_typed:
            graph_edit.to_half(model, pinned)
        graph_edit.drop_unused_weights(model)
        built = self.api.build(model.to_bytes(), what, Settings(
            workspace_bytes=self.workspace, precision=wanted, pinned=pinned, statistics=graph == "controller",
            timing_cache=self.timing_cache, on_step=self.progress.phase,
            compute_capability=self.device.compute_capability))
        check_shapes(model, built, what)
        if built.timing_cache:
            self.timing_cache = built.timing_cache
        return built.plan

    def _session(self, plan, what):
        return Session(self.api, self.device, plan, what)

    def _pin_layers(self, graphs, golden):
        """Find the layers that half precision breaks, graph by graph, on the golden clip with nothing pruned."""
        feeds = {"controller": {"clip": golden.clip, "budget": np.array([golden.budget], np.float32)},
                 "body": {"stem": golden.stem, "tau": np.zeros_like(golden.tau)}, "dense": {"clip": golden.clip}}
        for graph, data in graphs.items():
            plans = {}
            beyond = graph_edit.beyond_half(self._model(data, graph))
            if beyond:
                self.pinned[graph] = beyond
            for _ in range(_ROUNDS):
                for wanted in ("fp32", "fp16"):
                    if wanted not in plans:
                        model = self._model(data, graph)
                        exact = graph_edit.behind_stem(model) if graph == "controller" else ()
                        layers = precision.layers_of(model, exact)
                        precision.mark_layers(model, layers)
                        plans[wanted] = self._build(model, graph, "{} with every layer marked".format(
                            GRAPH_FILES[graph]), wanted)
                self.progress.step("comparing the layers of " + GRAPH_FILES[graph])
                found, error = precision.compared(self.api, self.device, (plans["fp32"], plans["fp16"]),
                                                  GRAPH_FILES[graph], feeds[graph], layers)
                new = tuple(name for name in found if name not in self.pinned.get(graph, ()))
                if not new:
                    break
                self.pinned[graph] = self.pinned.get(graph, ()) + new
                del plans["fp16"]
            if error is not None and not error <= selftest.HALF_TOLERANCE:
                raise OperationError("{}: its logits are off by {:.1e} of their norm in half precision, allowed "
                                     "{:.0e}, with {} layers in float32; build with --precision fp32".format(
                                         GRAPH_FILES[graph], error, selftest.HALF_TOLERANCE,
                                         len(self.pinned.get(graph, ()))))

    def _check(self, plans, golden):
        """The engines against the golden clip; raises OperationError with the first check that fails.

        Returns the dense engine's logits, which the last of the checks has compared with the gated ones.
        """
        self.progress.step("checking the engines with the golden clip")
        backend = _backend_of(self, plans)
        try:
            failed = [check for check in selftest.backend_checks(backend, golden) if not check.passed]
            dense = backend.run_dense(golden.clip)
        finally:
            backend.close()
        if failed:
            raise OperationError("the engines do not compute what the export computed: {}: {}; nothing was written; "
                                 "{}".format(failed[0].name, failed[0].detail, "please report this"
                                             if self.options.precision == "fp32" else "build with --precision fp32"))
        return dense

    def _without(self, left, data, plans, golden):
        """Plan of the body without the gates named in `left`.

        The oracle is the fully gated engine, which keeps everything at a gate whose thresholds are 0.
        """
        known = [gate.name for gate in self.manifest.gates]
        numbers = {known.index(name) for name in left}
        model = self._model(data, "body")
        graph_edit.leave_dense(model, numbers, [gate.input_size for gate in self.manifest.gates])
        plan = self._build(model, "body", "body.onnx without {} of {} gates".format(len(left), len(known)))
        tau = golden.tau.copy()
        tau[sorted(numbers)] = 0.0
        expected = self._body_output(plans, golden.stem, tau)
        found = self._body_output(dict(plans, body=plan), golden.stem, golden.tau)
        for check in selftest.body_checks(found, expected, selftest.limits_of(self.options.precision)):
            if not check.passed:
                raise OperationError("the body with gates left out does not compute what the gated one does with "
                                     "thresholds of 0: {}: {}; nothing was written, build with --no-measure".format(
                                         check.name, check.detail))
        return plan

    def _body_output(self, plans, stem, tau):
        backend = _backend_of(self, plans)
        try:
            return backend.run_body(stem, tau)
        finally:
            backend.close()

    def _write(self, plans, extra, timings, left, dense_logits):
        self.progress.step("writing the engines")
        contents = dict(plans, **extra)
        record = records.Record(
            target=self.target, sources=records.sources_of(self.manifest), precision=self.options.precision,
            pinned=self.pinned, dense_gates=left, timings=timings,
            dense_logits=tuple(float(value) for value in dense_logits.ravel()),
            files={what: records.entry_of(data) for what, data in contents.items()})
        records.write_record(self.bundle.path, record, contents)
        if self.timing_cache:
            records.write_timing_cache(self.bundle.path, self.target, self.timing_cache)
        return record


def _backend_of(build, plans):
    """The backend that dance-run uses, on engines that are not written yet."""
    from dance_deploy.runtime.tensorrt_backend import Backend
    backend = Backend()
    backend.load_plans(build.manifest, build.api, build.device, plans, build.options.precision)
    return backend


def check_shapes(model, built, what):
    """Raise OperationError where the parser made other shapes than the graph declares: it can err in silence."""
    shapes = {tensor.name: tensor.shape for tensor in built.tensors}
    for name, (_, declared) in model.shapes().items():
        if name not in shapes:
            raise OperationError("{}: TensorRT's network has no '{}'; please report this".format(what, name))
        if declared and -1 not in declared and tuple(shapes[name]) != declared:
            raise OperationError("{}: TensorRT makes '{}' {}, the graph declares {}; please report this".format(
                what, name, list(shapes[name]), list(declared)))
