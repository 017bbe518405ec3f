"""What `dance-bench model` does once its arguments are read: check them, measure, print the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dance_deploy.bench.forced import PATTERNS, keep_rates_from_text
from dance_deploy.bench.model import BASE, Outcome, bench_model
from dance_deploy.bench.peers import DESCRIPTIONS, OUTSIDERS, Case
from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError
from dance_deploy.files import whole_file
from dance_deploy.machine import system_findings
from dance_deploy.runtime.runner import checked_budget


def run_model_bench(bundle: Path, against: str, *, budget: float | None, force_keep: str | None, pattern: str,
                    threads: int, rounds: int, runs: int, seed: int, json_file: Path | None) -> None:
    """See `dance-bench model --help`; raises InputError for arguments that make no sense."""
    peers = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in peers if name not in OUTSIDERS]
    if unknown:
        raise InputError(f"--against: '{unknown[0]}' is unknown; choose from {', '.join(OUTSIDERS)}")
    if pattern not in PATTERNS:
        raise InputError(f"--pattern: '{pattern}' is unknown; choose from {', '.join(PATTERNS)}")
    rates = None if force_keep is None else keep_rates_from_text(force_keep)
    asked = open_bundle(bundle).manifest.budget.default if budget is None else checked_budget(budget)
    case = Case(threads, asked, rates, pattern, seed)
    outcome = bench_model(bundle, peers, case, rounds=rounds, runs=runs, progress=_progress)
    print(text_from_outcome(outcome))
    if json_file is not None:
        with whole_file(json_file) as stream:
            stream.write(json.dumps(dict(outcome.to_json(), machine=_machine()), indent=1) + "\n")


def text_from_outcome(outcome: Outcome) -> str:
    """The table for people."""
    case = outcome.case
    how = f"budget {case.budget:g}" if case.rates is None else "forced to keep " + ", ".join(
        f"{rate:.0%} of {kind}" for kind, rate in case.rates.items()) + f" ({case.pattern})"
    lines = [f"{outcome.model} ({outcome.bundle}), {how}: {outcome.macs_share:.0%} of the dense MACs (counted)",
             f"{case.threads} thread{'s' if case.threads > 1 else ''}, float32, one clip at a time; {_machine()}", "",
             f"{'':24}{'median':>10}   {'time over gated':>16}   {'quartiles':>13}"]
    for figures in outcome.figures:
        middle, low, high = figures.ratio()
        ratio = "" if figures.peer == BASE else f"{middle:>15.2f}x   {low:>5.2f} - {high:.2f}"
        lines.append(f"{DESCRIPTIONS[figures.peer]:24}{figures.median_ms:>7.1f} ms   {ratio}".rstrip())
    return "\n".join(lines)


def _machine() -> str:
    return ", ".join(f.detail for f in system_findings() if f.name in ("processor", "OS"))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="" if text.startswith("round") else "\n", file=sys.stderr, flush=True)
