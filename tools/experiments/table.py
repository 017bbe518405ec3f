"""The tables of settings. A setting is dance-train's defaults, changed in a few named places."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

BUDGETS = (1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)


@dataclass(frozen=True)
class Setting:
    """text: for the report; changes: fields of TrainSettings; own_dense: trains the dense network itself, one of a
    table's. All others start from what it trained with the same seed and fold, which is also their teacher: the same
    numbers as if each had trained it again, for a third of the time. clip: what a dense network without gates reads
    that goes on from there on smaller clips (a teacher for those there is not): clip, clip_stride of dance-train."""

    text: str
    changes: dict[str, Any] = field(default_factory=dict)
    own_dense: bool = False
    clip: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """title, arch; data: a word for --data that needs no files, or None; options: of dance-train beside the settings
    (clip, clip_stride, render_clips); changes: fields of TrainSettings for all settings; settings by name; seeds;
    folds: names of split files, None for the data's own split."""

    title: str
    arch: str
    settings: dict[str, Setting]
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: tuple[str | None, ...] = (None,)

    @property
    def dense(self) -> str:
        """Name of the setting that trains the dense networks."""
        return next(name for name, setting in self.settings.items() if setting.own_dense)


NO_GATES = {"epochs_ava": 0, "epochs_aap": 0}
# as many epochs after the dense phase as static pruning, AVA and AAP have together
STATIC_ONLY = {**NO_GATES, "epochs_static": 100}
# as many epochs as AVA and AAP have together
NO_AVA = {"epochs_ava": 0, "epochs_aap": 60}

# the same for a dense network that goes on with smaller clips
SMALLER = {**NO_GATES, "epochs_dense": 100}
HALF_SIZE = {"clip": "16x32x40"}

DANCE = Setting("gates on frames and features (the default)", own_dense=True)
STATIC_25 = Setting("channels pruned to 25 %, then gates", {"static_share": 0.25})

# AVA's term on and off with all else alike, the fewer the gates' epochs and the less the network follows them
AVA_ALONE = {
    "ava-0": Setting("the default, AVA's term off", {"ava_lambda": 0.0}),
    **{f"{name}-ava-{short}": Setting(f"{text}, AVA's term at {weight:g}", {"ava_lambda": weight, **changes})
       for name, text, changes in (
           ("short10", "gates trained for 10 epochs", {"epochs_aap": 10}),
           ("frozen", "the same, the network all but frozen", {"epochs_aap": 10, "lr_aap": 1e-7}))
       for short, weight in (("0", 0.0), ("03", 0.3), ("1", 1.0))},
}

SETTINGS = {
    "dance": DANCE,
    "no-ava": Setting("the default without AVA", NO_AVA),
    "static25": STATIC_25,
    "static25-features": Setting("channels pruned to 25 %, then gates on features only",
                                 {"static_share": 0.25, "kinds": ("features",)}),
    "static25-features-no-ava": Setting("channels pruned to 25 %, then gates on features only, without AVA",
                                        {"static_share": 0.25, "kinds": ("features",), **NO_AVA}),
    **{f"static{share:02}-all-features": Setting(
        f"channels that additions join as well pruned to {share} %, then gates on features only",
        {"static_share": share / 100, "static_scope": "all", "kinds": ("features",)}) for share in (20, 10, 6)},
    "static50": Setting("channels pruned to 50 %, then gates", {"static_share": 0.5}),
    **AVA_ALONE,
    "only-bn-50": Setting("static only, BN scale, to 50 %", {"static_share": 0.5, **STATIC_ONLY}),
    "only-bn-25": Setting("static only, BN scale, to 25 %", {"static_share": 0.25, **STATIC_ONLY}),
    "only-bn-35": Setting("static only, BN scale, to 35 %", {"static_share": 0.35, **STATIC_ONLY}),
    "only-bn-20": Setting("static only, BN scale, to 20 %", {"static_share": 0.2, **STATIC_ONLY}),
    "only-bn-15": Setting("static only, BN scale, to 15 %", {"static_share": 0.15, **STATIC_ONLY}),
    **{f"only-bn-{share:02}-all": Setting(
        f"static only, BN scale, channels that additions join as well, to {share} %",
        {"static_share": share / 100, "static_scope": "all", **STATIC_ONLY}) for share in (15, 10, 6, 3)},
    "only-bn-uniform-25": Setting("static only, BN scale, every layer alike, to 25 %",
                                  {"static_share": 0.25, "static_allocation": "uniform", **STATIC_ONLY}),
    "only-magnitude-25": Setting("static only, filter magnitude, to 25 %",
                                 {"static_share": 0.25, "static_by": "magnitude", **STATIC_ONLY}),
    "half-frames": Setting("dense, half of the frames", SMALLER, clip={"clip": "8x64x80", "clip_stride": 4}),
    "half-size": Setting("dense, half of the height and width", SMALLER, clip=HALF_SIZE),
    "half-both": Setting("dense, half of the frames, height and width", SMALLER,
                         clip={"clip": "8x32x40", "clip_stride": 4}),
    "half-size-gates": Setting("half of the height and width, then gates", {"epochs_dense": 100}, clip=HALF_SIZE),
    **{f"half-size-bn-{share}": Setting(
        f"half of the height and width, then static only, BN scale, to {share} %",
        {**SMALLER, "static_share": share / 100, "epochs_static": 60}, clip=HALF_SIZE) for share in (50, 35)},
    "features": Setting("gates on features only", {"kinds": ("features",)}),
    "frames": Setting("gates on frames only", {"kinds": ("frames",)}),
    "channels": Setting("gates on channels only", {"kinds": ("channels",)}),
    "all-kinds": Setting("gates on frames, channels and features", {"kinds": ("frames", "channels", "features")}),
    "constant": Setting("constant thresholds per budget", {"thresholds_from": "budget"}),
    "random": Setting("random masks, as many kept", {"random_masks": True}),
}

