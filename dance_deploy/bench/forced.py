"""Forced keep rates: the body with masks of our choice in place of its gates' decisions.

The gates still run, so that their cost is in the figure; only what their masks decide is replaced.
"""

from __future__ import annotations

import numpy as np

from dance_deploy.errors import InputError
from dance_deploy.manifest import Gate
from dance_deploy.ops import names
from dance_deploy.ops.names import KINDS
from dance_deploy.runtime.backends import LayerMasks

PATTERNS = ("blob", "random")


def keep_rates_from_text(text: str, option: str = "--force-keep") -> dict[str, float]:
    """"frames=0.5,channels=0.5" -> rates by kind, 1 where not named; raises InputError that names the option."""
    rates = dict.fromkeys(KINDS, 1.0)
    for part in filter(None, text.split(",")):
        kind, _, value = part.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = float("nan")
        if kind not in rates or not 0.0 < rate <= 1.0:
            raise InputError(f"{option} '{part}': expected KIND=RATE with a kind of {', '.join(KINDS)} and a rate "
                             "above 0 and at most 1, joined by commas")
        rates[kind] = rate
    return rates


def forced_masks(gates: tuple[Gate, ...], rates: dict[str, float], pattern: str, seed: int) -> list[LayerMasks]:
    """Masks of each gate at the rates (at least one slice is kept); pattern of the features: "blob" or "random"."""
    rng = np.random.default_rng(seed)
    masks = []
    for gate in gates:
        c, t, h, w = gate.input_size
        features = blob_mask if pattern == "blob" else random_mask
        masks.append(LayerMasks(random_mask((t,), rates["frames"], rng), random_mask((c,), rates["channels"], rng),
                                features((h, w), rates["features"], rng)))
    return masks


def _kept_count(size: int, rate: float) -> int:
    return max(1, round(size * rate))


def random_mask(shape: tuple[int, ...], rate: float, rng: np.random.Generator) -> np.ndarray:
    """bool of `shape` that keeps entries anywhere, at least one."""
    size = int(np.prod(shape))
    mask = np.zeros(size, bool)
    mask[rng.permutation(size)[:_kept_count(size, rate)]] = True
    return mask.reshape(shape)


def blob_mask(shape: tuple[int, int], rate: float, rng: np.random.Generator) -> np.ndarray:
    """The positions nearest to a random centre: one connected region, as gates keep round an actor."""
    h, w = shape
    y, x = rng.uniform(0.25, 0.75, 2) * shape
    distance = np.hypot(np.arange(h)[:, None] - y, np.arange(w)[None] - x)
    mask = np.zeros(h * w, bool)
    mask[np.argsort(distance, axis=None, kind="stable")[:_kept_count(h * w, rate)]] = True
    return mask.reshape(shape)


def force_masks(body: bytes, masks: list[LayerMasks]) -> bytes:
    """The body graph whose convolutions read `masks` instead of what the gates decide."""
    import onnx  # only here: predictions need the masks and no graph
    from onnx import numpy_helper

    model = onnx.load_model_from_string(body)
    replaced = {}
    for i, layer in enumerate(masks):
        for kind, mask in zip(names.MASK_NAMES, layer):
            name = f"forced.gate{i}.{kind}"
            model.graph.initializer.append(numpy_helper.from_array(mask[None], name))
            replaced[f"gate{i}.{kind}"] = name
    for node in model.graph.node:
        if node.domain == names.DOMAIN and node.op_type in names.CONVS + names.EXPANDING:
            for i, value in enumerate(node.input):
                node.input[i] = replaced.get(value, value)
    return model.SerializeToString()
