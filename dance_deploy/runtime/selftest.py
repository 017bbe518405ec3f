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
_MAX_BYTES = 1 << 30


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


def run_checks(runner, golden) -> List[Check]:
    """Compare a Runner (loaded gated and dense) with the Golden of its bundle."""
    backend = runner.backend
    stem, tau = backend.run_controller(golden.clip, golden.budget)
    body = backend.run_body(golden.stem, golden.tau)
    everything = backend.run_body(golden.stem, np.zeros_like(golden.tau))
    dense = backend.run_dense(golden.clip)
    return [
        _close("controller: first layer", stem, golden.stem),
        _close("controller: thresholds", tau, golden.tau),
        _same_masks(body.masks, golden.masks),
        _counted(body),
        _close("gated body: logits", body.logits, golden.logits[0]),
        _close("nothing pruned: gated body and dense.onnx", everything.logits, dense),
    ]


def golden_from_bundle(bundle) -> Golden:
    """The Golden inside an opened Bundle; raises InputError where it does not fit the manifest."""
    manifest = bundle.manifest
    layers = len(manifest.gates)
    shapes = {"clip": manifest.clip.shape, "budget": (1,), "stem": None, "tau": (layers, 3),
              "logits": (1, len(manifest.model.labels)), "kept": (layers, 3)}
    for layer, gate in enumerate(manifest.gates):
        channels, frames, height, width = gate.input_size
        for mask, shape in zip(backends.MASK_NAMES, ((frames,), (channels,), (height, width))):
            shapes["gate%d_%s" % (layer, mask)] = (1,) + shape
    arrays = _arrays(bundle, shapes)
    masks = [backends.LayerMasks(*(arrays["gate%d_%s" % (layer, mask)][0] != 0 for mask in backends.MASK_NAMES))
             for layer in range(layers)]
    first = [arrays[name].astype(np.float32) for name in ("clip", "stem", "tau", "logits")]
    return Golden(first[0], float(arrays["budget"][0]), first[1], first[2], first[3], arrays["kept"], masks)


def _arrays(bundle, shapes) -> Dict[str, Any]:
    where = "bundle '{}': golden.npz".format(bundle.path)
    try:
        data = io.BytesIO(bundle.read("golden.npz"))
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


def _close(name, found, stored) -> Check:
    if found.shape != stored.shape:
        return Check(name, False, "shape {}, stored {}".format(list(found.shape), list(stored.shape)))
    span = float(np.ptp(stored)) or float(np.abs(stored).max()) or 1.0
    largest = float(np.abs(found.astype(np.float64) - stored).max()) / span
    return Check(name, bool(largest <= TOLERANCE), "largest difference {:.1e} of the range (limit {:.0e})".format(
        largest, TOLERANCE))


def _same_masks(found, stored) -> Check:
    entries = sum(mask.size for layer in stored for mask in layer)
    different = sum(int((a != b).sum()) for one, other in zip(found, stored) for a, b in zip(one, other))
    detail = "all {} entries equal".format(entries) if not different else "{} of {} entries differ (limit {})".format(
        different, entries, int(entries * MASK_TOLERANCE))
    return Check("gates: masks", different <= entries * MASK_TOLERANCE, detail)


def _counted(body) -> Check:
    counts = np.array([[int(mask.sum()) for mask in layer] for layer in body.masks])
    wrong = int((counts != body.kept).sum())
    return Check("gates: kept counts", not wrong, "{} of {} differ from the masks' own".format(wrong, counts.size))
