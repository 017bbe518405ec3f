"""A run of dance-run as an HTML page: what was predicted, what each gate kept, MACs, latency, joules."""
import math
from typing import NamedTuple

from dance_deploy import sources
from dance_deploy.quantities import count_text, joules
from dance_deploy.report.page import bar, card, page, table, tag, together, warnings
from dance_deploy.report.plot import Plot, scale

# of a plot's width, that a letter of a label takes on a narrow screen
_LABEL_SHARE = 0.024
_KINDS = ("frames", "channels", "features")
_COUNTED = "MACs and memory accesses are counted from the masks; latency and energy are measured."


class RunFacts(NamedTuple):
    """bundle: its folder; model: name; classes: number; trained; backend: name and description; mode: "dense" or the
    budget, in words; power: how energy was measured, None where it was not."""

    bundle: str
    model: str
    classes: int
    trained: bool
    backend: str
    mode: str
    power: str


def run_page(facts, log):
    """The page as text. facts: RunFacts; log: RunLog."""
    faults = [] if facts.trained else ["The bundle holds random weights: its labels mean nothing."]
    faults += ["{}: {}".format(name, line) for name, line in log.failed]
    content = [
        tag("h1", "{} on {}".format(facts.model, "1 input" if len(log.videos) == 1 else "{} inputs".format(
            len(log.videos)))),
        tag("p", "{} classes · {} · {}".format(facts.classes, facts.backend, facts.mode), class_="faint"),
        tag("p", "bundle ", tag("code", sources.printable(facts.bundle)),
            " · energy from {}".format(facts.power) if facts.power else "", class_="faint"),
        warnings([sources.printable(line) for line in faults])]
    if len(log.videos) > 1:
        content.append(_overview(log.videos))
    content += [_video(number, video) for number, video in enumerate(log.videos, 1)]
    return page("{}: {}".format(facts.model, ", ".join(sources.printable(v.name) for v in log.videos[:3])), content,
                tag("p", _COUNTED, class_="faint"))


def _overview(videos):
    rows = []
    for number, video in enumerate(videos, 1):
        windows = _sum(video, "windows")
        rows.append([tag("a", sources.printable(video.name), href="#v{}".format(number)), windows,
                     _best(video.best[0]), _percent(_sum(video, "macs") / (windows * video.macs_dense)),
                     "{:.1f} ms".format(_latency_ms(video)), _window_joules(video)])
    return together([tag("h2", "Inputs"), table(
        ["input", "windows", "prediction", "MACs of dense", "latency a window", "energy a window"], rows)])


def _video(number, video):
    windows = _sum(video, "windows")
    merged = video.columns[0].windows
    note = "each column stands for {} windows".format(merged) if merged > 1 else "each column is a window"
    return tag("section", [
        tag("h2", sources.printable(video.name), id="v{}".format(number)),
        tag("p", "{} window{}, {:.2f} to {:.2f} s; {}".format(
            windows, "" if windows == 1 else "s", video.columns[0].start_s, video.columns[-1].end_s, note),
            class_="faint"),
        _cards(video, windows), _plots(video), _kept(video), _windows_table(video),
    ], aria_labelledby="v{}".format(number))


def _cards(video, windows):
    macs = _sum(video, "macs") / windows
    found = [
        card("prediction, mean over the windows", video.best[0]["label"], ", ".join(
            [_percent(video.best[0]["score"])] + [_best(entry) for entry in video.best[1:3]]), "run"),
        card("MACs of dense, counted", _percent(macs / video.macs_dense), "{} of {} · memory accesses {}".format(
            count_text(macs).strip(), count_text(video.macs_dense).strip(),
            _percent(_sum(video, "bytes") / windows / video.bytes_dense)), "good"),
        card("latency a window", "{:.1f} ms".format(_latency_ms(video)), "controller {:.1f} ms, body {:.1f} ms".format(
            _sum(video, "controller_ms") / windows, _sum(video, "body_ms") / windows), "idle")]
    if video.energy is not None:
        above = video.energy.above_idle_j
        found.append(card("energy a window", _window_joules(video), video.note or "{}; {} above idle{}".format(
            _ends(video.energy.energy_j), joules(above.estimate if math.isfinite(above.estimate) else None),
            ", " + _ends(above) if above.finite else ""), "b"))
    return tag("div", found, class_="cards four")


def _plots(video):
    shares = [100.0 * c.macs / (c.windows * video.macs_dense) for c in video.columns]
    latencies = [(c.controller_ms + c.body_ms) / c.windows for c in video.columns]
    energies = [None if c.energy_j is None else c.energy_j / c.windows for c in video.columns]
    scores = [100.0 * c.score / c.windows for c in video.columns]
    panels = [_steps(video, "Best label and its score", "%", scores, "good", 100.0, [c.label for c in video.columns]),
              _steps(video, "MACs of a window, counted", "% of dense", shares, "run", 100.0),
              _steps(video, "Latency of a window", "milliseconds", latencies, "idle")]
    if any(value is not None for value in energies):
        panels.append(_steps(video, "Energy of a window", "joules", energies, "b"))
    return tag("div", panels, class_="panels")


