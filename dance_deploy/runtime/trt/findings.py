"""What dance-doctor says of TensorRT, pycuda, the GPU, the plugin, and the engines in a bundle."""
import importlib.util
import os

from dance_deploy.errors import DanceError
from dance_deploy.machine import INFO, OK, OPTIONAL, Finding
from dance_deploy.runtime import kernels
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import build, cuda, memory, records, target

_SECTION = "tensorrt"
_HERE = "this machine"


def tensorrt_findings(root="/"):
    """Rows for this machine; none where there is no NVIDIA GPU and nothing of TensorRT."""
    if not _concerned(root):
        return []
    api, found = _tried("TensorRT", trt_api.find, lambda api: api.title)
    device, gpu = _tried("GPU", cuda.Device, lambda device: "{}, compute capability {}.{}".format(
        device.name, *device.compute_capability))
    path = kernels.plugin_path()
    try:
        if path is None:
            plugin = Finding(_SECTION, "plugin", OPTIONAL, "not built: engines would skip nothing",
                             kernels.BUILD_PLUGIN)
        elif api is None or device is None:
            plugin = Finding(_SECTION, "plugin", INFO, "{} (not tried)".format(path))
        else:
            plugin = _tried("plugin", lambda: api.load_plugin(path), lambda _: "{}, {}".format(
                path, target.hash_of(path)[:10]))[1]
    finally:
        if device is not None:
            device.close()
    return [found, gpu, plugin]


def engine_findings(bundle):
    """Rows for the engines in an opened Bundle, and whether one serves this machine."""
    kept, strangers = records.all_records(bundle.path)
    found = [Finding("engines", "engines", INFO, "{}, {}{}".format(
        record.target.describe(), record.precision,
        ", {} gates left dense".format(len(record.dense_gates)) if record.dense_gates else "")) for record in kept]
    for name in strangers:
        found.append(Finding("engines", "stray file", INFO, "engines/{} belongs to no record and is never read".format(
            name), "rm {}".format(os.path.join(bundle.path, "engines", name))))
    return found + _fit(bundle)


def _fit(bundle):
    """Whether the engines serve this machine; where they do not, whether it could build them."""
    from dance_deploy.runtime.tensorrt_backend import matching_record
    try:
        api = trt_api.find()
        device = cuda.Device()
    except DanceError:
        return []  # said already, where this machine is concerned
    try:
        here = target.target_of(api, device, kernels.plugin_path())
        try:
            record = matching_record(bundle, here)
            for what in record.files:
                records.read_file(bundle.path, record, what)
            return [Finding("engines", _HERE, OK, "the engines fit")]
        except DanceError as error:
            return [_lack(_HERE, error)] + _buildable(bundle.manifest, api, device)
    finally:
        device.close()


def _buildable(manifest, api, device):
    """What would stop `dance-export BUNDLE --engine` before it begins."""
    found = []
    for name, attempt in (
            ("graphs", lambda: build.check_bundle_suits(manifest, api)),
            ("memory", lambda: memory.workspace_bytes(manifest, memory.free_bytes(device), None,
                                                      memory.board_bytes(manifest.profile, device)))):
        try:
            attempt()
        except DanceError as error:
            found.append(_lack(name, error)._replace(section="engines"))
    return found


def _concerned(root):
    if os.path.exists(os.path.join(root, "etc/nv_tegra_release")) or os.path.exists(
            os.path.join(root, "proc/driver/nvidia/version")):
        return True
    return any(_spec(name) for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda"))


def _spec(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _tried(name, attempt, describe):
    """(what attempt() gives or None, its Finding)."""
    try:
        found = attempt()
    except DanceError as error:
        return None, _lack(name, error)
    return found, Finding(_SECTION, name, OK, describe(found))


def _lack(name, error):
    detail, _, mend = str(error).partition("; ")
    return Finding(_SECTION if name != _HERE else "engines", name, OPTIONAL, detail, mend or None)

