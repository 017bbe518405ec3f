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


def nano_rows():
    """The rows of the table in docs/jetson.md, one a network, precision and case."""
    from dance_deploy import profiles
    from dance_deploy.bench.predict.prediction import Keep, keep_for_budget, predict
    from dance_deploy.ops.names import KINDS

    nano = profiles.load("jetson-nano")
    for arch, name in (("r3d18", "R3D-18"), ("c3d", "C3D")):
        manifest = manifest_of(arch)
        for precision in ("fp32", "fp16"):
            for budget, kind in ((1.0, "features"), (0.5, "frames"), (0.5, "channels"), (0.5, "features")):
                keep = keep_for_budget(manifest, budget, Keep(dict.fromkeys(KINDS, 1.0), (kind,)))
                p = predict(manifest, nano, keep, precision=precision)
                t = p.times_ms
                low, high = p.energy_j(t["gated_where_it_pays"])
                case = "everything kept" if budget == 1.0 else f"budget {budget:g}, {kind}"
                yield (f"| {name} {precision.upper()} | {case} | {p.macs_share:.0%} | "
                       f"{_pair(t['roofline_dense'], t['roofline_gated'])} | "
                       f"{_pair(t['ours_dense_direct'], t['gated_direct'])} | "
                       f"{_pair(t['ours_dense'], t['gated_where_it_pays'])} | "
                       f"{t['conv3d']:.0f} | {t['best_dense']:.0f} | {low:.1f}-{high:.1f} |")


def _pair(dense, gated):
    return f"{dense:.0f} -> {gated:.0f} ({dense / gated:.2f}x)"
