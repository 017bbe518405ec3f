"""What `dance-bench predict` does once its arguments are read: check them, predict, print, write."""

from __future__ import annotations

import json
from pathlib import Path

from dance_deploy import profiles
from dance_deploy.bench.forced import PATTERNS, keep_rates_from_text
from dance_deploy.bench.predict.prediction import (
    Keep, Prediction, keep_for_budget, keep_of_masks, keep_of_rates, predict,
)
from dance_deploy.bench.predict.text import text_of
from dance_deploy.bundle import Bundle, open_bundle
from dance_deploy.errors import InputError
from dance_deploy.files import whole_file
from dance_deploy.ops.names import KINDS
from dance_deploy.profiles import Profile
from dance_deploy.report.figure import check_results
from dance_deploy.runtime.backends import LayerMasks
from dance_deploy.runtime.runner import checked_budget

PRECISIONS = ("fp32", "fp16")  # those of the kernels


def run_predict(bundle: Path, profile: str, *, budget: float | None, keep: str | None, golden: bool, by: str,
                pattern: str, seed: int, precision: str, mode: int | None, json_file: Path | None,
                plot: Path | None) -> None:
    """See `dance-bench predict --help`; raises InputError for arguments that make no sense."""
    if sum([budget is not None, keep is not None, golden]) > 1:
        raise InputError("--budget, --keep and --golden exclude each other; give one of them")
    if precision not in PRECISIONS:
        raise InputError(f"--precision: '{precision}' is unknown; choose from {', '.join(PRECISIONS)}")
    if pattern not in PATTERNS:
        raise InputError(f"--pattern: '{pattern}' is unknown; choose from {', '.join(PATTERNS)}")
    check_results(json_file, plot)
    target = profiles.load(profile)
    _check_mode(target, mode)
    opened = open_bundle(bundle)
    if golden:
        chosen = keep_of_masks(_golden_masks(opened))
    elif keep is not None:
        chosen = keep_of_rates(keep_rates_from_text(keep, "--keep"), pattern, seed)
    else:
        asked = opened.manifest.budget.default if budget is None else checked_budget(budget)
        wanted = Keep(dict.fromkeys(KINDS, 1.0), _kinds(by), pattern, seed)
        chosen = keep_for_budget(opened.manifest, asked, wanted)
    prediction = predict(opened.manifest, target, chosen, precision=precision, mode=mode)
    if plot is not None:
        from dance_deploy.report.roofline import draw_roofline

        draw_roofline(prediction, plot)
    _write_json(prediction, json_file)
    print(text_of(prediction, target))


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"--by: '{kind}' is unknown; choose from {', '.join(KINDS)}, joined by commas")
    if not kinds:
        raise InputError(f"--by names nothing; choose from {', '.join(KINDS)}, joined by commas")
    return kinds


def _check_mode(profile: Profile, mode: int | None) -> None:
    if mode is None:
        return
    modes = () if profile.power is None else profile.power.modes
    if mode not in {known.id for known in modes}:
        raise InputError(f"--mode {mode}: profile '{profile.name}' knows " + (
            ", ".join(f"{known.id} ({known.name})" for known in modes) or "no power modes"))


def _golden_masks(bundle: Bundle) -> list[LayerMasks]:
    from dance_deploy.runtime.selftest import golden_from_bundle

    return list(golden_from_bundle(bundle).masks)


def _write_json(prediction: Prediction, path: Path | None) -> None:
    if path is not None:
        with whole_file(path) as stream:
            stream.write(json.dumps(prediction.to_json(), indent=1) + "\n")
