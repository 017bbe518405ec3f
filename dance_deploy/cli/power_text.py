"""What dance-power and dance-run show of energy: plain text, units with every figure."""
from dance_deploy import sources
from dance_deploy.power.words import COMMAND_NAMES, period_text, source_text, verdict_text
from dance_deploy.quantities import interval_text, joules, watts


def report_lines(name, recording, summary):
    """The lines of one recording."""
    sampling, idle = summary["sampling"], summary["idle"]
    yield "{}: {}, {}".format(name, recording.started_at, source_text(recording.source))
    yield "  {} samples, {}".format(sampling["samples"], period_text(sampling))
    if idle:
        yield "  idle     {} over {:.1f} s".format(interval_text(idle["average_mw"], watts), idle["seconds"])
    else:
        yield "  idle     not measured: energy above idle is unknown"
    for label, entry in summary["commands"].items():
        for line in _command_lines(COMMAND_NAMES[label], entry):
            yield line
    if "comparison" in summary:
        for line in comparison_lines(summary["comparison"]):
            yield line
    for line in summary["warnings"]:
        yield "  warning: " + sources.printable(line)


def comparison_lines(entry):
    """The lines of a comparison: what it says of B, with the ratio and its interval."""
    yield "  " + verdict_text(entry)
    yield "  B / A    {} from {} pair{}".format(interval_text(entry["ratio"], _ratio), entry["pairs"],
                                                "" if entry["pairs"] == 1 else "s")
    yield "  above idle {}".format(interval_text(entry["above_idle_ratio"], _ratio))


def _command_lines(name, entry):
    yield "  {:<8} {}".format(name, sources.printable(" ".join(entry["argv"])))
    yield "    runs     {}, measured whole {}; {} each".format(
        entry["runs"], entry["runs_measured"], interval_text(entry["duration_s"], _seconds))
    yield "    energy   {} a run".format(interval_text(entry["energy_j"], joules))
    yield "    above idle {} a run".format(interval_text(entry["above_idle_j"], joules))
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


def _ratio(value):
    return "{:.3f}".format(value)


def _seconds(value):
    return "{:.3f} s".format(value)
