"""What `dance-bench tune` does once its arguments are read."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from dance_deploy import __version__
from dance_deploy.bench.native import VARIANTS as VARIANT_NAMES
from dance_deploy.bench.native import library
from dance_deploy.bench.tune.cases import FITTED, tune_cases
from dance_deploy.bench.tune.fit import Costs, Estimates, fit_costs, mean_regret
from dance_deploy.bench.tune.measure import VARIANTS, Plan, Timed, measure, unsteadiness
from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import check_writable, whole_file
from dance_deploy.machine import system_findings
from dance_deploy.runtime import tuned_costs
from dance_deploy.runtime.kernels import isa_refused, library_path
from dance_deploy.runtime.tuned_costs import Target, TunedCosts

UNSTEADY = 0.2  # quiet machines show 0.03 to 0.1
WORTH = 0.998  # tuned costs' mean regret must be below this share of the built-in ones': less is noise


class Judged(NamedTuple):
    """One case under the built-in and the tuned costs: what each chooses, of VARIANTS, and its time over the fastest
    one's."""

    timed: Timed
    built_in: int
    tuned: int
    built_in_regret: float
    tuned_regret: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for --json."""
        case, ms = self.timed.case, np.median(self.timed.ms, axis=0)
        return {"layer": case.layer.label, "geometry": case.layer.geometry._asdict(), "masks": case.keep._asdict(),
                "part": case.part, "seed": case.seed,
                "ms": {VARIANT_NAMES[v]: float(t) for v, t in zip(VARIANTS, ms)}, "rounds": len(self.timed.ms),
                "built_in": {"variant": VARIANT_NAMES[self.built_in], "regret": self.built_in_regret},
                "tuned": {"variant": VARIANT_NAMES[self.tuned], "regret": self.tuned_regret}}


class Outcome(NamedTuple):
    """What was found. accepted: whether the tuned costs chose better where they were not fitted."""

    target: Target
    costs: Costs
    cases: list[Judged]
    accepted: bool

    def regret(self, fitted: bool) -> dict[str, float]:
        """Mean regrets of the cases that were fitted to, or of the others: {"built_in": ..., "tuned": ...}."""
        return mean_regrets([c for c in self.cases if (c.timed.case.part == FITTED) == fitted])


def mean_regrets(cases: list[Judged]) -> dict[str, float]:
    """Geometric means of times over the fastest variant's."""
    return {"built_in": mean_regret(np.array([c.built_in_regret for c in cases])),
            "tuned": mean_regret(np.array([c.tuned_regret for c in cases]))}


def run_tune(*, precision: str, threads: int, quick: bool, seed: int, json_file: Optional[Path]) -> None:
    """See `dance-bench tune --help`; raises InputError for what cannot be had here, OperationError where it fails."""
    from dance_deploy.bench.tune.text import text_from_outcome

    if precision not in ("fp32", "bf16"):
        raise InputError(f"--precision: '{precision}' is unknown; choose from fp32, bf16")
    if json_file is not None:
        check_writable(json_file, "--json")
    lib, path_of_library = library(), library_path()
    assert path_of_library is not None
    target, path = _target_and_path(path_of_library, precision)
    built_in = tuned_costs.built_in_costs(path_of_library)
    plan = Plan(threads, precision == "bf16", *((8.0, 2, 3) if quick else (25.0, 3, 7)), seed)
    outcome = tune(lib, target, built_in, plan, quick)
    machine = ", ".join(f.detail for f in system_findings() if f.name in ("processor", "OS"))
    print(text_from_outcome(outcome, threads, machine))
    print("\n" + _settle(outcome, path, path_of_library, threads))
    if json_file is not None:
        found = {"target": target._asdict(), "machine": machine, "threads": threads, "quick": quick, "seed": seed,
                 "accepted": outcome.accepted, "file": path if outcome.accepted else None, "built_in_costs": built_in,
                 "tuned_costs": outcome.costs, "fitted": outcome.regret(True), "checked": outcome.regret(False),
                 "cases": [case.to_json() for case in outcome.cases]}
        with whole_file(json_file) as stream:
            stream.write(json.dumps(found, indent=1) + "\n")


def tune(lib: ctypes.CDLL, target: Target, built_in: Costs, plan: Plan, quick: bool) -> Outcome:
    """Measure, fit, and check on what was not fitted to."""
    timed = measure(lib, tune_cases(plan.seed, quick), plan, _progress)
    off = unsteadiness(timed)
    if off > UNSTEADY:
        raise OperationError(f"times differ by {off:.0%} from round to round: other work disturbs them, and nothing is "
                             "written; run it again while the machine does nothing else")
    _progress("fitting")
    costs = fit_costs(lib, [t for t in timed if t.case.part == FITTED], built_in, plan.bf16)
    estimates = Estimates(lib, timed, plan.bf16)
    before, after = estimates.judge(built_in), estimates.judge(costs)
    cases = [Judged(t, b[0], a[0], b[1], a[1]) for t, b, a in zip(timed, before, after)]
    outcome = Outcome(target, costs, cases, False)
    checked = outcome.regret(False)
    return outcome._replace(accepted=checked["tuned"] < WORTH * checked["built_in"])


def _target_and_path(library: str, precision: str) -> tuple[Target, str]:
    """What is tuned, and where the file will be; looked at before anything is measured."""
    refused = isa_refused(library)
    if refused is not None:
        raise InputError(refused)
    target = tuned_costs.target_of(library, precision)
    if target is None:
        raise InputError("--precision bf16: this processor has no AVX512-BF16, or the kernels were built without it; "
                         "leave it out" if precision == "bf16" else
                         f"'{library}' is older than this command; build it anew with: make -C kernels")
    path = tuned_costs.path_of(target)
    if path is None:
        raise InputError(f"there is no place for the costs: {tuned_costs.ENVIRONMENT} asks for the built-in ones, or "
                         f"you have no home folder; unset it, or say {tuned_costs.ENVIRONMENT}=FILE")
    tuned_costs.check_place(path)
    return target, path


def _settle(outcome: Outcome, path: str, library: str, threads: int) -> str:
    """Write the file, or remove one that this run has not confirmed; says what was done."""
    if not outcome.accepted:
        kept = "the built-in costs are kept: where nothing was fitted, the tuned ones choose no better"
        if not os.path.exists(path):
            return kept
        if tuned_costs.target_at(path) not in (None, outcome.target):
            return f"{kept}; {path} stays: it holds costs of something else"
        try:
            os.unlink(path)
        except OSError as error:
            raise OperationError(f"{path}: cannot be removed ({error.strerror}), and holds costs that choose no better "
                                 "than the built-in ones") from error
        return f"{kept}; removed: {path}"
    model = tuned_costs.cost_model(library)
    assert model is not None
    tuned_costs.write(TunedCosts(outcome.target, __version__, model, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
                                 threads, {k: round(v, 4) for k, v in outcome.regret(False).items()}, outcome.costs),
                      path)
    return f"written: {path}; used from now on"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)
        if text == "fitting":
            print(file=sys.stderr)
