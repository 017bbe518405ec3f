"""Proof that an installation computes what the export computed: the bundle's golden clip, run here and compared."""
import io
import zipfile
from typing import Any, Dict, List, NamedTuple

import numpy as np

from dance_deploy.errors import InputError
from dance_deploy.runtime import backends

# End to end: the contract's bound is per operation, and errors of a whole network add up (and pass ReLUs and means).
# A thousandth of the range is far above what they reach (some 1e-6) and far below any wrong layer.
TOLERANCE = 1e-3
# A magnitude that lies on its threshold may go either way. A gate that is wrong differs in far more places.
MASK_TOLERANCE = 1e-3
# Half precision, and TF32, carry 11 bits. Computed by tools/half_precision_error.py (docs/tensorrt.md, Precision):
# rounding alone moves logits by 2e-4 of the range, sums as our kernels make them by 5e-4; where every convolution is as
# far off as the contract allows one (5e-3 of the norm), the worst tensor, the first layer, is by 4.4e-3. Twice that.
# bfloat16 carries 8, with sums and all between layers in float32: 3.3e-3 was the most seen (docs/benchmarks/cpu.md).
HALF_TOLERANCE = 1e-2
# At most 7e-3 of the masks' entries differ in those; three times that.
HALF_MASK_TOLERANCE = 2e-2
_MAX_BYTES = 1 << 30


class Limits(NamedTuple):
    """values: largest difference, as a share of the range; masks: share of entries that may differ."""

    values: float
    masks: float


class Check(NamedTuple):
    """One compared quantity. detail: what was found, and the limit."""

    name: str
    passed: bool
    detail: str


class Golden(NamedTuple):
    """clip, budget, stem, tau, logits [1, K], kept [L, 3] and the masks that the export saw."""

    clip: Any
    budget: float
    stem: Any
    tau: Any
    logits: Any
    kept: Any
    masks: List[backends.LayerMasks]


def limits_of(precision) -> Limits:
    """The Limits for arithmetic in "fp32", "tf32", "fp16" or "bf16"."""
    return Limits(TOLERANCE, MASK_TOLERANCE) if precision == "fp32" else Limits(HALF_TOLERANCE, HALF_MASK_TOLERANCE)


def run_checks(runner, golden) -> List[Check]:
    """Compare a Runner (loaded gated and dense) with the Golden of its bundle."""
    return backend_checks(runner.backend, golden)


def backend_checks(backend, golden) -> List[Check]:
    """Compare a backend, loaded gated and dense, with a Golden."""
    limits = limits_of(backend.precision)
    golden = backend.expected(golden)
    whole = backend.run_gated(golden.clip, golden.budget)[0]
    was_whole = backend.take_apart()  # before its parts are opened: they need not be in memory at once
    stem, tau = backend.run_controller(golden.clip, golden.budget)
    checks = controller_checks(np.asarray(stem), np.asarray(tau), golden, limits)
    apart = backend.run_body(stem, tau)
    checks += body_checks(backend.run_body(golden.stem, golden.tau), body_of(golden), limits)
    if was_whole:
        checks += clip_checks(whole, apart, limits)
    everything = backend.run_body(golden.stem, np.zeros_like(golden.tau))
    dense = backend.run_dense(golden.clip)
    return checks + [_close("nothing pruned: gated body and dense.onnx", everything.logits, dense, limits)]


def precision_note(backend, golden) -> str:
    """How far a loaded backend's gated body is from float32 on the bundle's own clip, in words."""
    golden = backend.expected(golden)
    found, stored = backend.run_body(golden.stem, golden.tau), golden.logits[0]
    span = float(np.ptp(stored)) or 1.0
    masks = [(a != b) for one, other in zip(found.masks, golden.masks) for a, b in zip(one, other)]
    return "logits differ by up to {:.2g} % of their range, {} best label, {} of {} mask entries differ".format(
        100.0 * float(np.abs(found.logits.astype(np.float64) - stored).max()) / span,
        "same" if int(np.argmax(found.logits)) == int(np.argmax(stored)) else "other",
        sum(int(m.sum()) for m in masks), sum(m.size for m in masks))


def controller_checks(stem, tau, golden, limits) -> List[Check]:
    """stem and tau, as arrays, against the Golden's."""
    return [_close("controller: first layer", stem, golden.stem, limits),
            _close("controller: thresholds", tau, golden.tau, limits)]


