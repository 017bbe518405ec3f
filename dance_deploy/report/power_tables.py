"""The tables of a recording's page: rails, environment, windows, samples."""
import numpy as np

from dance_deploy import sources
from dance_deploy.power import environment
from dance_deploy.power.source import COUNTER
from dance_deploy.power.words import COMMAND_NAMES
from dance_deploy.quantities import joules, watts
from dance_deploy.report.page import bar, table, tag

_MOST_WINDOWS = 400
_MOST_SAMPLES = 400


def rails(recording, summary):
    """Joules of a run by rail, bars beside figures, the commands of a comparison below each other."""
    commands = summary["commands"]
    known = [rail["energy_j"] for entry in commands.values() for rail in entry["rails"].values()
             if rail["energy_j"] is not None]
    most = max(known + [1e-9])
    rows = []
    for label in recording.trace.rails:
        mine = [(command, entry["rails"][label]) for command, entry in commands.items() if label in entry["rails"]]
        star = " *" if label in recording.source.total_rails else ""
        bars = tag("td", [bar((rail["energy_j"] or 0.0) / most, command) for command, rail in mine], class_="bars")
        cells = [_lines(mine, key, text) for key, text in (
            ("energy_j", joules), ("above_idle_j", joules), ("average_mw", watts), ("peak_mw", watts))]
        rows.append([sources.printable(label) + star, bars] + cells)
    names = " above ".join(COMMAND_NAMES[label] for label in commands) if len(commands) > 1 else ""
    caption = "Means over the runs measured whole" + ("; in each row {}".format(names) if names else "") + \
        ("; * is part of the total" if recording.source.total_rails else "")
    return table(["rail", "", "energy", "above idle", "average", "peak"], rows, caption)


def _lines(mine, key, text):
    """A cell with one line a command."""
    return tag("td", [tag("div", text(rail[key])) for _, rail in mine])


def environment_table(recording):
    """What decides power besides the program, at the beginning, at the end, and between."""
    snapshots = environment.of_windows(recording.windows)
    if not snapshots:
        return tag("p", "No window, so nothing was recorded.", class_="faint")
    found, silent = environment.courses(snapshots)
    rows = [[sources.printable(entry.name)] + [_shown(value, entry.unit) for value in (entry.first, entry.last)] +
            (["changed" if entry.changed else "", ""] if entry.least is None else
             [_shown(value, entry.unit) for value in (entry.least, entry.most)]) for entry in found]
    return [table(["", "first", "last", "least", "most"], rows, "Read before and after each window") if rows else None,
            tag("p", "This machine does not tell: {}.".format(", ".join(silent)), class_="faint") if silent else None]


def _shown(value, unit):
    if value is None:
        return "unknown"
    return "{:.4g} {}".format(value, unit).rstrip() if isinstance(value, (int, float)) else sources.printable(value)


def windows(records):
    """One row a window."""
    rows = []
    for number, window in enumerate(records[:_MOST_WINDOWS], 1):
        total = window["total"] or {"energy_j": None, "average_mw": None, "peak_mw": None, "missing_s": None}
        missing_s = total["missing_s"]
        rows.append([
            "{} {}".format(number, COMMAND_NAMES.get(window["label"], window["label"])),
            "{:.3f} s".format(window["start_s"]), "{:.3f} s".format(window["end_s"] - window["start_s"]),
            window["samples"], joules(total["energy_j"]), watts(total["average_mw"]), watts(total["peak_mw"]),
            "unknown" if missing_s is None else "{:.3f} s".format(missing_s) if missing_s else "0",
            "" if window["exit_code"] is None else window["exit_code"]])
    return tag("details", tag("summary", "Windows: {}".format(len(records))), table(
        ["window", "start", "lasts", "samples", "energy", "average", "peak", "not measured", "exit code"], rows,
        "Energy of the total" + _left_out(len(records), _MOST_WINDOWS, "windows")))


def samples(recording):
    """The samples, evenly picked where there are many; the recording has all of them."""
    trace = recording.trace
    count = len(trace.time_s)
    picked = np.arange(count) if count <= _MOST_SAMPLES else np.linspace(0, count - 1, _MOST_SAMPLES).astype(int)
    unit, decimals = ("joules since the start", 3) if trace.kind == COUNTER else ("milliwatts", 0)
    rows = [["{:.3f}".format(trace.time_s[i])] + ["unknown" if v != v else "{:.{}f}".format(v, decimals)
                                                  for v in trace.values[i].tolist()] for i in picked.tolist()]
    return tag("details", tag("summary", "Samples: {}".format(count)), table(
        ["seconds"] + [sources.printable(label) for label in trace.rails], rows, "By rail, {}{}".format(
            unit, "; every sample" if count <= _MOST_SAMPLES else "; {} of {}, evenly picked: the recording has all"
            .format(_MOST_SAMPLES, count))))


def _left_out(count, most, name):
    return "" if count <= most else "; {} of {} {}: the recording has all".format(most, count, name)
