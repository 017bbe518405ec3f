"""The report of a table: Markdown, a plot, and the raw figures as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dance_deploy.files import whole_file
from dance_deploy.power.intervals import mean_interval
from dance_deploy.report.figure import new_figure, save_figure
from tools.experiments.table import COMPARISONS, Table

Figures = dict[str, Any]


def write_report(table: Table, name: str, measured: Sequence[Figures], folder: Path, difficulty: dict[str, float]
                 ) -> None:
    """Write <folder>/<name>.md, .png and .jsonl; difficulty: per clip name, {} where the data has none."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{name}.jsonl") as stream:
        stream.write("".join(json.dumps(m) + "\n" for m in measured))
    lines = [f"# {table.title}", "", _how(table, name), "", *_main_table(table, measured), *_by_fold(measured),
             *_side_by_side(measured), *_against_static(measured), *_obedience(measured), *_spread(measured),
             *_adaptivity(measured, difficulty), "", f"![accuracy over MACs]({name}.png)", ""]
    with whole_file(folder / f"{name}.md") as stream:
        stream.write("\n".join(lines))
    _plot(table, measured, folder / f"{name}.png")


def _how(table: Table, name: str) -> str:
    data = "" if table.data else " --data DIR"
    return (f"Written by `python -m tools.experiments {name}{data} --runs FOLDER`, which trains and measures it all "
            "again (the same machine and number of threads give the same figures, others give them within noise). "
            f"Raw figures with all settings, per clip where that was measured: [{name}.jsonl]({name}.jsonl). Network "
            f"`{table.arch}`. MACs are counted from the masks, controller included, as a share of the original dense "
            "network's; they are not times. A clip is right by the mean over its windows; a window, on its own. Means "
            "over the seeds of each row, folds summed; in brackets the lowest and highest.")


def by_setting(measured: Sequence[Figures]) -> dict[str, list[Figures]]:
    """The runs of each setting."""
    found: dict[str, list[Figures]] = {}
    for m in measured:
        found.setdefault(m["setting"], []).append(m)
    return found


def share_of_original(m: Figures, share: float) -> float:
    """A share of the pruned network's MACs as one of the original network's."""
    return share * m["pruned_macs"] / m["original_macs"]


def _main_table(table: Table, measured: Sequence[Figures]) -> list[str]:
    lines = ["## Accuracy against MACs", "", "| setting | runs | budget | MACs | clips right | windows right |",
             "| --- | --- | --- | --- | --- | --- |"]
    groups = by_setting(measured)
    denses = {(m["seed"], m["fold"]): m["dense"] for m in measured}
    lines.append(_row("dense network (the teacher)", "", [(seed, 1.0, d) for (seed, _), d in denses.items()]))
    for name, setting in table.settings.items():
        runs = groups.get(name, [])
        if not runs:
            continue
        label = f"{name}: {setting.text}"
        if all(m["static"] for m in runs):
            lines.append(_row(f"{label}; gates not yet trained" if runs[0]["gated"] else label, "",
                              [(m["seed"], share_of_original(m, 1.0), m["static"]) for m in runs]))
        for budget in _budgets(runs):
            lines.append(_row(label, f"{budget:g}", _at(runs, budget)))
    missing = [f"`{name}`" for name in table.settings if name not in groups]
    if missing:
        lines += ["", f"Not run: {', '.join(missing)}."]
    return lines


Scored = tuple[int, float, Figures]  # seed, share of the original MACs, score


def _at(runs: Sequence[Figures], budget: float) -> list[Scored]:
    return [(m["seed"], share_of_original(m, g["share"]), g) for m in runs for g in m["gated"]
            if g["budget"] == budget]


def _row(label: str, budget: str, scored: Sequence[Scored]) -> str:
    share, clips, windows, of = _summed(scored)
    several = len(clips) > 1
    low_high = f" ({min(clips)}-{max(clips)})" if several else ""
    spread = f" ({min(windows):.1f}-{max(windows):.1f})" if several else ""
    return (f"| {label} | {len(scored)} | {budget} | {share:.3f} | {np.mean(clips):.1f} of {of}{low_high} | "
            f"{np.mean(windows):.1f} %{spread} |")


