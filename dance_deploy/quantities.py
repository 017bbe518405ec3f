"""How figures are written for people: about three digits, always with a unit, and "unknown" where nothing is known."""


def joules(value):
    """1.234 -> "1.23 J", None -> "unknown"."""
    return "unknown" if value is None else _three(value) + " J"


def watts(milliwatts):
    """1234 -> "1.23 W", None -> "unknown"."""
    return "unknown" if milliwatts is None else _three(1e-3 * milliwatts) + " W"


def count_text(number):
    """1234567 -> "1.23 M": for MACs and bytes."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return "{:.2f} {}".format(number / factor, suffix)
    return "{:.0f} ".format(number)


def interval_text(entry, unit_text):
    """An interval {"estimate", "low", "high"} in words; unit_text: joules, watts, ..."""
    if entry["estimate"] is None:
        return "unknown"
    if entry["low"] is None or entry["high"] is None:
        return "{} (no interval: too few values)".format(unit_text(entry["estimate"]))
    return "{} (95 % {} to {})".format(*[unit_text(entry[key]) for key in ("estimate", "low", "high")])


def _three(value):
    if abs(value) < 1e-6:  # below what any sensor here tells: rounding
        return "0"
    return ("{:.3g}" if abs(value) < 1 else "{:.2f}" if abs(value) < 100 else "{:.1f}").format(value)
