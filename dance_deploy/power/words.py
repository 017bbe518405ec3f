"""What a recording and its summary say in words; the terminal and the HTML page say the same."""
from dance_deploy.power.intervals import INCONCLUSIVE, LESS, MORE

COMMAND_NAMES = {"run": "command", "a": "A", "b": "B"}


def source_text(source):
    """source: SourceFacts."""
    total = " + ".join(source.total_rails) or "unknown"
    return "source {}{}, total {}{}".format(source.name, " (an estimate)" if source.estimate else "", total,
                                            ", scope: " + source.scope if source.scope else "")


def period_text(sampling):
    """How fast samples came. sampling: the summary's."""
    if sampling["period_median_s"] is None:
        return "too few to tell their period"
    return "one every {:.4g} s (95 % within {:.4g} s, longest {:.4g} s)".format(
        *[sampling[key] for key in ("period_median_s", "period_p95_s", "period_most_s")])


def verdict_text(comparison):
    """What the summary's comparison says of B."""
    words = {LESS: "B takes LESS energy than A", MORE: "B takes MORE energy than A",
             INCONCLUSIVE: "INCONCLUSIVE: the data cannot tell; more pairs (--most), longer runs, steadier clocks"}
    return words.get(comparison["verdict"], "NO DIFFERENCE larger than {:g} %".format(100.0 * comparison["margin"]))
