"""What dance-power and dance-run show of energy: plain text, units with every figure."""
from dance_deploy import sources
from dance_deploy.power.intervals import INCONCLUSIVE, LESS, MORE

_NAMES = {"run": "command", "a": "A", "b": "B"}


def joules(value):
    """1.234 -> "1.23 J", None -> "unknown"."""
    return "unknown" if value is None else _three(value) + " J"


def watts(milliwatts):
    return "unknown" if milliwatts is None else _three(1e-3 * milliwatts) + " W"


def interval(entry, unit_text):
    """An interval dict in words; unit_text: joules, watts, ..."""
    if entry["estimate"] is None:
        return "unknown"
    if entry["low"] is None or entry["high"] is None:
        return "{} (no interval: too few values)".format(unit_text(entry["estimate"]))
    return "{} (95 % {} to {})".format(*[unit_text(entry[key]) for key in ("estimate", "low", "high")])


def source_line(source):
    """source: SourceFacts."""
    total = " + ".join(source.total_rails) or "unknown"
    return "source {}{}, total {}{}".format(source.name, " (an estimate)" if source.estimate else "", total,
                                            ", scope: " + source.scope if source.scope else "")


def report_lines(name, recording, summary):
    """The lines of one recording."""
    sampling, idle = summary["sampling"], summary["idle"]
    yield "{}: {}, {}".format(name, recording.started_at, source_line(recording.source))
    yield "  {} samples, {}".format(sampling["samples"], period_text(sampling))
    if idle:
        yield "  idle     {} over {:.1f} s".format(interval(idle["average_mw"], watts), idle["seconds"])
    else:
        yield "  idle     not measured: energy above idle is unknown"
    for label, entry in summary["commands"].items():
        for line in _command_lines(_NAMES[label], entry):
            yield line
    if "comparison" in summary:
        for line in comparison_lines(summary["comparison"]):
            yield line
    for line in summary["warnings"]:
        yield "  warning: " + sources.printable(line)


def period_text(sampling):
    """How fast samples came. sampling: the summary's."""
    if sampling["period_median_s"] is None:
        return "too few to tell their period"
    return "one every {:.4g} s (95 % within {:.4g} s, longest {:.4g} s)".format(
        *[sampling[key] for key in ("period_median_s", "period_p95_s", "period_most_s")])


def comparison_lines(entry):
    """The lines of a comparison: what it says of B, with the ratio and its interval."""
    margin = "{:g} %".format(100.0 * entry["margin"])
    words = {LESS: "B takes LESS energy than A", MORE: "B takes MORE energy than A",
             INCONCLUSIVE: "INCONCLUSIVE: the data cannot tell; more pairs (--most), longer runs, steadier clocks"}
    yield "  {}".format(words.get(entry["verdict"], "NO DIFFERENCE larger than " + margin))
    yield "  B / A    {} from {} pair{}".format(interval(entry["ratio"], _ratio), entry["pairs"],
                                                "" if entry["pairs"] == 1 else "s")
    yield "  above idle {}".format(interval(entry["above_idle_ratio"], _ratio))


def _command_lines(name, entry):
    yield "  {:<8} {}".format(name, sources.printable(" ".join(entry["argv"])))
    yield "    runs     {}, measured whole {}; {} each".format(
        entry["runs"], entry["runs_measured"], interval(entry["duration_s"], _seconds))
    yield "    energy   {} a run".format(interval(entry["energy_j"], joules))
    yield "    above idle {} a run".format(interval(entry["above_idle_j"], joules))
    yield "    power    {} on average, peak {}".format(watts(entry["average_mw"]), watts(entry["peak_mw"]))
    width = max([len(label) for label in entry["rails"]] + [4])
    yield "    {:<{w}}  {:>10} {:>12} {:>10} {:>10}".format("rail", "energy", "above idle", "average", "peak", w=width)
    for label, rail in entry["rails"].items():
        yield "    {:<{w}}  {:>10} {:>12} {:>10} {:>10}".format(
            sources.printable(label), joules(rail["energy_j"]), joules(rail["above_idle_j"]),
            watts(rail["average_mw"]), watts(rail["peak_mw"]), w=width)


def offer_lines(offer):
    """The lines of dance-power sources. offer: an Offer."""
    if offer.reason is not None:
        reason = sources.printable(offer.reason)
        reason = reason[len(offer.name) + 2:] if reason.startswith(offer.name + ": ") else reason
        yield "{:<11} no   {}".format(offer.name, reason)
        return
    yield "{:<11} yes  {}; total: {}{}".format(offer.name, ", ".join(
        "{} {}".format(sources.printable(label), watts((offer.rails_mw or {}).get(label))) for label in offer.rails),
        " + ".join(offer.total_rails) or "unknown, name it with --total",
        " (an estimate)" if offer.estimate else "")
    if offer.scope:
        yield " " * 17 + "scope: " + offer.scope
    for line in offer.warnings:
        yield " " * 17 + "warning: " + sources.printable(line)


def _three(value):
    if abs(value) < 1e-6:  # below what any sensor here tells: rounding
        return "0"
    return ("{:.3g}" if abs(value) < 1 else "{:.2f}" if abs(value) < 100 else "{:.1f}").format(value)


def _ratio(value):
    return "{:.3f}".format(value)


def _seconds(value):
    return "{:.3f} s".format(value)
