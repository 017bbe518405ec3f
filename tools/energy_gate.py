#!/usr/bin/env python3
"""The gate for energy in CI: holds measurements against limits from a file, and ends with the verdict as exit code.

    energy_gate.py LIMITS --recording FILE...                      files that dance-power wrote, no board needed
    energy_gate.py LIMITS --record CMD | --compare --a CMD --b CMD      measures here, on the board itself
    energy_gate.py LIMITS --ssh USER@HOST --record CMD | --compare ...  measures on a board, driven from here

Needs dance_deploy's device half (numpy), Python 3.6 and newer; --ssh needs OpenSSH's client here and dance-power there.
Exit codes: 0 pass, 1 fail (or the measurement did not come about), 2 bad input, 3 inconclusive. docs/hardware-ci.md
"""
import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading

try:
    from dance_deploy.errors import DanceError, InputError, OperationError
    from dance_deploy.files import check_writable, is_special, whole_file
    from dance_deploy.power import catalog, gate, gate_report, recording, recording_file, summary
    from dance_deploy.signals import ended_by_signals
except ImportError as missing:
    sys.stderr.write("error: {}; energy_gate.py needs dance_deploy: pip install dance-deploy\n".format(missing))
    sys.exit(2)

EXIT_CODES = {gate.PASS: 0, gate.FAIL: 1, gate.INCONCLUSIVE: 3}
_BAD_INPUT = 2
_SSH_FAILED = 255   # ssh's own exit code; any other is the remote command's
_NOT_FOUND = 127
_LAST_LINES_S = 2.0
_SILENT = "it said nothing"
_FOLDER = re.compile(r"/[A-Za-z0-9._/+-]+\Z")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.stderr.write("error: {}; see energy_gate.py --help\n".format(" ".join(message.split())))
        sys.exit(_BAD_INPUT)


