"""What dance-export BUNDLE --engine does once its arguments are read."""
import time

from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError
from dance_deploy.runtime import kernels
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import build, cuda
from dance_deploy.runtime.trt.progress import Progress

MIB = 1 << 20


def build_bundle_engines(path, precision=None, measure=True, workspace_mib=None, with_plugin=True, out=print):
    """Build this machine's engines into the bundle in the folder `path` and say what came out; returns the Record.

    Raises DanceError, one line, where something is missing, does not fit, or fails a check.
    """
    started = time.time()
    precision = precision or "fp32"
    if precision not in trt_api.PRECISIONS:
        raise InputError("--precision {}: there is none of this name; there are: {}".format(
            precision, ", ".join(trt_api.PRECISIONS)))
    bundle = open_bundle(path, keep=("controller.onnx", "body.onnx", "body_masks.onnxpart", "dense.onnx", "golden.npz"))
    api = trt_api.find()
    build.check_bundle_suits(bundle.manifest, api, with_plugin)
    plugin = kernels.plugin_path() if with_plugin else None
    if with_plugin and plugin is None:
        raise InputError("the TensorRT plugin is not built, and without it no pruned work is skipped; run: {} (or add "
                         "--no-plugin for engines of standard ops alone, to check the rest)".format(
                             kernels.BUILD_PLUGIN))
    device = cuda.Device()
    try:
        if plugin is not None:
            api.load_plugin(plugin)
        with Progress() as progress:
            record = build.build_engines(bundle, api, device, build.Options(
                precision, measure, None if workspace_mib is None else workspace_mib * MIB, plugin), progress)
    finally:
        device.close()
    for line in summary(bundle, record, time.time() - started):
        out(line)
    return record


def summary(bundle, record, seconds):
    """Lines about what was built."""
    size_mb = sum(entry.size for entry in record.files.values()) / 1e6
    yield "{}: engines for {}, {}, {:.1f} MB, checked with the golden clip, {:.0f} s".format(
        bundle.path, record.target.describe(), record.precision, size_mb, seconds)
    if record.precision == "fp16":
        names = ["{} {}".format(graph, name) for graph in sorted(record.pinned) for name in record.pinned[graph]]
        yield "  {} layers stay in float32{}".format(len(names), ": " + ", ".join(names) if names else "")
    for name, timing in record.timings.items():
        yield "  {:<28} gated {:8.3f} ms, dense {:8.3f} ms{}".format(
            name, timing.gated_ms, timing.dense_ms, "   left dense" if name in record.dense_gates else "")
    if not record.timings:
        yield "  every gate stays as exported: nothing was measured"
    yield "run it: dance-run {} VIDEO --backend tensorrt".format(bundle.path)
