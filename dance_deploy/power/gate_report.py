"""The verdicts of the energy gate as files: JSON for programs, JUnit XML for CI servers, Markdown for people."""
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any, List, NamedTuple, Optional, Tuple

from dance_deploy.power import environment, gate
from dance_deploy.power.recording import Recording
from dance_deploy.power.summary import summarize

# what XML 1.0 cannot hold, not even escaped
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Report(NamedTuple):
    """limits: name of their file; recordings: (name, Recording); checks: gate.Check; verdict: of all; inconclusive_as:
    gate.FAIL, gate.PASS or None."""

    limits: str
    recordings: List[Tuple[str, Recording]]
    checks: List[Any]
    verdict: str
    exit_code: int
    inconclusive_as: Optional[str]


def sentence(check):
    """What was measured against what, and why, as one line."""
    if check.metric is None:
        return "{}: {}".format(check.name, check.reason)
    return "{}: {}, limit {} {}{}".format(check.name, _measured(check), check.bound.replace("_", " "), _figure(
        check.limit, check.unit), "; " + check.reason if check.reason else "")


def _measured(check):
    if check.estimate is None:
        return "unknown"
    if check.metric == gate.PEAK:
        return _figure(check.estimate, check.unit)
    if check.low is None or check.high is None:
        return _figure(check.estimate, check.unit) + " (no interval)"
    return "{} (95 % {} to {})".format(*[_figure(value, check.unit) for value in check[7:10]])


def _figure(value, unit):
    return "{:.4g} {}".format(value, unit) if unit else "{:.2f} %".format(100.0 * value)


def json_bytes(report):
    """The verdict and every check as one JSON object."""
    tree = {"format": "dance-energy-gate", "version": 1, "verdict": report.verdict, "exit_code": report.exit_code,
            "limits": report.limits, "checks": [check._asdict() for check in report.checks],
            "recordings": [{"name": name, "started_at": found.started_at, "source": found.source.name,
                            "total_rails": list(found.source.total_rails), "scope": found.source.scope,
                            "environment": {entry.name: dict(unit=entry.unit, first=entry.first, last=entry.last,
                                                             least=entry.least, most=entry.most)
                                            for entry in _environment(found)[0]},
                            "warnings": summarize(found)["warnings"]} for name, found in report.recordings]}
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode("ascii")


def junit_bytes(report):
    """One suite a recording. Inconclusive is an error, a failure with --inconclusive-as fail, else skipped."""
    kind = {None: "error", gate.FAIL: "failure", gate.PASS: "skipped"}[report.inconclusive_as]
    elements = {gate.FAIL: "failure", gate.INCONCLUSIVE: kind}
    root = ElementTree.Element("testsuites")
    for name, found in report.recordings:
        mine = [check for check in report.checks if check.recording == name]
        kinds = [elements.get(check.verdict) for check in mine]
        suite = ElementTree.SubElement(root, "testsuite", {
            "name": _xml("energy gate: " + name), "tests": str(len(mine)), "failures": str(kinds.count("failure")),
            "errors": str(kinds.count("error")), "skipped": str(kinds.count("skipped")), "time": "0",
            "timestamp": _xml(found.started_at.rstrip("Z"))})
        properties = ElementTree.SubElement(suite, "properties")
        for entry in _environment(found)[0]:
            ElementTree.SubElement(properties, "property", {"name": _xml(entry.name), "value": _xml(_course(entry))})
        for check, element in zip(mine, kinds):
            case = ElementTree.SubElement(suite, "testcase", {
                "classname": "energy_gate", "name": _xml(check.name), "time": "0"})
            if element is not None:
                attributes = {"message": _xml(sentence(check))}
                if element != "skipped":
                    attributes["type"] = check.verdict
                ElementTree.SubElement(case, element, attributes)
            ElementTree.SubElement(case, "system-out").text = _xml(sentence(check))
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="us-ascii") + b"\n"


def markdown_bytes(report):
    """A heading, a table of the checks, and what was measured with which warnings."""
    lines = ["## Energy gate: {}".format(report.verdict.upper()), "",
             "| verdict | limit | measured | asked | recording |", "| --- | --- | --- | --- | --- |"]
    for check in report.checks:
        asked = "" if check.metric is None else "{} {}".format(
            check.bound.replace("_", " "), _figure(check.limit, check.unit))
        measured = "" if check.metric is None else _measured(check)
        cells = (check.verdict.upper(), check.name, "; ".join(filter(None, (measured, check.reason))), asked,
                 check.recording)
        lines.append("| {} |".format(" | ".join(_cell(cell) for cell in cells)))
    for name, found in report.recordings:
        lines += ["", "{}: {}, source {}, total {} ({})".format(*[_cell(text) for text in (
            name, found.started_at, found.source.name, ", ".join(found.source.total_rails) or "unknown",
            found.source.scope or "no scope known")])]
        courses, silent = _environment(found)
        lines += ["- {}: {}".format(_cell(entry.name), _cell(_course(entry))) for entry in courses]
        lines += ["- not told by this machine: {}".format(_cell(", ".join(silent)))] if silent else []
        lines += ["- warning: " + _cell(line) for line in summarize(found)["warnings"]]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _environment(recording):
    return environment.courses(environment.of_windows(recording.windows))


def _course(entry):
    """Where a fact began, how it ended and how far it went between, as short as that can be said."""
    if not entry.changed:
        return _value(entry.first, entry.unit)
    text = "{} at first, {} at last".format(_value(entry.first, entry.unit), _value(entry.last, entry.unit))
    if entry.least is None:
        return text
    return "{}, {:.4g} to {}".format(text, entry.least, _value(entry.most, entry.unit))


def _value(value, unit):
    if value is None:
        return "unknown"
    return "{:.4g} {}".format(value, unit).rstrip() if isinstance(value, (int, float)) else value


def _cell(text):
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


def _xml(text):
    return _NOT_XML.sub("?", text)
