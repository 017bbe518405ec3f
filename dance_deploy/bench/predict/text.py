"""A prediction as text for people."""

from __future__ import annotations

from dance_deploy.bench.predict.prediction import Prediction
from dance_deploy.profiles import Profile

ROOFLINE = {"roofline_dense": "dense", "roofline_pruned": "pruned, gates and controller free",
            "roofline_gated": "pruned, gates and controller paid"}
ESTIMATE = {"gated": "gated, as our kernels choose", "gated_direct": "gated, direct kernels only",
            "gated_where_it_pays": "gated where it pays, else dense", "ours_dense": "our kernels, dense",
            "ours_dense_direct": "our direct kernels, dense",
            "conv3d": "a library's conv3d, dense", "best_dense": "a library's best, dense"}
RIVALS = {"ours_dense": "our own dense", "conv3d": "conv3d", "best_dense": "the best dense library"}
WORDS = {**ROOFLINE, **ESTIMATE}
_LONGEST_NAME = 34


def text_of(prediction: Prediction, profile: Profile) -> str:
    """Head, table of layers, whole network, what cannot pay."""
    return "\n".join([*_head(prediction, profile), "", *_layers(prediction), "", *_network(prediction),
                      *_cannot_pay(prediction)])


def _head(p: Prediction, profile: Profile) -> list[str]:
    mode = next((m.name for m in profile.power.modes if m.id == p.mode), None) if profile.power is not None else None
    if p.keep.recorded is not None:
        keep = "the masks of the bundle's golden clip"
    else:
        keep = ", ".join(f"{rate:.0%} of {kind}" for kind, rate in p.keep.rates.items()) + (
            f" ({p.keep.pattern}, seed {p.keep.seed})")
    lines = [f"PREDICTED, not measured: {p.model} on {p.profile}{f', {mode}' if mode else ''}, {p.precision}, one clip",
             f"  keeps {keep} at every gate: {p.macs_share:.0%} of the dense MACs (counted)",
             f"  peaks: {p.roof.macs_per_s / 1e9:.1f} GMAC/s, {p.roof.bytes_per_s / 1e9:.1f} GB/s "
             f"({p.roof.balance:.1f} MAC a byte); sources: profiles/{p.profile}.json",
             "  roofline: padding costs nothing, each operand moves once; pools and additions are not in it"]
    if p.assumptions is None:
        return [*lines, "  no estimate of real kernels: the shares of peak were derived for Maxwell and Pascal only"]
    return lines + [f"  estimate: {line}" for line in p.assumptions.lines(p.precision)]


def _layers(p: Prediction) -> list[str]:
    estimates = p.assumptions is not None
    width = min(_LONGEST_NAME, max(len(layer.name) for layer in p.layers))
    titles = f"{'layer':{width}}{'MMAC':>8}{'kept':>6}{'MB':>7}{'bound':>8}{'roofline ms':>18}"
    lines = [titles + (f"{'estimate ms':>18}{'gate':>7}{'pays below':>12}" if estimates else f"{'pays below':>12}")]
    for layer in p.layers:
        gate = None if layer.gate is None else p.gates[layer.gate]
        first = gate is not None and gate.layers[0] == layer.name
        name = layer.name if len(layer.name) <= width else "..." + layer.name[3 - width:]
        line = (f"{name:{width}}{layer.macs_dense / 1e6:>8.1f}{layer.macs / max(layer.macs_dense, 1):>6.0%}"
                f"{layer.bytes / 1e6:>7.1f}{layer.bound:>8}{_pair(layer.roofline_dense_ms, layer.roofline_ms):>18}")
        if estimates:
            gate_ms = f"{gate.ms:.2f}" if first and gate is not None and gate.ms is not None else ""
            line += f"{_pair(layer.dense_ms, layer.ours_ms):>18}{gate_ms:>7}"
        if first and gate is not None:
            rate = gate.break_even if estimates else gate.break_even_roofline
            line += f"{'never' if rate is None else f'{rate:.0%}':>12}"
        lines.append(line.rstrip())
    return lines


def _pair(dense: float | None, gated: float | None) -> str:
    return "" if dense is None or gated is None else f"{dense:.2f} -> {gated:.2f}"


def _network(p: Prediction) -> list[str]:
    low, high = p.watts
    watts = "unknown power" if high is None else f"{'?' if low is None else f'{low:g}'} to {high:g} W"
    lines = [f"{'whole network':54}{'time':>9}   energy ({watts})"]
    for name, ms in p.times_ms.items():
        kind = "roofline" if name in ROOFLINE else "estimate"
        lines.append(f"  {f'{kind}: {WORDS[name]}':52}{_ms(ms):>9}   {_joules(p, ms)}".rstrip())
    ratio = p.times_ms["roofline_dense"] / p.times_ms["roofline_gated"]
    lines.append(f"  roofline: dense over pruned with gates {ratio:.2f}x")
    if p.assumptions is not None:
        gated = p.times_ms["gated_where_it_pays"]
        lines.append("  estimate: gated where it pays is " + ", ".join(
            f"{p.times_ms[name] / gated:.2f}x as fast as {rival}" for name, rival in RIVALS.items()))
    return lines


def _ms(ms: float) -> str:
    return f"{ms:.1f} ms" if ms >= 1 else f"{ms:.3f} ms"


def _joules(p: Prediction, ms: float) -> str:
    low, high = p.energy_j(ms)
    if low is None and high is None:
        return "unknown"
    return f"{'?' if low is None else f'{low:.2g}'} to {'?' if high is None else f'{high:.2g}'} J"


def _cannot_pay(p: Prediction) -> list[str]:
    never = [gate.name for gate in p.gates
             if (gate.break_even_roofline if p.assumptions is None else gate.break_even) is None]
    if not never:
        return []
    return [f"  gating cannot pay at {len(never)} of {len(p.gates)} gates: " + ", ".join(never[:4]) + (
        f" and {len(never) - 4} more" if len(never) > 4 else "")]
