"""`dance-bench kernels`: its table for people, and its plot."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

from dance_deploy.bench.keep_cases import KINDS, RATES
from dance_deploy.bench.kernel_peers import GATE
from dance_deploy.bench.kernels import CUDA, CaseResult, LayerResult, Settings, Spread
from dance_deploy.geometry import Conv3dGeometry

PEER_NAMES = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch", "openvino": "OpenVINO", "cudnn": "cuDNN 3D",
              "cudnn2d": "cuDNN 2D x kT"}
COLUMNS = 3  # of the plot
MOST_PLOTS = 24


def text_from_results(results: Sequence[LayerResult], settings: Settings, machine: str) -> str:
    """Tables: dense against peers, pruned against our own dense time, and the same of the direct kernel alone."""
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}, "
    measured = f"medians of {settings.rounds} rounds of {settings.runs} runs"
    clock = {"wall": "", "cpu": "; times are the processor's", CUDA: "; CUDA graphs, by events"}[settings.clock]
    arithmetic = "float32 without TF32 and tensor cores" if settings.clock == CUDA else threads + "float32"
    lines = [f"{arithmetic}, one clip; {measured}{clock}; {machine}", ""]
    return "\n".join(lines + _dense_lines(results) + [""] + _pruned_lines(results) + _direct_lines(results))


def _dense_lines(results: Sequence[LayerResult]) -> list[str]:
    peers = list(results[0].direct_over) if results else []
    lines = ["Dense: our time over the fastest other runtime's (quartiles); below 1, ours is faster",
             f"{'layer':34}{'GMACs':>8}{'ours ms':>9}  {'by':13}" + "".join(f"{PEER_NAMES[p]:>13}" for p in peers) +
             f"{'over best':>20}{'direct only':>13}"]
    for r in results:
        ratio = "" if r.over_best is None else f"{r.over_best.median:.2f} ({r.over_best.q1:.2f}-{r.over_best.q3:.2f})"
        direct = "" if r.best_peer is None else f"{r.direct_over[r.best_peer].median:.2f}"
        lines.append((f"{_short(r):34}{r.macs / 1e9:>8.3f}{r.dense_ms:>9.3f}  {r.dense_variant:13}" +
                      "".join(f"{r.ms(p):>13.3f}" for p in peers) + f"{ratio:>20}{direct:>13}").rstrip())
    return lines


def _pruned_lines(results: Sequence[LayerResult]) -> list[str]:
    rates = " / ".join(f"{rate:.0%}" for rate in RATES)
    lines = [f"Pruned at {rates}: time over (own dense time of the same variant x kept MACs); break-even: the largest "
             "share of MACs", "at which gate and gated convolution together are faster than the own dense time",
             f"{'layer':34}" + "".join(f"{kind:>19}" for kind in KINDS) + f"{'slowest':>9}  break-even"]
    for r in results:
        cells = _cells(r, lambda case: case.over_ideal)
        worst = "" if r.worst is None else f"{r.worst.over_dense.median:.2f}{'' if r.never_slower else '!'}"
        shares = {kind: "none" if share is None else f"{share:.0%}" for kind, share in r.break_even.items()}
        even = ", ".join(f"{kind} {share}" for kind, share in shares.items())
        lines.append(f"{_short(r):34}{cells}{worst:>9}  {even}")
    lines.append("slowest: the slowest of these over the own dense time; ! where it is above 1.02")
    return lines


def _direct_lines(results: Sequence[LayerResult]) -> list[str]:
    """Of layers that may run by Winograd: what the direct kernel alone makes of the same masks."""
    shown = [r for r in results if all(c.direct_over_ideal for c in r.cases)]
    if not shown:
        return []
    lines = ["", "Direct kernel alone, in layers where Winograd may be chosen: time over (own dense time of the direct "
             "kernel x kept MACs)", f"{'layer':34}" + "".join(f"{kind:>19}" for kind in KINDS)]
    return lines + [f"{_short(r):34}{_cells(r, lambda case: case.direct_over_ideal)}" for r in shown]


def _cells(r: LayerResult, ratio: Callable[[CaseResult], Spread | None]) -> str:
    """A column a kind, rates in a row."""
    columns = []
    for kind in KINDS:
        found = [ratio(case) for case in r.cases if case.case.kind == kind]
        columns.append(" / ".join(f"{spread.median:.2f}" for spread in found if spread) or "-")
    return "".join(f"{column:>19}" for column in columns)


def _short(r: LayerResult) -> str:
    times = f" x{r.layer.times}" if r.layer.times > 1 else ""
    room = 33 - len(times)
    label = r.layer.label if len(r.layer.label) <= room else "…" + r.layer.label[-(room - 1):]
    return label + times


def describe(g: Conv3dGeometry) -> str:
    """A layer in one line: channels, input size, kernel, stride, groups."""
    text = f"{g.in_channels}→{g.out_channels}, {'x'.join(map(str, g.in_size))}, kernel {'x'.join(map(str, g.kernel))}"
    text += "" if g.strides == (1, 1, 1) else f", stride {'x'.join(map(str, g.strides))}"
    return text + ("" if g.group == 1 else ", depthwise" if g.group == g.in_channels else f", {g.group} groups")


def plot_results(results: Sequence[LayerResult], path: Path) -> None:
    """A PNG: time against kept MACs, both over dense, a panel a layer, with the ideal line and break-even points."""
    from dance_deploy.report.figure import new_figure, save_figure

    shown = list(results[:MOST_PLOTS])
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = new_figure(4.2 * COLUMNS, 3.1 * rows, "the plot of dance-bench kernels")
    for i, r in enumerate(shown):
        axes = figure.add_subplot(rows, COLUMNS, i + 1)
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="ideal")
        axes.axhline(1, color="0.8", linewidth=1)
        gate = r.ms(GATE) / r.dense_ms
        for number, kind in enumerate(KINDS):
            points = [(1.0, 1.0)] + [(c.kept_macs, c.over_dense.median) for c in r.cases if c.case.kind == kind]
            if len(points) > 1:
                axes.plot(*zip(*points), marker=".", linewidth=1, color=f"C{number}", label=kind)
            share = r.break_even.get(kind)
            if share is not None:
                axes.plot([share], [1 - gate], marker="v", color=f"C{number}", markersize=6)
        axes.set_title(f"{_short(r)}\n{describe(r.layer.geometry)}", fontsize=7)
        axes.set_xlim(0, 1.05)
        axes.set_ylim(0, None)
        axes.set_xlabel("kept MACs", fontsize=7)
        axes.set_ylabel("time over own dense", fontsize=7)
        axes.tick_params(labelsize=7)
        if i == 0:
            axes.legend(fontsize=6, title="▼ break-even, gate included", title_fontsize=6)
    save_figure(figure, path)


