"""The plots of a recording's page. Each returns Markup, or None where there is nothing to draw."""
from dance_deploy import sources
from dance_deploy.power.trace import column
from dance_deploy.power.words import COMMAND_NAMES
from dance_deploy.quantities import joules, watts
from dance_deploy.report.page import legend, tag
from dance_deploy.report.plot import Plot, scale
from dance_deploy.report.power_curve import highest_w, lowest_w, power_curve

_MOST_GAPS = 200
# more windows than that are narrower than a pixel, and runs more than a page should hold
_MOST_WINDOWS = 1000
# of the time axis: a window narrower than that has no room for its letter
_LABEL_SHARE = 0.015


def over_time(recording, windows):
    """The total's power with windows, their means and gaps; without a total the rails stand below."""
    values = column(recording.trace, recording.source.total_rails)
    if values is None:
        return tag("p", "No rail is known to be the total; each rail by itself:", class_="faint")
    curve = power_curve(recording.trace, values)
    figure = _power_plot(recording, windows, curve, 240, lambda window: window["total"])
    drawn = "" if curve.whole else "; the line is the mean of each column, the shade its least and highest sample"
    marked = "Thick lines: mean of each window" if len(windows) <= _MOST_WINDOWS else "Too many windows to mark them"
    return tag("figure", legend([("gap", "not measured")]) if curve.gaps else None, figure, tag(
        "figcaption", "Total: {}. {}{}{}".format(sources.printable(" + ".join(recording.source.total_rails)), marked,
                                                 drawn, _gap_text(curve.gaps))))


def rails_over_time(recording, windows):
    """Every rail on its own axis of time, with one scale of power; None where the total is the only rail."""
    trace = recording.trace
    if not trace.rails or tuple(trace.rails) == tuple(recording.source.total_rails):
        return None
    curves = [power_curve(trace, trace.values[:, i]) for i in range(len(trace.rails))]
    return tag("div", [
        tag("figure", tag("figcaption", sources.printable(label) + _gap_text(curve.gaps)),
            _power_plot(recording, windows, curve, 110, lambda window, label=label: window["rails"].get(label),
                        curves))
        for label, curve in zip(trace.rails, curves)], class_="panels")


def _power_plot(recording, windows, curve, height, energy_of, all_curves=None):
    """all_curves: those that share the scale of power."""
    curves = [curve] if all_curves is None else all_curves
    x, x_name, x_texts = _time_scale(recording, windows)
    y = scale(lowest_w(curves), max(highest_w(curves), 1e-3), 4)
    plot = Plot(x, y, height)
    marked = windows if len(windows) <= _MOST_WINDOWS else []
    for window in marked:
        start_s, end_s = window["start_s"], window["end_s"]
        plot.strip(start_s, end_s, "window " + window["label"], _window_title(window, energy_of(window)))
        if (end_s - start_s) / (x.high - x.low) >= _LABEL_SHARE and all_curves is None:
            plot.label(0.5 * (start_s + end_s), _letter(window["label"]), window["label"])
    for start_s, end_s in sorted(curve.gaps, key=lambda gap: gap[0] - gap[1])[:_MOST_GAPS]:
        plot.strip(start_s, end_s, "missing", "not measured: {:.2f} s from {:.2f} s".format(end_s - start_s, start_s))
    for piece in curve.pieces:
        times = piece.time_s.tolist()
        if not curve.whole:
            plot.area(times, piece.low_w.tolist(), piece.high_w.tolist())
        plot.curve(list(zip(times, piece.mean_w.tolist())))
    for window in marked:
        energy = energy_of(window)
        if energy is not None and energy["energy_j"] is not None:
            mean_w = 1e-3 * energy["average_mw"]
            plot.curve([(window["start_s"], mean_w), (window["end_s"], mean_w)], "level " + window["label"])
    says = "Power from {:.1f} to {:.1f} s, {} to {}, {} windows; the figures are in the tables below".format(
        x.low, x.high, watts(1e3 * lowest_w(curves)), watts(1e3 * highest_w(curves)), len(windows))
    return plot.html(says, "watts", x_name, x_texts)


def _time_scale(recording, windows):
    """(Scale, name, texts) of the time axis; minutes where there are many seconds."""
    ends = [float(t) for t in recording.trace.time_s[[0, -1]]] if len(recording.trace.time_s) else []
    ends += [window[key] for window in windows for key in ("start_s", "end_s")]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    high = high if high > low else low + 1.0
    if high - low <= 300.0:
        return scale(low, high, 8, tight=True), "seconds", None
    minutes = scale(low / 60.0, high / 60.0, 8, tight=True)
    return minutes._replace(low=low, high=high, ticks=tuple(60.0 * t for t in minutes.ticks)), "minutes", [
        "{:.4g}".format(t) for t in minutes.ticks]