def main(arguments=None):
    """Judge, write the reports, print the verdict; returns the exit code."""
    try:
        options = _options(arguments)
        limits = gate.load_limits(options.limits)
        for path in (options.json, options.junit, options.markdown, options.keep):
            if path is not None:
                check_writable(path)
        with ended_by_signals():
            named = _recordings(options, limits)
        checks = gate.judge(named, limits)
        verdict = gate.overall(checks)
        code = EXIT_CODES[verdict]
        if verdict == gate.INCONCLUSIVE and options.inconclusive_as is not None:
            code = EXIT_CODES[options.inconclusive_as]
        report = gate_report.Report(options.limits, named, checks, verdict, code, options.inconclusive_as)
        for path, write in ((options.json, gate_report.json_bytes), (options.junit, gate_report.junit_bytes),
                            (options.markdown, gate_report.markdown_bytes)):
            if path is not None:
                content = write(report)
                with whole_file(path, "wb") as stream:
                    stream.write(content)
        for check in checks:
            print(_ascii("{}: {}: {}".format(check.verdict.upper(), check.recording, gate_report.sentence(check))))
        for name, found in named:
            for line in summary.summarize(found)["warnings"]:
                print(_ascii("warning: {}: {}".format(name, line)))
        print("energy gate: {} (exit code {})".format(verdict.upper(), code))
        return code
    except DanceError as error:
        sys.stderr.write(_ascii("error: {}".format(" ".join(str(error).split()))) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1


def _options(arguments):
    parser = _Parser(description="Holds energy measurements against limits. Exit codes: 0 pass, 1 fail, 2 bad input, "
                                 "3 inconclusive.")
    parser.add_argument("limits", metavar="LIMITS", help="JSON file of limits: docs/hardware-ci.md")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recording", nargs="+", metavar="FILE", help="recordings of dance-power")
    what.add_argument("--record", metavar="CMD", help="measure this command line, quoted; no shell reads it")
    what.add_argument("--compare", action="store_true", help="measure --a and --b by turns")
    parser.add_argument("--a", metavar="CMD", help="with --compare: one command line, such as the dense run")
    parser.add_argument("--b", metavar="CMD", help="the other, such as the gated run; saving is 1 - B / A")
    parser.add_argument("--ssh", metavar="USER@HOST", help="measure there, with its dance-power")
    parser.add_argument("--ssh-option", action="append", default=[], metavar="OPTION", help="for ssh -o; repeatable")
    parser.add_argument("--board-command", default="dance-power", metavar="CMD",
                        help="how the board starts dance-power (default: dance-power)")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="of --ssh (default: 3600)")
    parser.add_argument("--source", default="auto", help="as for dance-power (default: auto)")
    parser.add_argument("--interval-ms", type=float, metavar="MS", help="between samples (default: 100)")
    parser.add_argument("--total", metavar="RAIL[,RAIL]", help="rails whose sum is the total")
    parser.add_argument("--idle", type=float, default=5.0, metavar="SECONDS", help="measured first (default: 5)")
    parser.add_argument("--settle", type=float, default=0.5, metavar="SECONDS", help="before each run (default: 0.5)")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="runs before that do not count (default: 1)")
    parser.add_argument("--runs", type=int, default=8, metavar="N", help="of each command, at least (default: 8)")
    parser.add_argument("--most", type=int, default=30, metavar="N", help="of each command, at most (default: 30)")
    parser.add_argument("--precision", type=float, default=1.0, metavar="PCT",
                        help="measure on until the interval is within +- PCT (default: 1)")
    parser.add_argument("--keep", metavar="FILE", help="keep the recording that was measured")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--junit", metavar="FILE", help="JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="summary for people")
    parser.add_argument("--inconclusive-as", choices=(gate.FAIL, gate.PASS), help="end with its exit code instead of 3")
    options = parser.parse_args(arguments)
    if options.compare != (options.a is not None and options.b is not None) or (
            not options.compare and (options.a is not None or options.b is not None)):
        parser.error("--compare, --a CMD and --b CMD come together")
    if options.recording and (options.ssh is not None or options.keep is not None):
        parser.error("--ssh and --keep go with --record or --compare, not with --recording")
    named = [os.path.realpath(path) for path in [options.limits] + (options.recording or []) + [
        options.keep, options.json, options.junit, options.markdown] if path is not None and not is_special(path)]
    twice = [path for path in named if named.count(path) > 1]
    if twice:
        parser.error("'{}' is named twice; limits, recordings and reports are files of their own".format(twice[0]))
    if options.ssh is not None and not re.match(r"[A-Za-z0-9_.\[][A-Za-z0-9_.@:%\[\]-]*\Z", options.ssh):
        parser.error("--ssh is {!r}, expected USER@HOST".format(options.ssh))
    if not 0.0 < options.timeout <= 1e6 or options.warmup < 0:
        parser.error("--timeout is {:g} s, expected above 0 to 1e6; --warmup is {}, expected 0 or more".format(
            options.timeout, options.warmup))
    return options


def _recordings(options, limits):
    """[(name, Recording)], read or measured."""
    if options.recording:
        return [(path, recording_file.load(path)) for path in options.recording]
    commands = [_words("--a", options.a), _words("--b", options.b)] if options.compare else [
        _words("--record", options.record)]
    gate.check_labels(limits, {recording.A, recording.B} if options.compare else {recording.RUN})
    plan = recording.checked_plan(recording.Plan(
        idle_s=options.idle, warmup=options.warmup, least=options.runs, most=max(options.runs, options.most),
        precision=options.precision / 100.0, settle_s=options.settle))
    found = _measured_by_ssh(options, commands) if options.ssh else _measured_here(options, commands, plan, limits)
    if options.keep is not None:
        recording_file.save(found, options.keep)
    if not found.commands:
        raise OperationError("the command failed in its warm-up; nothing was measured")
    return [(options.keep or options.ssh or "this machine", found)]


def _measured_here(options, commands, plan, limits):
    total = None if options.total is None else [label.strip() for label in options.total.split(",") if label.strip()]
    source = catalog.open_source(options.source, None if options.interval_ms is None else options.interval_ms / 1e3,
                                 total)
    with contextlib.closing(source):
        gate.check_rails(limits, source.rails)
        with recording.Recorder(source, say=lambda line: sys.stderr.write(line + "\n")) as recorder:
            if options.compare:
                recording.compare(recorder, commands[0], commands[1], plan, summary.ratio_half_width)
            else:
                recording.record(recorder, commands[0], plan, summary.run_half_width)
            return recorder.recording()