def _summed(scored: Sequence[Scored]) -> tuple[float, list[int], list[float], int]:
    """Mean share; per seed the right clips and the percentage of right windows over all its folds; clips of a seed."""
    seeds = sorted({seed for seed, _, _ in scored})
    of_seeds = [[score for seed, _, score in scored if seed == one] for one in seeds]
    clips = [sum(score["right_clips"] for score in scores) for scores in of_seeds]
    windows = [100.0 * sum(score["right_windows"] for score in scores) / sum(score["windows"] for score in scores)
               for scores in of_seeds]
    return (float(np.mean([share for _, share, _ in scored])), clips, windows,
            max(sum(score["clips"] for score in scores) for scores in of_seeds))


def _by_fold(measured: Sequence[Figures]) -> list[str]:
    """Each setting's folds beside their dense networks, and an interval of the difference over the folds."""
    lines = []
    for name, runs in by_setting(measured).items():
        folds = [m for m in runs if m["fold"] and m["gated"]]
        if len(folds) < 2:
            continue
        budgets = _budgets(folds)
        lines += ["", f"`{name}`: right clips and windows of each fold, dense and by budget, and the difference to "
                  "dense in points of windows, a mean over the folds with its 95 % interval (bootstrap over them).",
                  "",
                  "| fold | dense | " + " | ".join(f"{b:g}" for b in budgets) + " |",
                  "| --- |" + " --- |" * (1 + len(budgets))]
        for m in folds:
            gated = {g["budget"]: g for g in m["gated"]}
            cells = [f"{score['right_clips']}, {score['right_windows']} of {score['clips']}, {score['windows']}"
                     for score in (m["dense"], *(gated[b] for b in budgets))]
            lines.append(f"| {m['fold']}, seed {m['seed']} | " + " | ".join(cells) + " |")
        cells = []
        for budget in budgets:
            found = mean_interval([_percent(g) - _percent(m["dense"]) for m in folds for g in m["gated"]
                                   if g["budget"] == budget])
            ends = f" ({found.low:+.1f} to {found.high:+.1f})" if found.finite else ""
            cells.append(f"{found.estimate:+.1f}{ends}")
        lines.append("| difference, points |  | " + " | ".join(cells) + " |")
    return lines and ["", "## Fold by fold", *lines]


def _percent(score: Figures) -> float:
    return 100.0 * float(score["right_windows"]) / float(score["windows"])


def _side_by_side(measured: Sequence[Figures]) -> list[str]:
    """With and without one thing, at the same budget, seeds and folds."""
    found = []
    groups = by_setting(measured)
    for what, with_it, without in COMPARISONS:
        runs = [{(m["seed"], m["fold"]): m for m in groups.get(name, [])} for name in (with_it, without)]
        shared = sorted(set(runs[0]) & set(runs[1]), key=str)
        budgets = [_budgets([side[key] for key in shared]) for side in runs]
        for budget in [b for b in budgets[0] if b in budgets[1]]:
            sides = [_summed(_at([side[key] for key in shared], budget)) for side in runs]
            (share, clips, windows, of), (other_share, other_clips, other_windows, _) = sides
            found.append(f"| {what}: `{with_it}`, `{without}` | {len(shared)} | {budget:g} | "
                         f"{share:.3f}, {other_share:.3f} | {np.mean(clips):.1f}, {np.mean(other_clips):.1f} of {of} | "
                         f"{np.mean(windows):.1f} %, {np.mean(other_windows):.1f} % | "
                         f"{np.mean(windows) - np.mean(other_windows):+.1f} |")
    return found and [
        "", "## With and without", "", "The same seeds and folds on both sides. One window of 150 is 0.7 points.", "",
        "| what: with, without | runs | budget | MACs | clips right | windows right | windows, points |",
        "| --- | --- | --- | --- | --- | --- | --- |", *found]


