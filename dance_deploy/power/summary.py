"""The figures of a Recording: joules per run with interval, above idle, per rail; two commands compared."""
import math

import numpy as np

from dance_deploy.power.boards import unknown_total
from dance_deploy.power.energy import LEAST_SAMPLES, Energies
from dance_deploy.power.intervals import CONFIDENCE, difference_interval, mean_interval, ratio_interval, verdict
from dance_deploy.power.recording import A, B, IDLE
from dance_deploy.power.trace import gap_limit_s, period_of

_MOST_BLOCKS = 20
_MOST_LINES = 5


def summarize(recording, margin=0.02):
    """A dict of plain values, for JSON; energies in J, powers in mW, None where the data cannot tell.

    margin: differences smaller than this share do not matter, when two commands are compared.
    Keys: docs/dance-power.md.
    """
    energies = Energies(recording.trace, recording.source.total_rails)
    period = period_of(recording.trace)
    result = {
        "confidence": CONFIDENCE,
        "sampling": {"samples": period.samples, "period_median_s": _plain(period.median_s),
                     "period_p95_s": _plain(period.p95_s), "period_most_s": _plain(period.most_s)},
        "idle": _idle(recording, energies),
        "commands": {},
    }
    for label in sorted(recording.commands):
        result["commands"][label] = _command(recording, energies, label)
    if A in recording.commands and B in recording.commands:
        result["comparison"] = _comparison(recording, energies, margin)
    result["warnings"] = list(recording.warnings) + _window_warnings(recording, energies)
    return result


def window_records(recording):
    """One dict a window: label, times, exit code, energies, and where the environment moved inside it."""
    energies, found = Energies(recording.trace, recording.source.total_rails), []
    for window in recording.windows:
        energy = energies.window(window.start_s, window.end_s)
        found.append({
            "label": window.label, "start_s": window.start_s, "end_s": window.end_s, "exit_code": window.exit_code,
            "samples": energy.samples,
            "total": None if energy.total is None else energy.total._asdict(),
            "rails": {label: rail._asdict() for label, rail in energy.rails.items()},
            "before": window.before, "after": window.after})
    return found


def run_half_width(recording):
    """Half the interval of the joules per run, relative; infinite where it cannot be told."""
    energies = Energies(recording.trace, recording.source.total_rails)
    return mean_interval([joules for joules, _ in _totals(recording, energies) if joules is not None]).half_width


def ratio_half_width(recording):
    """Half the interval of the ratio b / a, relative."""
    a, b = _pairs(recording, Energies(recording.trace, recording.source.total_rails))
    return ratio_interval(a, b).half_width


