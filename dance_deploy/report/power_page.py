"""Recordings of dance-power as an HTML page: power over time, joules of each run, two commands compared, the tables."""
from dance_deploy import sources
from dance_deploy.power.intervals import INCONCLUSIVE, LESS, MORE
from dance_deploy.power.recording import A, B, IDLE, RUN
from dance_deploy.power.summary import summarize, window_records
from dance_deploy.power.words import COMMAND_NAMES, period_text, source_text, verdict_text
from dance_deploy.quantities import interval_text, joules, watts
from dance_deploy.report import power_plots, power_tables
from dance_deploy.report.page import card, legend, page, tag, together
from dance_deploy.report.page import warnings as warning_box

_TONES = {LESS: "good", MORE: "bad", INCONCLUSIVE: "doubt"}
_BETTER, _WORSE = "less", "more"


def power_page(named, margin=0.02):
    """The page as text. named: [(name, Recording)]; margin: as for summarize()."""
    content = [tag("h1", "Energy report")]
    if len(named) > 1:
        content.append(tag("ul", [tag("li", tag("a", sources.printable(name), href="#r{}".format(number)), " ",
                                      _short(recording)) for number, (name, recording) in enumerate(named, 1)]))
    content += [_section(number, name, recording, margin) for number, (name, recording) in enumerate(named, 1)]
    title = named[0][0] if len(named) == 1 else "{} recordings".format(len(named))
    return page("Energy: " + sources.printable(title), content)


def _section(number, name, recording, margin):
    summary, windows = summarize(recording, margin), window_records(recording)
    source, sampling = recording.source, summary["sampling"]
    return tag("section", [
        tag("h2", sources.printable(name), id="r{}".format(number)),
        tag("p", "{} · {}".format(recording.started_at, source_text(source)), class_="faint"),
        tag("p", "{} samples, {}".format(sampling["samples"], period_text(sampling)), class_="faint"),
        _commands(recording),
        _verdict(summary),
        _cards(summary),
        warning_box([sources.printable(line) for line in summary["warnings"]]),
        tag("h3", "Power over time"),
        _window_legend(recording),
        power_plots.over_time(recording, windows),
        _rails_over_time(recording, windows),
        _runs(recording, windows, summary),
        tag("h3", "Energy of a run, by rail"),
        power_tables.rails(recording, summary),
        tag("h3", "Environment"),
        power_tables.environment_table(recording),
        tag("h3", "The data behind it"),
        power_tables.windows(windows),
        power_tables.samples(recording),
    ], aria_labelledby="r{}".format(number))


def _short(recording):
    return tag("span", "{}, source {}".format(recording.started_at, recording.source.name), class_="faint")


def _commands(recording):
    return [tag("p", tag("strong", COMMAND_NAMES[label] + " "), tag("code", sources.printable(" ".join(argv))))
            for label, argv in sorted(recording.commands.items())]


def _verdict(summary):
    comparison = summary.get("comparison")
    if comparison is None:
        return None
    ratio = comparison["ratio"]
    return [
        tag("div", tag("strong", verdict_text(comparison)),
            tag("p", "B / A = {} from {} pairs of runs".format(interval_text(ratio, "{:.3f}".format),
                                                               comparison["pairs"])),
            tag("p", _in_words(ratio), class_="faint") if ratio["low"] is not None and ratio["high"] is not None
            else None, class_="verdict " + _TONES.get(comparison["verdict"], "good")),
        power_plots.ratio(comparison)]


def _in_words(ratio):
    """25.0 % less (95 %: 20.0 to 30.0 % less): what a ratio says of B."""
    return "B takes {} energy than A; with 95 % confidence between {} and {}".format(
        _change(ratio["estimate"]), *[_change(ratio[key]) for key in ("low", "high")])


def _change(ratio):
    return "{:.1f} % {}".format(100.0 * abs(ratio - 1.0), _BETTER if ratio < 1.0 else _WORSE)


def _cards(summary):
    found = []
    for label, entry in summary["commands"].items():
        name = COMMAND_NAMES[label]
        energy = entry["energy_j"]
        found.append(card("{}: energy of a run".format(name), joules(energy["estimate"]), together([
            _ends(energy, joules), " · {} of {} runs measured whole".format(entry["runs_measured"], entry["runs"])]),
            label))
        above = entry["above_idle_j"]
        found.append(card("{}: above idle".format(name), joules(above["estimate"]), _ends(above, joules), label))
        found.append(card("{}: average power".format(name), watts(entry["average_mw"]), "peak {} · {} a run".format(
            watts(entry["peak_mw"]), _seconds(entry["duration_s"]["estimate"])), label))
    idle = summary["idle"]
    if idle is None:
        found.append(card("idle", "not measured", "energy above idle is unknown", "idle"))
    else:
        found.append(card("idle", watts(idle["average_mw"]["estimate"]), "{} over {:.1f} s".format(
            _ends(idle["average_mw"], watts), idle["seconds"]), "idle"))
    return tag("div", found, class_="cards")


def _ends(interval, unit_text):
    if interval["estimate"] is None:
        return "the data cannot tell"
    if interval["low"] is None or interval["high"] is None:
        return "no interval"
    return "95 % {} to {}".format(unit_text(interval["low"]), unit_text(interval["high"]))


def _seconds(value):
    return "unknown" if value is None else "{:.3g} s".format(value)


def _window_legend(recording):
    there = [label for label in (IDLE, RUN, A, B) if any(window.label == label for window in recording.windows)]
    return legend([(label, "idle" if label == IDLE else "{}: {}".format(COMMAND_NAMES[label], sources.printable(
        " ".join(recording.commands.get(label, ()))))) for label in there])


def _rails_over_time(recording, windows):
    plots = power_plots.rails_over_time(recording, windows)
    shown = None if recording.source.total_rails else ""  # closed unless it is all there is
    return None if plots is None else tag("details", tag("summary", "Each rail over time"), plots, open=shown)


def _runs(recording, windows, summary):
    plot = power_plots.runs(windows, summary)
    return None if plot is None else [tag("h3", "Energy of each run"), plot]
