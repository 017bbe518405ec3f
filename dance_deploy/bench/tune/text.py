"""The table of `dance-bench tune` for people."""

from __future__ import annotations

from dance_deploy.bench.keep_cases import DENSE, KINDS
from dance_deploy.bench.tune.cases import FITTED, OTHER_LAYERS, OTHER_MASKS
from dance_deploy.bench.tune.command import Judged, Outcome, mean_regrets

_COLUMNS = (DENSE.kind, *KINDS)
_WIDTH = 12


def text_from_outcome(outcome: Outcome, threads: int, machine: str) -> str:
    """Regrets layer by layer and kind by kind of masks, then over all; before > after where they differ."""
    target = outcome.target
    lines = [f"costs of the CPU kernels' choice: {target.kernels}, {target.precision}, {threads} "
             f"thread{'s' if threads > 1 else ''}; {machine}",
             "time of the variant that is chosen over the fastest one's (1.00: chosen right), built-in > tuned costs;",
             "geometric means, * layers that nothing was fitted to", "",
             f"{'':24}" + "".join(f"{kind:<{_WIDTH}}" for kind in _COLUMNS)]
    for layer in dict.fromkeys(case.timed.case.layer for case in outcome.cases):
        of_layer = [case for case in outcome.cases if case.timed.case.layer == layer]
        cells = [_cell([c for c in of_layer if c.timed.case.keep.kind == kind]) for kind in _COLUMNS]
        lines.append((f"{layer.label + ('' if layer.fitted else ' *'):24}"
                      + "".join(f"{cell:<{_WIDTH}}" for cell in cells)).rstrip())
    lines += ["", f"{'':24}{'mean':<18}{'worst':<18}{'cases':<8}chosen otherwise"]
    for name, part in (("fitted to", FITTED), ("other masks", OTHER_MASKS), ("other layers *", OTHER_LAYERS)):
        lines.append(_summary(name, [case for case in outcome.cases if case.timed.case.part == part]))
    lines.append(_summary("all not fitted to", [c for c in outcome.cases if c.timed.case.part != FITTED]))
    return "\n".join(lines)


def _cell(cases: list[Judged]) -> str:
    if not cases:
        return ""
    mean = mean_regrets(cases)
    before, after = f"{mean['built_in']:.2f}", f"{mean['tuned']:.2f}"
    return before if before == after else f"{before}>{after}"


def _summary(name: str, cases: list[Judged]) -> str:
    mean = mean_regrets(cases)
    worst = max(c.built_in_regret for c in cases), max(c.tuned_regret for c in cases)
    changed = sum(c.built_in != c.tuned for c in cases)
    return (f"{name:24}{'{:.3f} > {:.3f}'.format(mean['built_in'], mean['tuned']):<18}"
            f"{'{:.2f} > {:.2f}'.format(*worst):<18}{len(cases):<8}{changed}")