def _against_static(measured: Sequence[Figures]) -> list[str]:
    """What gates reach with no more MACs than each network whose channels alone were pruned."""
    groups = {name: {(m["seed"], m["fold"]): m for m in runs} for name, runs in by_setting(measured).items()}
    static = {name: runs for name, runs in groups.items() if all(m["static"] and not m["gated"] for m in runs.values())}
    lines = []
    for name, runs in static.items():
        alone = _summed([(m["seed"], share_of_original(m, 1.0), m["static"]) for m in runs.values()])
        gated = {other: [found[key] for key in runs] for other, found in groups.items()
                 if other not in static and set(runs) <= set(found)}
        cheaper = [(f"`{other}` at budget {budget:g}", found) for other, of_runs in gated.items()
                   for budget in _budgets(of_runs) for found in [_summed(_at(of_runs, budget))] if found[0] <= alone[0]]
        best = max(cheaper, key=lambda item: (np.mean(item[1][2]), -item[1][0]), default=None)
        cells = "none |  |  | " if best is None else f"{best[0]} | {_cells(best[1])}"
        lines.append(f"| `{name}` ({len(runs)}) | {_cells(alone)} | {cells} |")
    return lines and [
        "", "## Static pruning and gates at equal MACs", "",
        "Each network whose channels alone were pruned (runs in brackets), beside the best point with gates, by "
        "windows, that spends no more MACs with the same seeds.", "",
        "| static | MACs | clips | windows | gates | MACs | clips | windows |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |", *lines]


def _cells(summed: tuple[float, list[int], list[float], int]) -> str:
    share, clips, windows, of = summed
    return f"{share:.3f} | {np.mean(clips):.1f} of {of} | {np.mean(windows):.1f} %"


def _obedience(measured: Sequence[Figures]) -> list[str]:
    budgets = _budgets(measured)
    lines = ["", "## Budget asked and reached", "",
             "Share of the network's own MACs (of the pruned one where channels were pruned first), all test windows.",
             "", "| run | " + " | ".join(f"{b:g}" for b in budgets) + " | farthest from what was asked |",
             "| --- |" + " --- |" * (len(budgets) + 1)]
    for m in measured:
        if m["gated"]:
            shares = {g["budget"]: g["share"] for g in m["gated"]}
            off = max((share - b for b, share in shares.items() if b < 1.0), key=abs)
            cells = " | ".join(f"{shares[b]:.2f}" if b in shares else "" for b in budgets)
            lines.append(f"| {m['run']} | {cells} | {off:+.3f} |")
    for name, runs in by_setting(measured).items():
        if len(runs) > 1 and runs[0]["gated"]:
            means = {b: float(np.mean([g["share"] for m in runs for g in m["gated"] if g["budget"] == b]))
                     for b in _budgets(runs)}
            off = max((share - b for b, share in means.items() if b < 1.0), key=abs)
            cells = " | ".join(f"{means[b]:.2f}" if b in means else "" for b in budgets)
            lines.append(f"| mean of {len(runs)}: {name} | {cells} | {off:+.3f} |")
    return lines if budgets else []


def _budgets(runs: Sequence[Figures]) -> list[float]:
    return sorted({g["budget"] for m in runs for g in m["gated"]}, reverse=True)


def _spread(measured: Sequence[Figures]) -> list[str]:
    lines = ["", "## Hoyer's measure of the magnitudes", "",
             "Means over gates and training clips, gates open but for the last phase.", "",
             "| run | kind | dense | static | AVA | AAP |", "| --- | --- | --- | --- | --- | --- |"]
    for m in measured:
        for kind in ("frames", "features"):
            cells = [f"{m['spread'][stage][kind]['hoyer']:.3f}" if stage in m["spread"] else ""
                     for stage in ("dense", "static", "ava", "aap")]
            lines.append(f"| {m['run']} | {kind} | " + " | ".join(cells) + " |")
    return lines


