"""What dance-bench does once its arguments are read: check them, measure, print the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Sequence

from dance_deploy.bench.agreement import agreement_on
from dance_deploy.bench.forced import PATTERNS, keep_rates_from_text
from dance_deploy.bench.kernels import CUDA, CUDA_RIVALS, Settings, bench_kernels
from dance_deploy.bench.kernels_text import plot_results, text_from_results
from dance_deploy.bench.layers import Layer, chosen_layers
from dance_deploy.bench.model import BASE, Outcome, bench_model
from dance_deploy.bench.peers import DESCRIPTIONS, MODEL_PEERS, OUTSIDERS, PRECISIONS, Case
from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError
from dance_deploy.files import whole_file
from dance_deploy.machine import system_findings
from dance_deploy.report.figure import check_results
from dance_deploy.runtime import tuned_costs
from dance_deploy.runtime.kernels import bf16_variant, library_path
from dance_deploy.runtime.runner import checked_budget


def run_kernel_bench(architectures: str, layers: str, against: str | None, *, backend: str, threads: int, rounds: int,
                     runs: int, seed: int, cpu_time: bool, json_file: Path | None, plot: Path | None) -> None:
    """See `dance-bench kernels --help`; raises InputError for arguments that make no sense."""
    if backend not in ("cpu", "cuda"):
        raise InputError(f"--backend: '{backend}' is unknown; choose from cpu, cuda")
    if backend == "cuda" and (threads > 1 or cpu_time):
        raise InputError(f"{'--cpu-time' if cpu_time else '--threads'} is for the CPU's kernels; with --backend cuda "
                         "leave it out")
    if cpu_time and threads > 1:
        raise InputError("--cpu-time: the time that several threads took together is not how long a run took; "
                         "use --threads 1")
    check_results(json_file, plot)
    chosen = chosen_layers(_names(architectures), _names(layers))
    settings = Settings(threads, rounds, runs, seed, CUDA if backend == "cuda" else "cpu" if cpu_time else "wall")
    text, found = _cuda(chosen, against, settings) if backend == "cuda" else _cpu(chosen, against, settings)
    print(text)
    if json_file is not None:
        tree = {**settings._asdict(), **found, "layers": [result.to_json() for result in found["layers"]]}
        with whole_file(json_file) as stream:
            stream.write(json.dumps(tree, indent=1) + "\n")
    if plot is not None:
        plot_results(found["layers"], plot)


def _cpu(layers: list[Layer], against: str | None, settings: Settings) -> tuple[str, dict[str, Any]]:
    peers = _known_peers("onnxruntime" if against is None else against)
    results = bench_kernels(layers, peers, settings, _progress)
    machine = machine_line() + costs_line("fp32")
    return text_from_results(results, settings, machine), {"machine": machine, "layers": results}


def _cuda(layers: list[Layer], against: str | None, settings: Settings) -> tuple[str, dict[str, Any]]:
    from dance_deploy.bench.cuda_gpu import open_gpu

    peers = _known_peers("cudnn,cudnn2d" if against is None else against, CUDA_RIVALS)
    gpu = open_gpu()
    from dance_deploy.bench.cuda_kernels import bench_cuda_kernels, fma_peak, lines_of_peak, share_of_peak

    peak = fma_peak(gpu)
    results = bench_cuda_kernels(gpu, layers, peers, settings, _progress)
    text = "\n".join([text_from_results(results, settings, gpu.describe()), "", *lines_of_peak(results, peak)])
    return text, {"machine": gpu.describe(), "fma_peak_macs_per_ms": peak, "layers": results,
                  "direct_share_of_peak": {r.layer.label: share_of_peak(r, peak) for r in results}}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _known_peers(against: str, known: Sequence[str] = OUTSIDERS) -> list[str]:
    peers = _names(against)
    unknown = [name for name in peers if name not in known]
    if unknown:
        raise InputError(f"--against: '{unknown[0]}' is unknown; choose from {', '.join(known)}")
    return peers


def run_model_bench(bundle: Path, against: str, *, budget: float | None, force_keep: str | None, pattern: str,
                    threads: int, rounds: int, runs: int, seed: int, precision: str, videos: str,
                    json_file: Path | None) -> None:
    """See `dance-bench model --help`; raises InputError for arguments that make no sense."""
    peers = _known_peers(against, MODEL_PEERS)
    if precision not in PRECISIONS:
        raise InputError(f"--precision: '{precision}' is unknown; choose from {', '.join(PRECISIONS)}")
    if videos and precision == "fp32":
        raise InputError("--videos compares another precision with float32; add --precision bf16")
    if pattern not in PATTERNS:
        raise InputError(f"--pattern: '{pattern}' is unknown; choose from {', '.join(PATTERNS)}")
    if force_keep is not None and budget is not None:
        raise InputError("--budget steers the gates and --force-keep overrules them; give one of the two")
    check_results(json_file)
    rates = None if force_keep is None else keep_rates_from_text(force_keep)
    asked = open_bundle(bundle).manifest.budget.default if budget is None else checked_budget(budget)
    case = Case(threads, asked, rates, pattern, seed, precision)
    agreement = agreement_on(bundle, _names(videos), asked, precision, threads, _progress) if videos else None
    outcome = bench_model(bundle, peers, case, rounds=rounds, runs=runs, progress=_progress)
    print(text_from_outcome(outcome))
    found = dict(outcome.to_json(), machine=machine_line() + costs_line(precision))
    if precision == "bf16":
        found["bf16_variant"] = _bf16_variant()
    if agreement is not None:
        print("\n" + agreement.text())
        found["videos"] = agreement._asdict()
    if json_file is not None:
        with whole_file(json_file) as stream:
            stream.write(json.dumps(found, indent=1) + "\n")


def text_from_outcome(outcome: Outcome) -> str:
    """The table for people."""
    case = outcome.case
    how = f"budget {case.budget:g}" if case.rates is None else "forced to keep " + ", ".join(
        f"{rate:.0%} of {kind}" for kind, rate in case.rates.items()) + f" ({case.pattern})"
    exact = case.precision == "fp32"
    kind = "float32" if exact else f"bfloat16 where nothing else is said (ours: {_bf16_variant()})"
    threads = f"{case.threads} thread{'s' if case.threads > 1 else ''}"
    lines = [f"{outcome.model} ({outcome.bundle}), {how}: {outcome.macs_share:.0%} of the dense MACs (counted)",
             f"{threads}, {kind}, one clip at a time; {machine_line()}{costs_line(case.precision)}", "",
             f"{'':28}{'median':>10}   {'peak memory':>11}   {'time over gated':>15}   {'quartiles':>13}"
             + ("" if exact else "   off float32  label")]
    for figures in outcome.figures:
        middle, low, high = figures.ratio()
        ratio = "" if figures.peer == BASE else f"{middle:>14.2f}x   {low:>5.2f} - {high:.2f}"
        off = figures.accuracy
        accuracy = f"{off.difference:>14.2%}  {'same' if off.same_label else 'OTHER'}" if off else ""
        name = DESCRIPTIONS[figures.peer] + (", float32" if not (exact or off or figures.peer == "float32") else "")
        lines.append(f"{name:28}{figures.median_ms:>7.1f} ms   {figures.peak_mb:>8.0f} MB   {ratio:34}{accuracy}"
                     .rstrip())
    if not exact:
        lines.append("off float32: largest difference of the logits on the bundle's clip over their range; label: the "
                     "best one")
    return "\n".join(lines)


def costs_line(precision: str) -> str:
    """"; tuned costs" where our kernels choose their variants by what `dance-bench tune` found here, else ""."""
    path = library_path()
    tuned = None if path is None else tuned_costs.find(path, precision).tuned
    return "" if tuned is None else f"; tuned costs ({tuned.date})"


def _bf16_variant() -> str:
    path = library_path()
    return path and bf16_variant(path) or "none"


def machine_line() -> str:
    """What a figure is of no worth without: system, processor, cores, instruction sets."""
    return ", ".join(f.detail for f in system_findings() if f.name in ("processor", "OS"))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="" if text.startswith("round") else "\n", file=sys.stderr, flush=True)