def block_powers_mw(energies, start_s, end_s):
    """Mean total power of up to 20 equal stretches, each of at least two samples and measured whole. Where samples are
    missing, that of the stretches beside the gaps, if they are half of the time; else []. Stretches, not samples:
    neighbouring samples resemble each other and would feign certainty."""
    count = min(_MOST_BLOCKS, energies.window(start_s, end_s).samples // LEAST_SAMPLES)
    beside_gaps = []
    while count >= 1:
        edges = np.linspace(start_s, end_s, count + 1)
        blocks = [energies.window(low, high).total for low, high in zip(edges[:-1], edges[1:])]
        whole = [block.average_mw for block in blocks if block is not None and block.energy_j is not None]
        if len(whole) == count:
            return whole
        if not beside_gaps and 2 * len(whole) >= count:
            beside_gaps = whole
        count //= 2
    return beside_gaps


def interval_dict(interval):
    """{"estimate", "low", "high"}, None for what is not finite."""
    return {key: _plain(value) for key, value in interval._asdict().items()}


def _idle(recording, energies):
    windows = [window for window in recording.windows if window.label == IDLE]
    if not windows:
        return None
    start_s, end_s = windows[0].start_s, windows[0].end_s
    energy = energies.window(start_s, end_s)
    return {"seconds": end_s - start_s, "samples": energy.samples,
            "average_mw": interval_dict(mean_interval(block_powers_mw(energies, start_s, end_s))),
            "rails": {label: rail.average_mw for label, rail in energy.rails.items()}}


def _idle_blocks_mw(recording, energies):
    return [power for window in recording.windows if window.label == IDLE
            for power in block_powers_mw(energies, window.start_s, window.end_s)]


def _command(recording, energies, label):
    windows = [window for window in recording.windows if window.label == label]
    found = [energies.window(window.start_s, window.end_s) for window in windows]
    totals = [(energy.total.energy_j, energy.end_s - energy.start_s) for energy in found
              if energy.total is not None and energy.total.energy_j is not None]
    durations = [window.end_s - window.start_s for window in windows]
    peaks = [energy.total.peak_mw for energy in found if energy.total is not None and energy.total.peak_mw is not None]
    return {
        "argv": recording.commands[label], "runs": len(windows), "runs_measured": len(totals),
        "duration_s": interval_dict(mean_interval(durations)),
        "energy_j": interval_dict(mean_interval([joules for joules, _ in totals])),
        "above_idle_j": interval_dict(above_idle(totals, _idle_blocks_mw(recording, energies))),
        "average_mw": _ratio(1e3 * sum(joules for joules, _ in totals), sum(seconds for _, seconds in totals)),
        "peak_mw": max(peaks) if peaks else None,
        "rails": {rail: _rail(recording, energies, found, rail) for rail in recording.trace.rails},
    }


def above_idle(totals, idle_mw):
    """Interval of the joules per run beyond what the idle machine takes in the same time.

    totals: [(joules, seconds)]; idle_mw: mean powers of idle stretches, whose spread counts as well.
    """
    if not totals or not idle_mw:
        return difference_interval((), ())
    seconds = float(np.mean([duration for _, duration in totals]))
    # each run against its own duration at the mean idle power; the idle power's own spread once more, around zero
    idle = float(np.mean(idle_mw))
    runs = [joules - 1e-3 * idle * duration for joules, duration in totals]
    return difference_interval(runs, [1e-3 * seconds * (power - idle) for power in idle_mw])


def _rail(recording, energies, found, rail):
    measured = [energy.rails[rail] for energy in found if energy.rails[rail].energy_j is not None]
    joules = [entry.energy_j for entry in measured]
    seconds = [energy.end_s - energy.start_s for energy in found if energy.rails[rail].energy_j is not None]
    idle = [energies.window(w.start_s, w.end_s).rails[rail].average_mw for w in recording.windows if w.label == IDLE]
    idle = [power for power in idle if power is not None]
    peaks = [energy.rails[rail].peak_mw for energy in found if energy.rails[rail].peak_mw is not None]
    mean_j = _ratio(sum(joules), len(joules))
    mean_s = _ratio(sum(seconds), len(seconds))
    return {"energy_j": mean_j,
            "above_idle_j": None if mean_j is None or not idle else mean_j - 1e-3 * idle[0] * mean_s,
            "average_mw": _ratio(1e3 * sum(joules), sum(seconds)), "peak_mw": max(peaks) if peaks else None}


def _comparison(recording, energies, margin):
    a, b = _pairs(recording, energies)
    ratio = ratio_interval(a, b)
    return {"pairs": len(a), "margin": margin, "ratio": interval_dict(ratio), "verdict": verdict(ratio, margin),
            "above_idle_ratio": interval_dict(_above_idle_ratio(recording, energies))}


def _above_idle_ratio(recording, energies):
    """The ratio of what is left above idle; unknown where a's rest is not clearly above zero."""
    idle = _idle_blocks_mw(recording, energies)
    a, b = ([(joules, seconds) for joules, seconds in _totals(recording, energies, label)] for label in (A, B))
    known = [(x, y) for x, y in zip(a, b) if x[0] is not None and y[0] is not None]
    if not idle or not known or not all(above_idle(totals, idle).low > 0.0 for totals in zip(*known)):
        return ratio_interval((), ())
    power_w = 1e-3 * float(np.mean(idle))
    return ratio_interval(*[[joules - power_w * seconds for joules, seconds in totals] for totals in zip(*known)])


def _pairs(recording, energies):
    """([joules of a], [joules of b]) of the pairs where both are measured."""
    a, b = ([joules for joules, _ in _totals(recording, energies, label)] for label in (A, B))
    known = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
    return tuple(zip(*known)) if known else ((), ())


def _totals(recording, energies, label=None):
    """(joules or None, seconds) of the runs of one command; None: of all commands."""
    for window in recording.windows:
        if window.label == label or (label is None and window.label != IDLE):
            total = energies.window(window.start_s, window.end_s).total
            yield (None if total is None else total.energy_j), window.end_s - window.start_s


def _window_warnings(recording, energies):
    lines = []
    for number, window in enumerate(recording.windows, 1):
        fault = _fault(window, energies.window(window.start_s, window.end_s))
        if fault:
            lines.append("window {} ({}): {}".format(number, window.label, fault))
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = ["... and {} more windows".format(len(lines) - _MOST_LINES)]
    gaps = int((np.diff(recording.trace.time_s) > gap_limit_s(recording.trace)).sum())
    if gaps:
        lines.append("{} gap{} between samples".format(gaps, "" if gaps == 1 else "s"))
    if not recording.source.total_rails and not any("--total" in line for line in recording.warnings):
        lines.append(unknown_total(recording.trace.rails))
    return lines


def _fault(window, energy):
    """Why a window's figures are not what was asked for, in words; None where they are."""
    missing = [(rail.missing_s, name) for name, rail in energy.rails.items() if rail.missing_s]
    if window.exit_code:
        return "the command ended with exit code {}".format(window.exit_code)
    if missing:
        # a rail that is no part of the total may vanish without harm to it
        harmless = energy.total is not None and not energy.total.missing_s
        return "{:.3g} of {:.3g} s are not measured (rail {}); {} is unknown".format(
            max(missing)[0], window.end_s - window.start_s, max(missing)[1],
            "that rail's energy" if harmless else "its energy")
    if energy.samples < LEAST_SAMPLES:
        return "{} samples in {:.3f} s are too few to tell its energy; sample faster or run longer".format(
            energy.samples, window.end_s - window.start_s)
    return None


def _ratio(upper, lower):
    return upper / lower if lower else None


def _plain(value):
    return float(value) if math.isfinite(value) else None
