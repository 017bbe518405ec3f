"""Manifests of the architectures without weights, files or training: only what a prediction reads."""

from types import SimpleNamespace

from dance_deploy import models
from dance_deploy.manifest import FixedCost, Gate, Ungated
from dance_deploy.method.surgery import gate_model


def manifest_of(arch, clip_shape=None, classes=400):
    """What a manifest says of `arch` at a clip of `clip_shape` [1, 3, T, H, W] (default: its own)."""
    model = gate_model(models.build(arch, classes, seed=0), clip_shape or models.get(arch).clip.shape)
    plan = model.plan
    numbers = sum(p.numel() for p in model.controller.parameters())
    return SimpleNamespace(
        model=SimpleNamespace(name=arch),
        gates=tuple(Gate(site.name, tuple(site.input_shape), tuple(plan.geometries[n] for n in site.convs))
                    for site in plan.sites),
        ungated=Ungated(tuple(g for n, g in plan.geometries.items() if n not in plan.gated),
                        plan.linear.macs, plan.linear.bytes),
        controller=FixedCost(model.controller.macs(plan.stem_shape), 4 * numbers))