def _adaptivity(measured: Sequence[Figures], difficulty: dict[str, float]) -> list[str]:
    runs = [m for m in measured if m["gated"] and "per_clip" in m["gated"][0]]
    if not runs:
        return []
    lines = ["", "## Work follows the clip", "",
             "Share of the network's own MACs over the test clips at budget 0.5"
             + ("; rank correlation (Spearman) with the clip's difficulty." if difficulty else "."), "",
             "| run | lowest | mean | highest |" + (" rank correlation |" if difficulty else ""),
             "| --- | --- | --- | --- |" + (" --- |" if difficulty else "")]
    for m in runs:
        clips = next(g for g in m["gated"] if g["budget"] == 0.5)["per_clip"]
        shares = [c[4] for c in clips]
        row = f"| {m['run']} | {min(shares):.2f} | {np.mean(shares):.2f} | {max(shares):.2f} |"
        lines.append(row + (f" {rank_correlation(shares, [difficulty[c[0]] for c in clips]):+.2f} |" if difficulty
                            else ""))
    return [*lines, "", *_per_class(runs)]


def _per_class(runs: Sequence[Figures]) -> list[str]:
    run = runs[0]
    clips = next(g for g in run["gated"] if g["budget"] == 0.5)["per_clip"]
    labels = sorted({c[1] for c in clips})
    shares = [np.mean([c[4] for c in clips if c[1] == label]) for label in labels]
    cells = ", ".join(f"{run['labels'][label]} {share:.2f}" for label, share in zip(labels, shares))
    return [f"Mean share per class at budget 0.5 (`{run['run']}`): {cells}."]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; ties share their mean rank; 0 where one side is constant."""
    ranks = [_ranks(np.asarray(v, dtype=np.float64)) for v in (a, b)]
    if any(np.ptp(r) == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def _plot(table: Table, measured: Sequence[Figures], path: Path) -> None:
    denses = list({(m["seed"], m["fold"]): m["dense"] for m in measured}.values())
    lines = {}
    for name, runs in by_setting(measured).items():
        groups = [[(m, g) for m in runs for g in m["gated"] if g["budget"] == b] for b in _budgets(runs)]
        if not groups:
            groups = [[(m, m["static"] or m["dense"]) for m in runs]]  # without gates: a point
        lines[f"{name} ({len(runs)})"] = [
            (float(np.mean([share_of_original(m, g["share"]) for m, g in group])), *_right([g for _, g in group]))
            for group in groups]
    draw_accuracy(table.title, _right(denses), lines, path)


def _right(scores: Sequence[Figures]) -> tuple[float, float]:
    """Right clips and windows in percent, means over the scores."""
    clips, windows = (float(np.mean([100.0 * score[f"right_{of}"] / score[of] for score in scores]))
                      for of in ("clips", "windows"))
    return clips, windows


def draw_accuracy(title: str, dense: tuple[float, float] | None,
                  lines: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Draw right clips and windows over MACs. dense: percent of both; lines: by label, share of the original MACs and
    percent of both at each of its points."""
    figure = new_figure(12.5, 4.4, "the report")
    axes = figure.subplots(1, 2, sharex=True)
    for number, (axis, of) in enumerate(zip(axes, ("clips", "windows"))):
        if dense is not None:
            axis.axhline(dense[number], color="black", linewidth=0.8, linestyle="--", label="dense")
        for i, (label, points) in enumerate(lines.items()):  # there are ten colours
            axis.plot([point[0] for point in points], [point[1 + number] for point in points], color=f"C{i % 10}",
                      marker="os^v"[i // 10 % 4], markersize=4, label=label)
        axis.set_xscale("log")
        axis.set_xticks([0.05, 0.1, 0.2, 0.3, 0.5, 1.0], ["0.05", "0.1", "0.2", "0.3", "0.5", "1"])
        axis.minorticks_off()
        axis.set_xlabel("share of the original dense MACs (counted)")
        axis.set_ylabel(f"{of} right, %")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.suptitle(title)
    save_figure(figure, path)
