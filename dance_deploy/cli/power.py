"""dance-power: the energy of any command, two commands compared, what sources this machine has, logs as JSON."""
import contextlib
import json
import shlex
import sys
from typing import List, Optional

import typer

from dance_deploy.cli import entry
from dance_deploy.errors import InputError, OperationError

app = typer.Typer(add_completion=False, help="Measure energy: which sources are here, one command, two compared.")

_SOURCE = typer.Option("auto", "--source", metavar="SOURCE", help=(
    "auto, ina3221, tegrastats, rapl, nvml or battery; NAME=WHERE reads another folder or command; "
    "tegrastats-log=FILE replays."))
_INTERVAL = typer.Option(None, "--interval-ms", metavar="MS", help="Time between samples (default: 100).")
_TOTAL = typer.Option(None, "--total", metavar="RAIL[,RAIL]", help="Rails whose sum is the total.")
_OUTPUT = typer.Option(..., "-o", "--output", metavar="FILE", help="The recording, one JSON object.")
_IDLE = typer.Option(5.0, "--idle", metavar="SECONDS", help="Idle measured first; 0: none.")
_SETTLE = typer.Option(0.5, "--settle", metavar="SECONDS", help="Pause before each run.")


@app.command()
def sources(as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of lines.")):
    """Say which power sources work here, and for each that does not, why and what to do. Exit code 1: none works."""
    from dance_deploy.cli.power_text import offer_lines
    from dance_deploy.power import catalog
    found = catalog.offers()
    if as_json:
        print(json.dumps({"sources": [offer._asdict() for offer in found]}, indent=1))
    else:
        for offer in found:
            for line in offer_lines(offer):
                print(line)
        if not any(offer.reason is None for offer in found):
            print("\nno power source works on this machine: energy stays unknown here. Mend one of the above, or "
                  "measure on a board with sensors.")
    raise typer.Exit(0 if any(offer.reason is None for offer in found) else 1)


@app.command()
def record(
    command: List[str] = typer.Argument(..., metavar="-- CMD...", help="The command to measure."),
    output: str = _OUTPUT,
    source: str = _SOURCE,
    interval_ms: Optional[float] = _INTERVAL,
    total: Optional[str] = _TOTAL,
    idle: float = _IDLE,
    settle: float = _SETTLE,
    repeat: int = typer.Option(1, "--repeat", metavar="N", min=1, help="Runs, at least."),
    precision: Optional[float] = typer.Option(
        None, "--precision", metavar="PCT", help="Repeat until the 95 % interval is within +- this many percent."),
    most: int = typer.Option(50, "--most", metavar="N", min=1, help="Runs at most, with --precision."),
    warmup: int = typer.Option(0, "--warmup", metavar="N", min=0, help="Runs before that do not count."),
):
    """Measure a command's energy. Its output goes to stderr; exit code 1 where it fails."""
    from dance_deploy.power import recording, summary
    plan = recording.checked_plan(recording.Plan(
        idle_s=idle, settle_s=settle, warmup=warmup, least=repeat,
        most=repeat if precision is None else max(repeat, most),
        precision=None if precision is None else precision / 100.0))
    raise typer.Exit(_measure(output, (source, interval_ms, total), lambda recorder: recording.record(
        recorder, command, plan, summary.run_half_width)))


@app.command()
def compare(
    a: str = typer.Option(..., "--a", metavar="CMD", help="One command line, quoted; no shell reads it."),
    b: str = typer.Option(..., "--b", metavar="CMD", help="The other; the ratio is B / A."),
    output: Optional[str] = typer.Option(None, "-o", "--output", metavar="FILE", help="Keep the recording."),
    source: str = _SOURCE,
    interval_ms: Optional[float] = _INTERVAL,
    total: Optional[str] = _TOTAL,
    idle: float = _IDLE,
    settle: float = _SETTLE,
    pairs: int = typer.Option(8, "--pairs", metavar="N", min=1, help="Runs of each, at least."),
    most: int = typer.Option(30, "--most", metavar="N", min=1, help="Runs of each, at most."),
    margin: float = typer.Option(2.0, "--margin", metavar="PCT", help="Differences below this do not matter."),
    precision: Optional[float] = typer.Option(
        None, "--precision", metavar="PCT", help="Until the ratio is within +- PCT (default: half the margin)."),
    warmup: int = typer.Option(1, "--warmup", metavar="N", min=0, help="Runs of each before that do not count."),
):
    """Measure two commands by turns until the ratio is known well enough. Exit code 1 where one fails."""
    from dance_deploy.power import recording, summary
    share = _margin_share(margin)
    commands = [_words("--a", a), _words("--b", b)]
    plan = recording.checked_plan(recording.Plan(
        idle_s=idle, settle_s=settle, warmup=warmup, least=pairs, most=max(pairs, most),
        precision=share / 2.0 if precision is None else precision / 100.0))
    raise typer.Exit(_measure(output, (source, interval_ms, total), lambda recorder: recording.compare(
        recorder, commands[0], commands[1], plan, summary.ratio_half_width), share, True))


@app.command()
def report(files: List[str] = typer.Argument(..., metavar="FILE...", help="Recordings."),
           output: Optional[str] = typer.Option(None, "-o", "--output", metavar="FILE.html", help=(
               "Draw them as well: one HTML page, complete in itself.")),
           margin: float = typer.Option(2.0, "--margin", metavar="PCT", help="As for compare.")):
    """Show recordings as text, from their samples, and with -o as a page with plots."""
    from dance_deploy.power.recording_file import load
    share = _margin_share(margin)
    if output is not None:
        _check_page(output)
    loaded = [(name, load(name)) for name in files]  # all are read before the first line is printed
    if output is not None:
        from dance_deploy.report.page import write_page
        from dance_deploy.report.power_page import power_page
        write_page(power_page(loaded, share), output)
    for name, recording in loaded:
        _show(name, recording, share)


@app.command()
def parse(log: str = typer.Argument(..., metavar="LOG", help="A tegrastats log; '-' is stdin."),
          json_path: str = typer.Option("-", "--json", metavar="FILE", help="Where to; '-' is stdout.")):
    """Turn a tegrastats log into one JSON object a line."""
    from dance_deploy.power.parse_log import parse_log
    parse_log(log, json_path)


def main():
    entry.run(app)


def _measure(output, source_options, work, margin=0.02, needs_total=False):
    """Open the source, do the work, write and show the recording; the exit code."""
    from dance_deploy.files import check_writable, same_file
    from dance_deploy.power import boards, catalog, recording, recording_file
    if output is not None:
        name, _, place = source_options[0].partition("=")
        if name == catalog.LOG and same_file(output, place):
            raise InputError("-o '{}' is the log that --source reads; give it another name".format(output))
        check_writable(output)
    with contextlib.closing(open_from_options(*source_options)) as source:
        if needs_total and not source.total_rails:
            raise OperationError("; ".join(source.warnings) or boards.unknown_total(source.rails))
        with recording.Recorder(source, say=_say) as recorder:
            code = work(recorder)
            found = recorder.recording()
    try:
        if output is not None:
            recording_file.save(found, output, margin)
    finally:  # a full disk must not lose the figures
        _show(output or "not kept", found, margin)
    if code:
        raise OperationError("the command ended with exit code {}; its energy is no measurement of the work".format(
            code))
    return 0


def open_from_options(spec, interval_ms, total):
    """The opened Source that --source, --interval-ms and --total describe."""
    from dance_deploy.power import catalog
    labels = None if total is None else [label.strip() for label in total.split(",") if label.strip()]
    if labels == []:
        raise InputError("--total names no rail; expected labels with commas between them")
    if labels is not None and len(set(labels)) < len(labels):
        raise InputError("--total '{}' names a rail twice; its energy would count twice".format(total))
    return catalog.open_source(spec, None if interval_ms is None else interval_ms / 1e3, labels)


def _margin_share(percent):
    if not 0.0 < percent < 100.0:
        raise InputError("--margin is {:g} %, expected above 0 and below 100".format(percent))
    return percent / 100.0


def _check_page(path):
    """Raise InputError where no page can be written at `path`, before anything is read or measured."""
    from dance_deploy.files import check_writable
    from dance_deploy.report.page import check_page_path
    check_page_path(path)
    check_writable(path)


def _words(option, line):
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError("{} '{}': {}".format(option, line, error)) from error
    if not words:
        raise InputError("{} is empty, expected a command line".format(option))
    return words


def _show(name, recording, margin):
    from dance_deploy.cli.power_text import report_lines
    from dance_deploy.power.summary import summarize
    for line in report_lines(name, recording, summarize(recording, margin)):
        print(line)


def _say(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