def _letter(label):
    return {"a": "A", "b": "B", "run": "run"}.get(label, label)


def _window_title(window, energy):
    return "{}, {:.2f} to {:.2f} s: {}{}".format(
        COMMAND_NAMES.get(window["label"], window["label"]), window["start_s"], window["end_s"],
        joules(None if energy is None else energy["energy_j"]),
        ", exit code {}".format(window["exit_code"]) if window["exit_code"] else "")


def _gap_text(gaps):
    if not gaps:
        return ""
    return ". Not measured: {} stretch{}, {:.2f} s in all".format(
        len(gaps), "" if len(gaps) == 1 else "es", sum(end - start for start, end in gaps))


def runs(windows, summary):
    """Joules of each run as dots over their mean and its interval; None with fewer than two measured runs."""
    labels = list(summary["commands"])
    found = {label: [(number, window["total"]["energy_j"]) for number, window in enumerate(
        [w for w in windows if w["label"] == label], 1) if window["total"] and window["total"]["energy_j"] is not None]
        for label in labels}
    everything = [value for entries in found.values() for _, value in entries]
    if len(everything) < 2:
        return None
    spans = [summary["commands"][label]["energy_j"] for label in labels]
    ends = everything + [span[key] for span in spans for key in ("low", "high") if span[key] is not None]
    most = max(number for entries in found.values() for number, _ in entries)
    low, high = min(ends), max(ends)
    pad = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    x = scale(0.0, most + 1.0, 8, tight=True)
    ticks = tuple(t for t in x.ticks if t == int(t) and 1 <= t <= most)
    plot = Plot(x._replace(ticks=ticks), scale(low - pad, high + pad, 4), 200)
    for label, span in zip(labels, spans):
        if span["low"] is not None and span["high"] is not None:
            plot.strip(0.0, most + 1.0, "band " + label, None, span["high"], span["low"])
        plot.curve([(0.0, span["estimate"]), (most + 1.0, span["estimate"])], "dashed " + label)
    for label in labels:
        for number, value in found[label][::len(found[label]) // _MOST_WINDOWS + 1]:
            plot.dot(number, value, "dot " + label, "{} {}: {}".format(COMMAND_NAMES[label], number, joules(value)))
    says = "Joules of each run: " + "; ".join("{} from {} to {}".format(
        COMMAND_NAMES[label], joules(min(v for _, v in found[label])), joules(max(v for _, v in found[label])))
        for label in labels if found[label])
    return tag("figure", legend([(label, COMMAND_NAMES[label]) for label in labels]),
               plot.html(says, "joules a run", "run", [str(int(t)) for t in ticks]),
               tag("figcaption", "Dots: runs measured whole. Dashed: their mean; shade: its 95 % interval. "
                                 "The axis does not begin at 0."))


def ratio(comparison):
    """The ratio B / A with its interval, against 1 and the margin; None where there is no interval."""
    rows = [("energy", comparison["ratio"], "b"), ("above idle", comparison["above_idle_ratio"], "idle")]
    rows = [row for row in rows if row[1]["low"] is not None and row[1]["high"] is not None]
    if not rows:
        return None
    margin = comparison["margin"]
    ends = [entry[key] for _, entry, _ in rows for key in ("low", "high")] + [1.0 - margin, 1.0 + margin]
    pad = 0.06 * (max(ends) - min(ends))
    plot = Plot(scale(min(ends) - pad, max(ends) + pad, 6, tight=True), scale(0.0, 1.0, 1)._replace(ticks=()),
                46 * len(rows))
    plot.strip(1.0 - margin, 1.0 + margin, "band doubt", "the margin: differences that do not matter")
    plot.curve([(1.0, 0.0), (1.0, 1.0)], "dashed idle")
    for number, (name, entry, tone) in enumerate(rows):
        y = 1.0 - (number + 0.62) / len(rows)
        plot.curve([(entry["low"], y), (entry["high"], y)], "range " + tone)
        plot.dot(entry["estimate"], y, "dot " + tone, "{}: {:.3f}".format(name, entry["estimate"]))
    says = "; ".join("{} B / A {:.3f}, 95 % {:.3f} to {:.3f}".format(
        name, entry["estimate"], entry["low"], entry["high"]) for name, entry, _ in rows)
    return tag("figure", legend([(tone, name) for name, _, tone in rows] + [
        ("doubt", "within {:g} %: does not matter".format(100.0 * margin))]), plot.html(says, None, "B / A"),
        tag("figcaption", "Dot: ratio of the mean joules; line: its 95 % interval; dashed: no difference."))