def body_checks(body, expected, limits) -> List[Check]:
    """One BodyOutput against another.

    Where coarser arithmetic moved a magnitude across its threshold, two networks with other slices are no comparison.
    """
    masks = _same_masks(body.masks, expected.masks, limits)
    name = "gated body: logits"
    if limits.values > TOLERANCE and masks.passed and any(
            (a != b).any() for one, other in zip(body.masks, expected.masks) for a, b in zip(one, other)):
        return [masks, _counted(body), Check(name, True, "not compared, because masks differ")]
    return [masks, _counted(body), _close(name, body.logits, expected.logits, limits)]


def clip_checks(whole, parts, limits) -> List[Check]:
    """The BodyOutput of a clip as it is run every day against that of controller and body on their own."""
    return [check._replace(name="a clip in one go: " + check.name.split(": ")[1])
            for check in body_checks(whole, parts, limits)]


def dense_check(logits, stored, limits) -> Check:
    """Logits of the dense network against those that it gave before, of any shape with as many values."""
    return _close("dense network: logits", np.ravel(logits), np.ravel(stored), limits)


def body_of(golden) -> backends.BodyOutput:
    """What the body gave in a Golden."""
    return backends.BodyOutput(golden.logits[0], golden.kept, golden.masks)


def golden_from_bundle(bundle) -> Golden:
    """The Golden inside an opened Bundle; raises InputError where it does not fit the manifest."""
    where = "bundle '{}': golden.npz".format(bundle.path)
    return golden_from_bytes(bundle.read("golden.npz"), bundle.manifest, where)


def golden_from_bytes(data, manifest, where) -> Golden:
    """The Golden in the bytes of an .npz file; where: its name in errors. Raises InputError."""
    layers = len(manifest.gates)
    shapes = {"clip": manifest.clip.shape, "budget": (1,), "stem": None, "tau": (layers, 3),
              "logits": (1, len(manifest.model.labels)), "kept": (layers, 3)}
    for layer, gate in enumerate(manifest.gates):
        channels, frames, height, width = gate.input_size
        for mask, shape in zip(backends.MASK_NAMES, ((frames,), (channels,), (height, width))):
            shapes["gate%d_%s" % (layer, mask)] = (1,) + shape
    arrays = _arrays(data, shapes, where)
    masks = [backends.LayerMasks(*(arrays["gate%d_%s" % (layer, mask)][0] != 0 for mask in backends.MASK_NAMES))
             for layer in range(layers)]
    first = [arrays[name].astype(np.float32) for name in ("clip", "stem", "tau", "logits")]
    return Golden(first[0], float(arrays["budget"][0]), first[1], first[2], first[3], arrays["kept"], masks)


def _arrays(data, shapes, where) -> Dict[str, Any]:
    try:
        data = io.BytesIO(data)
        with zipfile.ZipFile(data) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
                raise InputError("{} unpacks to more than {} bytes; export the bundle again".format(where, _MAX_BYTES))
        with np.load(data, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in shapes}
    except (ValueError, KeyError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError("{} cannot be read ({}); export the bundle again".format(where, str(error)[:120])) from error
    for name, shape in shapes.items():
        if arrays[name].dtype.kind not in "biuf":
            raise InputError("{}: '{}' is {}, expected numbers; export the bundle again".format(
                where, name, arrays[name].dtype))
        if shape is not None and arrays[name].shape != shape:
            raise InputError("{}: '{}' is {}, the manifest says {}; export the bundle again".format(
                where, name, list(arrays[name].shape), list(shape)))
    return arrays


def _close(name, found, stored, limits) -> Check:
    if found.shape != stored.shape:
        return Check(name, False, "shape {}, stored {}".format(list(found.shape), list(stored.shape)))
    span = float(np.ptp(stored)) or float(np.abs(stored).max()) or 1.0
    largest = float(np.abs(found.astype(np.float64) - stored).max()) / span
    return Check(name, bool(largest <= limits.values), "largest difference {:.1e} of the range (limit {:.0e})".format(
        largest, limits.values))


def _same_masks(found, stored, limits) -> Check:
    entries = sum(mask.size for layer in stored for mask in layer)
    different = sum(int((a != b).sum()) for one, other in zip(found, stored) for a, b in zip(one, other))
    detail = "all {} entries equal".format(entries) if not different else "{} of {} entries differ (limit {})".format(
        different, entries, int(entries * limits.masks))
    return Check("gates: masks", different <= entries * limits.masks, detail)


def _counted(body) -> Check:
    counts = np.array([[int(mask.sum()) for mask in layer] for layer in body.masks])
    wrong = int((counts != body.kept).sum())
    return Check("gates: kept counts", not wrong, "{} of {} differ from the masks' own".format(wrong, counts.size))
