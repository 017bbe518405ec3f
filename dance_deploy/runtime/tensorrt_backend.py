"""Backend `tensorrt`: engines built by `dance-export BUNDLE --engine`, our plugin inside, buffers by pycuda."""

import numpy as np

from dance_deploy.errors import InputError, OperationError
from dance_deploy.runtime import backends, kernels, selftest
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import cuda, records, target
from dance_deploy.runtime.trt.session import Session


class DeviceTensor(object):
    """A result that stays on the device; numpy.asarray() brings it over. shape, dtype: as of an array."""

    def __init__(self, session, name):
        self._session = session
        self.name = name
        buffer = session.buffers[name]
        self.shape, self.dtype = buffer.shape, buffer.dtype

    def __array__(self, dtype=None, copy=None):
        array = self._session.download([self.name])[0]
        return array if dtype is None else array.astype(dtype)

    def lies_in(self, session):
        """Whether it is what `session` reads anyway."""
        return session.buffers.get(self.name) is self._session.buffers.get(self.name)


class Backend(backends.BackendBase):
    """Controller, body and dense engine on one stream; the body reads the controller's outputs where they lie."""

    name = "tensorrt"
    precisions = ()

    def __init__(self):
        super(Backend, self).__init__()
        self._device = self._controller = self._body = self._dense = None
        self._owns_device = False
        self._bundle = self._expected = self._dense_logits = None

    def load_impl(self, bundle, gated, dense, threads):
        api = trt_api.find()
        plugin = kernels.plugin_path()
        self._device, self._owns_device = cuda.Device(), True
        try:
            record = matching_record(bundle, target.target_of(api, self._device, plugin))
            if gated and record.target.plugin is not None:
                api.load_plugin(plugin)
            wanted = (("controller", "body") if gated else ()) + (("dense",) if dense else ())
            plans = {graph: records.read_file(bundle.path, record, graph) for graph in wanted}
            self._load(api, plans, record.precision)
            if records.GOLDEN in record.files:
                self._expected = selftest.golden_from_bytes(
                    records.read_file(bundle.path, record, records.GOLDEN), bundle.manifest,
                    "bundle '{}': the golden file of the engines".format(bundle.path))
            self._bundle, self._dense_logits = bundle, np.array(record.dense_logits, np.float32)
            self._check_golden(bundle)
        except BaseException:
            self.close()
            raise
        self.description = "{}, {}, {}{}".format(
            api.title, self._device.name, record.precision,
            "" if record.target.plugin else ", no plugin: nothing skipped")

    def load_plans(self, manifest, api, device, plans, precision):
        """Load engines that are in no bundle yet; the device stays the caller's."""
        self._check_against(manifest)
        self._device = device
        try:
            self._load(api, plans, precision)
        except BaseException:
            self.close()
            raise

    def _load(self, api, plans, precision):
        self.precision = precision
        if "body" in plans:
            self._controller = Session(api, self._device, plans["controller"], "controller engine")
            shared = {name: self._controller.buffers[name] for name in ("stem", "tau")}
            self._body = Session(api, self._device, plans["body"], "body engine", shared)
        if "dense" in plans:
            self._dense = Session(api, self._device, plans["dense"], "dense engine")

    def run_controller_impl(self, clip, budget):
        self._controller.upload({"clip": clip, "budget": budget})
        self._controller.enqueue()
        self._device.synchronize()  # only so that controller and body are timed apart: one wait a clip
        return DeviceTensor(self._controller, "stem"), DeviceTensor(self._controller, "tau")

    def run_body_impl(self, stem, tau):
        for name, value in (("stem", stem), ("tau", tau)):
            if not (isinstance(value, DeviceTensor) and value.lies_in(self._body)):
                self._body.upload({name: np.asarray(value)})
        self._body.enqueue()
        found = self._body.download(["logits", "kept"] + self._mask_names)
        return found[0].astype(np.float32), found[1].astype(np.int64), found[2:]

    def run_dense_impl(self, clip):
        return self._dense.run({"clip": clip}, ["logits"])["logits"].astype(np.float32)

    def use_cuda_graphs(self):
        for session in (self._controller, self._body, self._dense):
            if session is not None:
                session.capture()
        self._check_golden(self._bundle)

    def expected(self, golden):
        return golden if self._expected is None else self._expected

    def _check_golden(self, bundle):
        """An engine that loads can still compute nonsense; the golden clip tells, before any result is believed."""
        golden = self.expected(selftest.golden_from_bundle(bundle))
        limits = selftest.limits_of(self.precision)
        checks = []
        if self._body is not None:
            stem, tau = self.run_controller(golden.clip, golden.budget)
            checks += selftest.controller_checks(np.asarray(stem), np.asarray(tau), golden, limits)
            checks += selftest.body_checks(self.run_body(golden.stem, golden.tau), selftest.body_of(golden), limits)
        if self._dense is not None:
            checks.append(selftest.dense_check(self.run_dense(golden.clip), self._dense_logits, limits))
        for check in checks:
            if not check.passed:
                raise OperationError("bundle '{0}': its engines load, but do not compute what the export computed: "
                                     "{1}: {2}; build them anew: dance-export {0} --engine".format(
                                         bundle.path, check.name, check.detail))

    def close(self):
        for session in (self._body, self._controller, self._dense):
            if session is not None:
                session.close()
        self._body = self._controller = self._dense = None
        if self._device is not None and self._owns_device:
            self._device.close()
        self._device = None


def matching_record(bundle, here):
    """The Record of a bundle's engines for the Target `here`; raises InputError that says what is there instead."""
    build = "dance-export {} --engine".format(bundle.path)
    record = records.read_record(bundle.path, here.key)
    if record is None or record.target != here:
        others = [other.target for other in records.all_records(bundle.path)[0]]
        if not others:
            raise InputError("bundle '{}' holds no engines yet; build them on this machine: {}".format(
                bundle.path, build))
        nearest = min(others, key=lambda other: len(here.differences(other)))
        raise InputError("bundle '{}' holds engines for {}, and this machine is {}: {} does not match, and engines "
                         "serve nothing else than what they were built for; run: {}".format(
                             bundle.path, nearest.describe(), here.describe(),
                             ", ".join(here.differences(nearest)) or "the record's name",
                             _mended(here, nearest, build)))
    if record.sources != records.sources_of(bundle.manifest):
        raise InputError("bundle '{}': its engines were built from an older export of these graphs; run: {}".format(
            bundle.path, build))
    return record


def _mended(here, nearest, build):
    if here.plugin is None and nearest.plugin is not None:
        return "{}, then if it is another one than before {}".format(kernels.BUILD_PLUGIN, build)
    return build