def _measured_by_ssh(options, commands):
    """The Recording that dance-power made on the board, copied back; the board is left as it was."""
    shown = _Lines()
    code = _ssh(options, ["mktemp", "-d", "-t", "dance-gate.XXXXXXXX"], shown)
    folder = shown.last
    if code or not _FOLDER.match(folder):
        raise OperationError("{}: no temporary folder could be made: {}".format(options.ssh, folder or _SILENT))
    try:
        there, shown = folder + "/recording.json", _Lines(sys.stderr)
        # the shell's number is dance-power's after exec
        start = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', folder + "/pid"]
        try:
            code = _ssh(options, start + _words("--board-command", options.board_command) + _power_words(
                options, commands, there), shown)
        except BaseException:  # given up or interrupted here: there it must not run on
            with contextlib.suppress(OperationError):
                _ssh(options, ["sh", "-c", 'kill "$(cat "$0")"', folder + "/pid"], _Lines())
            raise
        with tempfile.TemporaryDirectory() as here:
            path = os.path.join(here, "recording.json")
            with open(path, "wb") as stream:
                copied = _ssh(options, ["cat", there], _Lines(), stream)
            if copied:
                raise OperationError("{}: dance-power gave no recording (exit code {}){}: {}".format(
                    options.ssh, code, "; is it installed there? see --board-command" if code == _NOT_FOUND else "",
                    shown.last or _SILENT))
            return recording_file.load(path)
    finally:
        with contextlib.suppress(OperationError):
            _ssh(options, ["rm", "-rf", folder], _Lines())


def _power_words(options, commands, output):
    """dance-power's arguments. --name=value throughout: a value that begins with a dash stays a value."""
    words = ["compare" if options.compare else "record", "--output=" + output, "--source=" + options.source,
             "--idle={!r}".format(options.idle), "--settle={!r}".format(options.settle),
             "--warmup={}".format(options.warmup), "--most={}".format(max(options.runs, options.most))]
    if options.interval_ms is not None:
        words.append("--interval-ms={!r}".format(options.interval_ms))
    if options.total is not None:
        words.append("--total=" + options.total)
    words.append("--precision={!r}".format(options.precision))
    if options.compare:
        return words + ["--pairs={}".format(options.runs), "--a=" + options.a, "--b=" + options.b]
    return words + ["--repeat={}".format(options.runs), "--"] + commands[0]


class _Lines(object):
    """Takes lines, shows them on `stream` if there is one, and knows the last that was not blank."""

    def __init__(self, stream=None):
        self.stream, self.last = stream, ""

    def add(self, line):
        text = line.decode("utf-8", "replace").rstrip()
        self.last = text.strip() or self.last
        if self.stream is not None:
            self.stream.write(_ascii(text) + "\n")


def _ssh(options, words, lines, stdout=None):
    """Run `words` on the board: its exit code. Output to `lines`, or standard output to the file `stdout`.

    Raises OperationError where the board cannot be reached or --timeout has passed.
    """
    # the far side is a shell that splits again, so every word is quoted for it; BatchMode: CI cannot type a password
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15"]
    for option in options.ssh_option:
        argv += ["-o", option]
    argv += [options.ssh, " ".join(shlex.quote(word) for word in words)]
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or subprocess.PIPE,
                                   stderr=subprocess.PIPE if stdout else subprocess.STDOUT)
    except OSError as error:
        raise OperationError("ssh cannot be started: {}; install OpenSSH's client".format(error.strerror)) from error
    pipe = process.stderr if stdout else process.stdout
    # read beside the waiting: what ssh leaves behind (a shared connection) may hold the pipe open for ever
    reader = threading.Thread(target=lambda: [lines.add(line) for line in pipe], daemon=True)
    reader.start()
    try:
        code = process.wait(options.timeout)
    except BaseException as error:
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise OperationError("{}: not done after {:g} s, given up; see --timeout".format(
                options.ssh, options.timeout)) from error
        raise
    reader.join(_LAST_LINES_S)
    if code == _SSH_FAILED:
        raise OperationError("{}: ssh failed: {}".format(options.ssh, lines.last or _SILENT))
    return code


def _words(option, line):
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError("{} '{}': {}".format(option, line, error)) from error
    if not words:
        raise InputError("{} is empty, expected a command line".format(option))
    return words


def _ascii(text):
    """Text that any terminal and any log can take."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