def _steps(video, name, unit, values, tone, at_least=0.0, labels=()):
    """Bars from 0, one a column, over the video's time; None is left out. labels: a text a column, written once where
    it stays the same for long enough."""
    known = [value for value in values if value is not None]
    edges = _edges(video.columns)
    plot = Plot(scale(edges[0], edges[-1], 6, tight=True), scale(0.0, max(known + [at_least, 1e-9]), 4), 150)
    for column, left, right, value in zip(video.columns, edges[:-1], edges[1:], values):
        if value is not None:
            title = "{:.2f} to {:.2f} s: {:.3g} {}".format(column.start_s, column.end_s, value, unit)
            plot.strip(left, right, "window " + tone, title, value, 0.0)
            plot.curve([(left, value), (right, value)], "level " + tone)
    for label, left, right in _stretches(labels, edges):
        if (right - left) / (edges[-1] - edges[0]) >= min(1.0, _LABEL_SHARE * len(label)):
            plot.label(0.5 * (left + right), sources.printable(label), tone + " low")
    says = "{}: {:.3g} to {:.3g} {}, mean {:.3g}".format(name, min(known), max(known), unit, sum(known) / len(known))
    return tag("figure", tag("figcaption", name), plot.html(says, unit, "seconds"))


def _stretches(labels, edges):
    """[(label, left, right)] of neighbours that are alike."""
    found = []
    for label, left, right in zip(labels, edges[:-1], edges[1:]):
        if found and found[-1][0] == label:
            found[-1] = (label, found[-1][1], right)
        else:
            found.append((label, left, right))
    return found


def _edges(columns):
    """Where the columns' bars begin, and the last one ends; windows may overlap, bars must not."""
    starts = [column.start_s for column in columns]
    last = columns[-1].end_s
    if len(starts) > 1 and columns[-2].end_s > starts[-1]:
        last = starts[-1] + (starts[-1] - starts[-2])
    return starts + [max(last, starts[-1] + 1e-6)]


def _kept(video):
    """For each kind a small map: a row a gate, a cell a column; the darker, the more is kept."""
    if all(kept == total for column in video.columns for kept, total in zip(column.kept, _times(video, column))):
        return None
    panels = []
    for kind, name in enumerate(_KINDS):
        rows = []
        for layer, label in enumerate(video.layers):
            shares = [c.kept[layer][kind] / (c.windows * video.totals[layer][kind]) for c in video.columns]
            mean = sum(c.kept[layer][kind] for c in video.columns) / (
                _sum(video, "windows") * video.totals[layer][kind])
            cells = [tag("i", style="--kept:{:.2f}".format(share)) for share in shares]
            rows.append(tag("span", "{} {}".format(_percent(mean), sources.printable(label)), class_="layer",
                            title=sources.printable(label)))
            rows.append(tag("span", cells, class_="cells", role="img", aria_label="{}: {} of the {} kept".format(
                label, _percent(mean), name)))
        panels.append(tag("figure", tag("figcaption", name + " kept, by gate"), tag("div", rows, class_="heat")))
    return together([tag("h3", "What the gates kept"), tag(
        "p", "A row is a gate with its mean, a column is time; the stronger the colour, the more was kept.",
        class_="faint"), tag("div", panels, class_="panels"), _kept_table(video)])


def _kept_table(video):
    windows, rows = _sum(video, "windows"), []
    for layer, label in enumerate(video.layers):
        cells = []
        for kind in range(len(_KINDS)):
            share = sum(c.kept[layer][kind] for c in video.columns) / (windows * video.totals[layer][kind])
            cells.append(tag("td", _percent(share), tag("span", bar(share, "run"), class_="track")))
        rows.append([sources.printable(label)] + cells)
    return tag("details", tag("summary", "Means by gate"), table(["gate"] + list(_KINDS), rows, "Share kept"))


def _windows_table(video):
    rows = []
    for column in video.columns:
        rows.append([
            "{:.2f} to {:.2f} s".format(column.start_s, column.end_s), sources.printable(column.label),
            _percent(column.score / column.windows), _percent(column.macs / (column.windows * video.macs_dense)),
            "{:.1f} ms".format((column.controller_ms + column.body_ms) / column.windows),
            joules(None if column.energy_j is None else column.energy_j / column.windows)])
    merged = video.columns[0].windows > 1
    return tag("details", tag("summary", "Windows: {}".format(_sum(video, "windows"))), table(
        ["time", "best label", "score", "MACs of dense", "latency", "energy"], rows,
        "Means over {} windows a row; --json has each window".format(video.columns[0].windows) if merged else None))


def _times(video, column):
    return [tuple(column.windows * total for total in totals) for totals in video.totals]


def _sum(video, name):
    return sum(getattr(column, name) for column in video.columns)


def _latency_ms(video):
    return (_sum(video, "controller_ms") + _sum(video, "body_ms")) / _sum(video, "windows")


def _window_joules(video):
    if video.energy is None or not math.isfinite(video.energy.energy_j.estimate):
        return "unknown"
    return joules(video.energy.energy_j.estimate)


def _ends(interval):
    return "95 % {} to {}".format(joules(interval.low), joules(interval.high)) if interval.finite else "no interval"


def _best(entry):
    return "{} {}".format(sources.printable(entry["label"]), _percent(entry["score"]))


def _percent(share):
    return "{:.0f} %".format(100.0 * share)
