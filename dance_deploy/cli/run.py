"""dance-run: predictions for videos from a bundle, with what each window cost."""
import os
import sys
from typing import List, NamedTuple, Optional

import typer

from dance_deploy.cli import entry, run_power, run_report, run_text
from dance_deploy.errors import DanceError, InputError, MissingPackageError

app = typer.Typer(add_completion=False)

_STOPPED = -1


class Options(NamedTuple):
    """The command's options, as given; None: not given."""

    backend: Optional[str]
    dense: bool
    budget: Optional[float]
    json_path: Optional[str]
    top: int
    hop: Optional[int]
    pad: bool
    limit: Optional[int]
    threads: Optional[int]
    quiet: bool
    power: Optional[str]
    power_interval_ms: Optional[float]
    power_total: Optional[str]
    power_idle: Optional[float]
    report: Optional[str]
    cuda_graph: bool
    precision: Optional[str]
    built_in_costs: bool


@app.command()
def run(
    bundle: str = typer.Argument(..., metavar="BUNDLE", help="Folder that dance-export wrote."),
    inputs: Optional[List[str]] = typer.Argument(
        None, metavar="INPUT...", help="Video files, folders of videos, a camera index, or an address (rtsp://...)."),
    backend: Optional[str] = typer.Option(
        None, "--backend", metavar="NAME", help="What computes: onnxruntime (default), tensorrt or reference."),
    dense: bool = typer.Option(False, "--dense", help="Run the network without gates, for comparison."),
    budget: Optional[float] = typer.Option(
        None, "--budget", metavar="SHARE", help="Share of the dense MACs to aim at, 0 to 1 (default: the bundle's)."),
    json_path: Optional[str] = typer.Option(
        None, "--json", metavar="FILE", help="Write one JSON object a line and window; '-' is stdout."),
    self_test: bool = typer.Option(False, "--self-test", help="Run the bundle's golden clip and compare."),
    top: int = typer.Option(5, "--top", metavar="K", min=1, help="Labels to name."),
    hop: Optional[int] = typer.Option(
        None, "--hop", metavar="FRAMES", min=1, help="Frames between the starts of two windows (default: no overlap)."),
    pad: bool = typer.Option(False, "--pad", help="Repeat the last frame of videos shorter than one window."),
    limit: Optional[int] = typer.Option(None, "--limit", metavar="N", min=1, help="Stop each input after N windows."),
    threads: Optional[int] = typer.Option(None, "--threads", metavar="N", min=1, max=entry.MAX_THREADS,
                                          help="CPU threads to compute with."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No line for each window."),
    power: Optional[str] = typer.Option(
        None, "--power", metavar="SOURCE", help="Measure energy: auto, ina3221, tegrastats, rapl, nvml or battery."),
    power_interval_ms: Optional[float] = typer.Option(
        None, "--power-interval-ms", metavar="MS", help="Time between power samples (default: 100)."),
    power_total: Optional[str] = typer.Option(
        None, "--power-total", metavar="RAIL[,RAIL]", help="Rails whose sum is the total, on boards not known."),
    power_idle: Optional[float] = typer.Option(
        None, "--power-idle", metavar="SECONDS", help="Idle measured before the first video (default: 5; 0: none)."),
    report: Optional[str] = typer.Option(
        None, "--report", metavar="FILE.html", help="Draw the run as one HTML page, complete in itself."),
    cuda_graph: bool = typer.Option(False, "--cuda-graph", help="Launch each engine as a CUDA graph (tensorrt only)."),
    precision: Optional[str] = typer.Option(
        None, "--precision", metavar="NAME", help="Of gated convolutions: fp32 (default), or bf16 where the processor "
        "has AVX512-BF16 (onnxruntime only)."),
    built_in_costs: bool = typer.Option(False, "--built-in-costs", help="Ignore what dance-bench tune found on this "
                                        "machine (onnxruntime only, not with --dense)."),
):
    """Run a bundle on videos: predictions, what each gate kept, MACs against dense, and latency."""
    options = Options(backend, dense, budget, json_path, top, hop, pad, limit, threads, quiet, power, power_interval_ms,
                      power_total, power_idle, report, cuda_graph, precision, built_in_costs)
    _check_costs(options)
    if self_test:
        if inputs:
            raise InputError("--self-test runs the bundle's own clip; name no INPUT with it")
        if dense or (budget, json_path, power, report) != (None,) * 4:
            raise InputError("--self-test compares gated and dense at the bundle's own budget and prints the verdicts; "
                             "--dense, --budget, --json, --report and --power do not go with it")
        raise typer.Exit(_self_test(bundle, options))
    if not inputs:
        raise InputError("no INPUT; name video files, folders, a camera index or an address, or use --self-test")
    raise typer.Exit(_run_inputs(bundle, inputs, options))


def main():
    entry.run(app)


def _check_outputs(bundle, inputs, options):
    """Raise InputError where a file to write is one that is read."""
    from dance_deploy.files import same_file
    for option, output in (("--json", options.json_path), ("--report", options.report)):
        if output is None or output == "-":
            continue
        if same_file(os.path.dirname(os.path.realpath(output)), bundle):
            raise InputError("{} '{}' lies in the bundle, which holds its own files only; name a place outside".format(
                option, output))
        if any(same_file(output, video.target) for video in inputs if not video.live):
            raise InputError("{} '{}' is an INPUT and would be replaced; give it another name".format(option, output))


def _run_inputs(path, arguments, options):
    """Run all inputs; returns the exit code. An input that fails is reported in one line, and the others still run."""
    from dance_deploy.runtime.records import JsonLines
    _check(options)
    codes, inputs = _expand(arguments)
    if not inputs:
        return max(codes)
    _check_outputs(path, inputs, options)
    log = run_report.opened_log(options.report, options.json_path)
    sink = JsonLines(options.json_path, any(i.live for i in inputs)) if options.json_path is not None else None
    try:
        with _open_runner(path, options) as runner, run_power.opened_meter(
                options.power, options.power_interval_ms, options.power_total, options.power_idle) as meter:
            accuracy = _accuracy(path, runner)
            codes += _Show(runner, options, sink, meter, log).run(inputs, accuracy)
            if log is not None and 0 in codes:
                mode = "; ".join([_mode(runner, options)] + accuracy)
                codes.append(run_report.write_report(log, options.report, path, runner, mode, options.power))
        if sink is not None and 0 in codes:
            sink.finish()
    finally:
        if sink is not None:
            sink.abandon()
    return max(codes)


def _accuracy(path, runner):
    """What bfloat16 costs, found on the bundle's own clip, as a list of one line; [] in any other precision."""
    if runner.backend.precision != "bf16":
        return []
    from dance_deploy.bundle import open_bundle
    from dance_deploy.runtime.selftest import golden_from_bundle, precision_note
    golden = golden_from_bundle(open_bundle(path, verify=False))
    return ["bfloat16 against float32 on the bundle's clip: " + precision_note(runner.backend, golden)]


def _mode(runner, options):
    """How the gates were used, in words."""
    if options.dense:
        return "dense: without gates"
    return "budget {:.2f}".format(runner.manifest.budget.default if options.budget is None else options.budget)


def _check(options):
    """Raise InputError for options that make no sense, before anything is loaded."""
    from dance_deploy.runtime.runner import checked_budget
    if options.dense and options.budget is not None:
        raise InputError("--budget steers the gates and --dense runs without them; give one of the two")
    if options.dense and options.precision not in (None, "fp32"):
        raise InputError("--precision {} is of the gated convolutions and --dense runs without them; give one of the "
                         "two".format(options.precision))
    if options.budget is not None:
        checked_budget(options.budget)
    if options.power is None and (options.power_interval_ms, options.power_total, options.power_idle) != (None,) * 3:
        raise InputError("--power-interval-ms, --power-total and --power-idle say how --power measures; "
                         "add --power auto")


def _check_costs(options):
    """Raise InputError where --built-in-costs is given and no kernels choose by them."""
    from dance_deploy.runtime import backends
    backend = options.backend or backends.DEFAULT
    backends.check_name(backend)
    if options.built_in_costs and (options.dense or backend != backends.DEFAULT):
        raise InputError("--built-in-costs is about the choice of the CPU kernels, and {} runs without them; "
                         "give one of the two".format(
                             "--dense" if options.dense else "--backend " + backend))


def _expand(arguments):
    """(exit codes of the arguments that name nothing, Inputs of the others)."""
    from dance_deploy.runtime.streaming import inputs_from_argument
    codes, inputs = [], []
    for argument in arguments:
        try:
            inputs.extend(inputs_from_argument(argument))
        except InputError as error:
            codes.append(entry.fail(error))
    return codes, inputs


def _open_runner(path, options, **graphs):
    from dance_deploy.runtime import backends
    from dance_deploy.runtime.runner import open_runner
    graphs = graphs or {"gated": not options.dense, "dense": options.dense}
    runner = open_runner(path, options.backend or backends.DEFAULT, threads=options.threads,
                         precision=options.precision, tuned_costs=not options.built_in_costs, **graphs)
    if options.cuda_graph:
        try:
            runner.backend.use_cuda_graphs()
        except DanceError:
            runner.close()
            raise
    return runner


class _Show(object):
    """Runs inputs one after the other and passes what comes to the terminal and the JSON lines."""

    def __init__(self, runner, options, sink, meter, log):
        self._runner = runner
        self._options = options
        self._sink = sink
        self._meter = meter
        self._log = log
        self._records = run_power.PendingRecords(meter, run_report.Sinks(sink, log))
        # stdout belongs to the JSON lines where they go there
        out = None if options.json_path == "-" else sys.stdout
        self._report = run_text.Report(out, runner.manifest, options.dense)
        shows_lines = out is not None and sys.stdout.isatty() and not options.quiet
        self._progress = run_text.Progress(sys.stderr, sys.stderr.isatty() and not shows_lines)

    def run(self, inputs, notes):
        """Exit codes, one an input. notes: lines for below the first one."""
        budget = self._runner.manifest.budget.default if self._options.budget is None else self._options.budget
        self._report.head(self._runner.backend, budget)
        self._report.lines(notes)
        codes = []
        for source in inputs:
            position = self._sink.position() if self._sink else None
            try:
                codes.append(self._run_one(source))
            except MissingPackageError:
                raise  # every input would say the same
            except DanceError as error:
                self._progress.clear()
                sys.stdout.flush()
                if self._sink:
                    if self._sink.failed:
                        raise  # as above
                    self._sink.rewind(position)
                if self._log:
                    self._log.drop_video(str(error))
                codes.append(entry.fail(error))
            if codes[-1] == _STOPPED:
                codes[-1] = 0
                break
        self._report.foot()
        return codes

    def _run_one(self, source):
        """0, or _STOPPED where Ctrl-C ended a live source, which has no other end."""
        from dance_deploy.runtime.streaming import results
        options, tally, code = self._options, run_text.VideoTally(), 0
        self._report.video(source.name)
        self._records.begin_video()
        if self._log:
            self._log.begin_video(source.name)
        found = results(self._runner, source, budget=options.budget, dense=options.dense, hop=options.hop,
                        pad=options.pad, limit=options.limit)
        try:
            for item in found:
                tally.add(item)
                self._show(source, item, tally)
        except KeyboardInterrupt:
            if not source.live:
                raise
            code = _STOPPED
        finally:
            found.close()
            self._progress.clear()
        video = self._records.end_video()
        self._report.summary(tally, options.top)
        if video is not None:
            self._report.lines(run_power.energy_lines(video, self._meter.error))
        if self._log:
            run_report.end_video(self._log, tally, self._runner.manifest.model.labels, video,
                                 self._meter.error if self._meter else None)
        return code

    def _show(self, source, item, tally):
        from dance_deploy.runtime.records import record_from_result
        self._records.add(lambda: record_from_result(source.name, item.window, item.result, self._runner.manifest,
                                                     self._runner.backend, self._options.top))
        if not self._options.quiet:
            self._report.window(item.window, item.result)
        self._progress.show("{}: {} windows, {:.0f} s".format(source.name, tally.windows, item.window.end_s))


def _self_test(path, options):
    """0 where this machine computes what the export computed, else 1."""
    from dance_deploy.bundle import open_bundle
    from dance_deploy.runtime.selftest import golden_from_bundle, run_checks
    with _open_runner(path, options, gated=True, dense=True) as runner:
        print("{} on {}: {}".format(runner.manifest.model.name, runner.backend.name, runner.backend.description))
        checks = run_checks(runner, golden_from_bundle(open_bundle(path, verify=False)))
    for check in checks:
        print("{}  {}: {}".format("PASS" if check.passed else "FAIL", check.name, check.detail))
    failed = sum(not check.passed for check in checks)
    print("self-test: " + ("all {} checks passed".format(len(checks)) if not failed else
                           "{} of {} checks failed".format(failed, len(checks))))
    return 1 if failed else 0


if __name__ == "__main__":
    main()
