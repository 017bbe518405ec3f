"""A prediction for one bundle, device, power mode and precision, at keep rates of our choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dance_deploy.bench.forced import forced_masks
from dance_deploy.bench.predict.assumptions import DERIVED_FOR, Assumptions
from dance_deploy.bench.predict.kernels import Estimator
from dance_deploy.bench.predict.layers import Layer, controller_of, layers_of
from dance_deploy.bench.predict.roofline import Roof, roof_of
from dance_deploy.cost import Cost
from dance_deploy.manifest import Gate, Manifest
from dance_deploy.ops.names import KINDS
from dance_deploy.profiles import Profile
from dance_deploy.runtime.backends import LayerMasks

_STEPS = 8  # halvings: keep rates to 0.4 %


@dataclass(frozen=True)
class Keep:
    """Which masks are assumed.

    rates: by kind, 1 for kinds that are not reduced; kinds: those that are; pattern: which features ("blob" or
    "random"); seed: of the choice; recorded: masks of a clip, in place of all that.
    """

    rates: dict[str, float]
    kinds: tuple[str, ...]
    pattern: str = "blob"
    seed: int = 0
    recorded: tuple[LayerMasks, ...] | None = None

    def masks(self, gates: tuple[Gate, ...]) -> list[LayerMasks]:
        """One LayerMasks a gate; those of rates are the ones that `dance-bench model --force-keep` runs."""
        if self.recorded is not None:
            return list(self.recorded)
        return forced_masks(gates, self.rates, self.pattern, self.seed)

    def at(self, rate: float) -> Keep:
        """The reduced kinds, all at this rate."""
        return replace(self, rates=dict.fromkeys(KINDS, 1.0) | dict.fromkeys(self.kinds, rate), recorded=None)


def keep_of_rates(rates: dict[str, float], pattern: str = "blob", seed: int = 0) -> Keep:
    """Rates by kind; the kinds below 1 are the reduced ones, all of them where none is."""
    kinds = tuple(kind for kind in KINDS if rates[kind] < 1.0) or KINDS
    return Keep(dict(rates), kinds, pattern, seed)


def keep_of_masks(masks: Sequence[LayerMasks]) -> Keep:
    """The masks of a clip; rates: means over the gates."""
    shares = {kind: float(np.mean([np.mean(layer[i]) for layer in masks])) for i, kind in enumerate(KINDS)}
    return replace(keep_of_rates(shares), recorded=tuple(masks))


@dataclass(frozen=True)
class LayerPrediction:
    """One layer. macs, bytes: counted, dense and at the masks; times in ms; estimates are None without assumptions."""

    name: str
    gate: int | None
    macs_dense: int
    macs: int
    nominal_macs: int
    bytes_dense: int
    bytes: int
    bound_dense: str
    bound: str
    roofline_dense_ms: float
    roofline_ms: float
    dense_ms: float | None = None
    dense_direct_ms: float | None = None
    direct_ms: float | None = None
    ours_ms: float | None = None
    conv3d_ms: float | None = None
    best_dense_ms: float | None = None


@dataclass(frozen=True)
class GatePrediction:
    """One gate: ms, and the keep rate below which it pays (None: never); layers: names of what it gates."""

    name: str
    layers: list[str]
    roofline_ms: float
    ms: float | None
    break_even_roofline: float | None
    break_even: float | None


@dataclass(frozen=True)
class Prediction:
    """All that is predicted; macs_share: of the dense MACs, counted at the masks, the controller included."""

    model: str
    profile: str
    mode: int | None
    precision: str
    keep: Keep
    macs_share: float
    roof: Roof
    layers: list[LayerPrediction]
    gates: list[GatePrediction]
    times_ms: dict[str, float]
    watts: tuple[float | None, float | None]
    assumptions: Assumptions | None = None

    def energy_j(self, time_ms: float) -> tuple[float | None, float | None]:
        """From the lowest to the highest power that the profile has documents for; None where it has none."""
        low, high = (None if watts is None else 1e-3 * time_ms * watts for watts in self.watts)
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        keep = {"rates": self.keep.rates, "kinds": self.keep.kinds, "pattern": self.keep.pattern,
                "seed": self.keep.seed, "recorded": self.keep.recorded is not None}
        return {"predicted": True, "measured": False, "model": self.model, "profile": self.profile, "mode": self.mode,
                "precision": self.precision, "keep": keep, "macs_share": self.macs_share, "roof": self.roof._asdict(),
                "assumptions": None if self.assumptions is None else self.assumptions._asdict(),
                "watts": self.watts, "times_ms": self.times_ms,
                "energy_j": {name: self.energy_j(ms) for name, ms in self.times_ms.items()},
                "layers": [asdict(layer) for layer in self.layers], "gates": [asdict(gate) for gate in self.gates]}


def share_at(manifest: Manifest, keep: Keep) -> float:
    """Share of the dense MACs that the masks leave, the controller included: what `dance-run` reports."""
    from dance_deploy.runtime.costs import CostCounter

    counter = CostCounter(manifest)
    return counter.gated(keep.masks(manifest.gates)).macs / counter.dense.macs


def keep_for_budget(manifest: Manifest, budget: float, keep: Keep) -> Keep:
    """The highest rate of the reduced kinds whose counted share of MACs is within the budget."""
    if budget >= 1.0:
        return keep.at(1.0)
    return keep.at(_highest(lambda rate: share_at(manifest, keep.at(rate)) <= budget) or 1e-9)


def predict(manifest: Manifest, profile: Profile, keep: Keep, *, precision: str = "fp32",
            mode: int | None = None) -> Prediction:
    """See Prediction. Raises InputError where the profile lacks the rates that it takes."""
    roof = roof_of(profile, precision, mode)
    assert profile.hardware is not None
    assumed = Assumptions() if profile.hardware.compute_capability in DERIVED_FOR else None
    estimator = None if assumed is None else Estimator(roof, precision, assumed)
    masks = keep.masks(manifest.gates)
    layers, controller = layers_of(manifest), controller_of(manifest)
    rows = [_layer(layer, None if layer.gate is None else masks[layer.gate], roof, estimator)
            for layer in [*layers, controller]]
    gates = [_gate(i, gate, [layer for layer in layers if layer.gate == i], keep, roof, estimator)
             for i, gate in enumerate(manifest.gates)]
    mode = profile.hardware.mode if mode is None else mode
    return Prediction(manifest.model.name, profile.name, mode, precision, keep, share_at(manifest, keep), roof, rows,
                      gates, _times(rows, gates), _watts(profile, mode), assumed)


def _layer(layer: Layer, masks: LayerMasks | None, roof: Roof, estimator: Estimator | None) -> LayerPrediction:
    dense, gated = layer.dense(roof.element_bytes), layer.gated(masks, roof.element_bytes)
    estimates = {} if estimator is None else {
        "dense_ms": estimator.ours_ms(layer), "dense_direct_ms": estimator.direct_ms(layer),
        "direct_ms": estimator.direct_ms(layer, masks), "ours_ms": estimator.ours_ms(layer, masks),
        "conv3d_ms": estimator.conv3d_ms(layer), "best_dense_ms": estimator.best_dense_ms(layer)}
    return LayerPrediction(layer.name, layer.gate, dense.macs, gated.macs, layer.nominal_macs, dense.bytes, gated.bytes,
                           roof.bound(dense), roof.bound(gated), roof.ms(dense), roof.ms(gated), **estimates)


def _gate(index: int, gate: Gate, layers: list[Layer], keep: Keep, roof: Roof,
          estimator: Estimator | None) -> GatePrediction:
    def masks_at(rate: float) -> LayerMasks:
        return keep.at(rate).masks((gate,))[0]

    one_read = Cost(0, roof.element_bytes * int(np.prod(gate.input_size)))

    def roofline_pays(rate: float) -> bool:
        masks = masks_at(rate)
        return roof.ms(one_read) + sum(roof.ms(layer.gated(masks, roof.element_bytes)) for layer in layers) <= sum(
            roof.ms(layer.dense(roof.element_bytes)) for layer in layers)

    ms, break_even = None, None
    if estimator is not None:
        ms = estimator.gate_ms(gate.input_size, keep.masks((gate,))[0])
        dense = sum(estimator.ours_ms(layer) for layer in layers)

        def pays(rate: float) -> bool:
            masks = masks_at(rate)
            return estimator.gate_ms(gate.input_size, masks) + sum(
                estimator.ours_ms(layer, masks) for layer in layers) <= dense

        break_even = _highest(pays)
    return GatePrediction(gate.name, [layer.name for layer in layers], roof.ms(one_read), ms,
                          _highest(roofline_pays), break_even)


def _times(rows: list[LayerPrediction], gates: list[GatePrediction]) -> dict[str, float]:
    """Milliseconds of the whole network, by name; the controller, the last row, is part of ours only."""
    network, controller = rows[:-1], rows[-1]
    times = {"roofline_dense": sum(row.roofline_dense_ms for row in network),
             "roofline_pruned": sum(row.roofline_ms for row in network),
             "roofline_gated": sum(row.roofline_ms for row in rows) + sum(g.roofline_ms for g in gates)}
    if controller.ours_ms is None:
        return times

    def total(of: Callable[[LayerPrediction], float | None], chosen: Sequence[LayerPrediction] = network) -> float:
        return sum(of(row) or 0.0 for row in chosen)

    gate_ms = sum(gate.ms or 0.0 for gate in gates) + controller.ours_ms
    where_it_pays = controller.ours_ms + total(lambda row: row.dense_ms, [r for r in network if r.gate is None])
    for i, gate in enumerate(gates):
        own = [row for row in network if row.gate == i]
        gated_ms = (gate.ms or 0.0) + total(lambda row: row.ours_ms, own)
        where_it_pays += min(total(lambda row: row.dense_ms, own), gated_ms)
    return {**times, "gated": total(lambda row: row.ours_ms) + gate_ms,
            "gated_direct": total(lambda row: row.direct_ms) + gate_ms, "gated_where_it_pays": where_it_pays,
            "ours_dense": total(lambda row: row.dense_ms),
            "ours_dense_direct": total(lambda row: row.dense_direct_ms), "conv3d": total(lambda row: row.conv3d_ms),
            "best_dense": total(lambda row: row.best_dense_ms)}


def _watts(profile: Profile, mode: int | None) -> tuple[float | None, float | None]:
    """Power while it runs: from what a document measured under load (else idle) to the mode's or the maker's limit."""
    assert profile.hardware is not None
    watts = profile.hardware.watts
    low = watts.idle if watts.busy is None else watts.busy
    named = {m.id: m for m in profile.power.modes}.get(mode) if profile.power is not None and mode is not None else None
    high = watts.most if named is None or named.watts is None else named.watts
    return (low if low is None or high is None or low <= high else high), high


def _highest(holds: Callable[[float], bool]) -> float | None:
    """The highest rate in (0, 1] at which it holds, by halving; None where it holds nowhere."""
    if holds(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low or None