# what frames' thresholds above their mean do: the bound that was the default once, with all that was run with it
LOOSE = {f"{name}-tau15": Setting(f"{SETTINGS[name].text}; frames' thresholds up to 1.5",
                                  {**SETTINGS[name].changes, "tau_max": (1.5, 1.5, 1.5)})
         for name in ("dance", "static25", "constant", "random")}
SETTINGS.update(LOOSE)

# what the report sets side by side: what differs, the setting with it, the one without
COMPARISONS = (
    ("AVA", "dance", "no-ava"),
    ("AVA after static pruning", "static25-features", "static25-features-no-ava"),
    ("AVA's term", "dance", "ava-0"),
    ("AVA's term, 10 epochs of gates", "short10-ava-03", "short10-ava-0"),
    ("AVA's term at 1, 10 epochs of gates", "short10-ava-1", "short10-ava-0"),
    ("AVA's term, 10 epochs, network frozen", "frozen-ava-03", "frozen-ava-0"),
    ("AVA's term at 1, 10 epochs, network frozen", "frozen-ava-1", "frozen-ava-0"),
    ("thresholds that follow the clip", "dance", "constant"),
    ("masks that follow the clip", "dance", "random"),
    ("frames as well as features", "dance", "features"),
    ("frames as well as features, after static pruning", "static25", "static25-features"),
    ("frames and features rather than channels", "dance", "channels"),
    ("channels as well as frames and features", "all-kinds", "dance"),
    ("static: one threshold for all layers rather than the same share of each", "only-bn-25", "only-bn-uniform-25"),
    ("static: by BN scale rather than filter magnitude", "only-bn-25", "only-magnitude-25"),
    ("frames' thresholds below their mean", "dance", "dance-tau15"),
    ("frames' thresholds below their mean, after static pruning", "static25", "static25-tau15"),
    ("thresholds that follow the clip, frames' up to 1.5", "dance-tau15", "constant-tau15"),
    ("masks that follow the clip, frames' thresholds up to 1.5", "dance-tau15", "random-tau15"),
)


def _with(name: str, **changes: Any) -> Setting:
    return replace(SETTINGS[name], changes={**SETTINGS[name].changes, **changes})


# enough for moving shapes, of which there are many
RENDERED = {"epochs_dense": 40, "epochs_ava": 2, "epochs_aap": 25}


def _rendered(size: str, half: str) -> dict[str, Setting]:
    """The settings for rendered clips of that height and width; half: half of both."""
    return {
        **{name: SETTINGS[name] for name in ("dance", "ava-0", "constant", "random", "features", "frames", "channels",
                                             "all-kinds")},
        "no-ava": _with("no-ava", epochs_aap=27),
        **{name: _with(name, epochs_static=20) for name in ("static50", "static25", "static25-features")},
        **{name: _with(name, epochs_static=47)
           for name in ("only-bn-50", "only-bn-35", "only-bn-25", "only-bn-20", "only-bn-15", "only-bn-15-all",
                        "only-bn-10-all", "only-bn-06-all", "only-bn-uniform-25", "only-magnitude-25")},
        **{name: replace(_with(name, epochs_dense=47), clip=clip) for name, clip in (
            ("half-frames", {"clip": f"8x{size}", "clip_stride": 4}), ("half-size", {"clip": f"16x{half}"}),
            ("half-both", {"clip": f"8x{half}", "clip_stride": 4}))}}


TABLES = {
    "weizmann": Table("Ten actions on real video (Weizmann), split by person", "small", SETTINGS),
    "weizmann-half": Table(
        "Ten actions on real video (Weizmann), half of the height and width", "small",
        {name: SETTINGS[name] for name in ("dance", "static25", "static25-features", "only-bn-25", "only-bn-15",
                                           "only-bn-10-all")},
        options={"clip": "16x32x40"}, seeds=(0,)),
    "weizmann-loso": Table(
        "Ten actions on real video (Weizmann), one person left out at a time", "small",
        {"static25": replace(STATIC_25, own_dense=True),
         **{name: SETTINGS[name] for name in ("static25-features", "only-bn-15")},
         "static25-tau15": LOOSE["static25-tau15"]}, seeds=(0,),
        folds=tuple(f"loso/{person}" for person in ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe",
                                                    "shahar"))),
    "rendered": Table("Rendered shapes in motion, of graded difficulty", "small", _rendered("48x60", "24x30"),
                      data="rendered", options={"clip": "16x48x60", "render_clips": 30}, changes=RENDERED),
    "rendered-large": Table(
        "Rendered shapes in motion, of graded difficulty, twice as high and wide", "small",
        {name: _rendered("96x120", "48x60")[name] for name in (
            "dance", "static50", "static25", "only-bn-50", "only-bn-25", "only-bn-20", "only-bn-15", "only-bn-10-all",
            "half-size")},
        data="rendered", options={"clip": "16x96x120", "render_clips": 30}, changes=RENDERED),
}
