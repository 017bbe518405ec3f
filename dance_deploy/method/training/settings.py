"""Every number that training depends on, in one place; what is not given follows from the size of the data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dance_deploy.errors import InputError
from dance_deploy.method.ava import FORMS
from dance_deploy.method.controller import TAU_MAX, TAU_START
from dance_deploy.method.prune import ALLOCATIONS, SCOPES, SCORES
from dance_deploy.method.saliency import KINDS
from dance_deploy.method.training.precision import PRECISIONS

PHASES = ("dense", "static", "ava", "aap")
GATING = ("budget", "clip")
MAX_COUNT = 1 << 20  # of epochs, windows, clips in a step: nobody means more
SMALL_DATA = 50  # training clips up to which the most epochs are run; beyond, fewer, as epochs get longer
EPOCH_WINDOWS = 100  # windows in an epoch of a small data set: a few dozen clips, seen once, are too few steps
MOST_WINDOWS = 4
# fewest and most epochs where none are given
EPOCHS = {"dense": (30, 100), "static": (12, 40), "ava": (4, 10), "aap": (20, 50)}
# what dance-train sets, and by which option where that is not the setting's own name; all else is set from Python
OPTIONS = {**{name: "--" + name.replace("_", "-") for name in (
    "target_macs", "epochs_dense", "epochs_static", "epochs_ava", "epochs_aap", "kinds", "static_share", "static_by",
    "static_allocation", "static_scope", "seed", "batch", "windows", "flip", "lr_controller", "precision")},
    **dict.fromkeys(("lr_dense", "lr_static", "lr_ava", "lr_aap"), "--lr")}


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one run; the defaults are those of docs/method.md.

    epochs_*, windows (per clip and epoch): None = from the number of training clips; kinds: what the gates may prune;
    tau_max: bounds of the thresholds over frames, channels, features;
    static_share: MACs that static channel pruning leaves before the gates are trained, None = no such phase; static_by,
    static_allocation, static_scope: see prune.py; thresholds_from: "clip" = the controller sees clip and budget,
    "budget" = constant thresholds per budget; random_masks: as many kept as the gates would keep, but random ones
    (both for comparisons);
    target_macs: the default budget, a share in (0, 1); lowest_budget: training draws budgets from [lowest_budget, 1];
    open_part: part of the AAP batches in which half the clips run at budget 1; precision: of training steps, None = by
    device (precision.py); eval_windows: windows per clip whose
    answers are averaged in an evaluation; eval_every: epochs between evaluations on the validation clips;
    penalty_over, penalty_under: see losses.mac_penalty; ava_kinds: weights of frames, channels, features in sigma2_AVA.
    """

    target_macs: float = 0.5
    epochs_dense: int | None = None
    epochs_static: int | None = None
    epochs_ava: int | None = None
    epochs_aap: int | None = None
    kinds: tuple[str, ...] = ("frames", "features")
    tau_max: tuple[float, float, float] = TAU_MAX
    static_share: float | None = None
    static_by: str = "bn"
    static_allocation: str = "global"
    static_scope: str = "inner"
    thresholds_from: str = "clip"
    random_masks: bool = False
    seed: int = 0
    batch: int = 10
    windows: int | None = None
    flip: bool = True
    lr_dense: float = 2e-3
    lr_static: float = 1e-3
    lr_ava: float = 1e-3
    lr_aap: float = 1e-3
    lr_controller: float = 3e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    grad_norm: float = 5.0
    ava_lambda: float = 0.3
    ava_form: str = "variance"
    ava_kinds: tuple[float, float, float] = (0.15, 0.15, 0.7)
    distill: float = 1.0
    distill_temperature: float = 2.0
    penalty_over: float = 2.0
    penalty_under: float = 1.0
    lowest_budget: float = 0.2
    open_part: float = 0.3
    precision: str | None = None
    eval_windows: int = 5
    eval_every: int = 10
    budgets: tuple[float, ...] = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)

    def check(self) -> TrainSettings:
        """Return self; raise InputError, naming the option or the setting, where a value makes no sense."""
        for name in ("epochs_dense", "epochs_static", "epochs_ava", "epochs_aap"):
            _in_range(name, getattr(self, name), 0)
        for name in ("batch", "windows", "eval_windows", "eval_every"):
            _in_range(name, getattr(self, name), 1)
        for name in ("lr_dense", "lr_static", "lr_ava", "lr_aap", "lr_controller"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{named(name)} is {value}, expected a number above 0")
        if not 0.05 <= self.target_macs < 1.0:
            raise InputError(f"--target-macs is {self.target_macs}, expected a share of the MACs from 0.05 to below 1")
        if not self.kinds or set(self.kinds) - set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise InputError(f"--kinds is '{','.join(self.kinds)}', expected one or more of {', '.join(KINDS)}, "
                             "joined by commas")
        if len(self.tau_max) != len(KINDS) or not all(TAU_START < bound < math.inf for bound in self.tau_max):
            raise InputError(f"{named('tau_max')} is {_text(list(self.tau_max))}, expected three numbers above "
                             f"{TAU_START}, where all thresholds start")
        if self.static_share is not None and not 0.0 < self.static_share < 1.0:
            raise InputError(f"--static-share is {self.static_share}, expected a share of the MACs above 0 and below 1")
        for name, known in (("ava_form", tuple(FORMS)), ("static_by", SCORES), ("static_allocation", ALLOCATIONS),
                            ("static_scope", SCOPES), ("thresholds_from", GATING)):
            if getattr(self, name) not in known:
                raise InputError(f"{named(name)} is '{getattr(self, name)}', expected one of {', '.join(known)}")
        if self.precision not in (None, *PRECISIONS):
            raise InputError(f"--precision is '{self.precision}', expected one of {', '.join(PRECISIONS)}")
        if not 0 <= self.seed < 1 << 62:
            raise InputError(f"--seed is {self.seed}, expected 0 or more, below 2^62")
        return self

    def resolved(self, train_clips: int) -> TrainSettings:
        """The settings with every None filled in for a data set of that many training clips."""
        found: dict[str, Any] = {}
        for phase in PHASES:
            low, high = EPOCHS[phase]
            if getattr(self, f"epochs_{phase}") is None:
                wanted = round(high * SMALL_DATA / max(1, train_clips))
                found[f"epochs_{phase}"] = min(high, max(low, wanted))
        if self.static_share is None:
            found["epochs_static"] = 0
        if self.windows is None:
            found["windows"] = min(MOST_WINDOWS, max(1, math.ceil(EPOCH_WINDOWS / max(1, train_clips))))
        # a budget below the default one must have been trained, or the default is an extrapolation
        return replace(self, lowest_budget=min(self.lowest_budget, self.target_macs), **found)

    def epochs(self, phase: str) -> int:
        """Epochs of a phase, after `resolved`."""
        return int(getattr(self, f"epochs_{phase}"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, lists for tuples, for files."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def differences(old: dict[str, Any], new: TrainSettings) -> list[str]:
    """'--seed 0, now 1' per setting in which a stored run differs from the one asked for."""
    now = new.as_dict()
    changed: dict[str, str] = {}  # by option: --lr sets several rates, the first as it was given
    for field in fields(new):
        if old.get(field.name) != now[field.name]:
            name = named(field.name)
            changed.setdefault(name, f"{name} {_text(old.get(field.name))}, now {_text(now[field.name])}")
    return list(changed.values())


def named(name: str) -> str:
    """How a user knows a setting: by the option of dance-train, or where it has none by its name in TrainSettings."""
    return OPTIONS.get(name, f"the setting {name}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _in_range(name: str, value: int | None, low: int) -> None:
    if value is not None and not low <= value <= MAX_COUNT:
        raise InputError(f"{named(name)} is {value}, expected {low} to {MAX_COUNT}")
