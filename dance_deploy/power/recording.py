"""Measuring commands: idle first, then runs, repeated until the interval is tight enough. The result is a Recording."""
import datetime
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from dance_deploy.errors import InputError
from dance_deploy.power import environment
from dance_deploy.power.sampling import Sampler
from dance_deploy.power.trace import Trace, period_of, trace_from_readings

IDLE, RUN, A, B = "idle", "run", "a", "b"
_STDERR = 2
_RECENT = 50
# monotonic and wall clock may drift apart by so much before a step is reported
_CLOCK_STEP_S = 1.0


class Window(NamedTuple):
    """One measured stretch. label: IDLE, RUN, A or B; exit_code: of its command, None for idle; before, after:
    environment.snapshot()s."""

    label: str
    start_s: float
    end_s: float
    exit_code: Optional[int]
    before: Dict[str, Any]
    after: Dict[str, Any]


class SourceFacts(NamedTuple):
    """What a Source said of itself when it was opened."""

    name: str
    kind: str
    rails: Tuple[str, ...]
    total_rails: Tuple[str, ...]
    scope: str
    estimate: bool
    interval_s: Optional[float]


class Recording(NamedTuple):
    """All that was measured; seconds count from its start. commands: {label: argv}; started_at: UTC, ISO 8601."""

    source: SourceFacts
    commands: Dict[str, List[str]]
    started_at: str
    trace: Trace
    windows: Tuple[Window, ...]
    warnings: Tuple[str, ...]


class Plan(NamedTuple):
    """idle_s: seconds of idle measured first; warmup: runs before that count for nothing; least, most: runs of each
    command; precision: stop once half the 95 % interval is this share of the estimate, None: stop at `least`;
    settle_s: pause before each run."""

    idle_s: float = 5.0
    warmup: int = 0
    least: int = 1
    most: int = 1
    precision: Optional[float] = None
    settle_s: float = 0.5


def facts_from_source(source):
    return SourceFacts(source.name, source.kind, tuple(source.rails), tuple(source.total_rails), source.scope,
                       bool(source.estimate), getattr(source, "interval_s", None))


class Recorder(object):
    """A source being sampled, and the windows marked on it. Use as a context manager."""

    def __init__(self, source, root="/", clock=time.monotonic, say=None):
        """source: opened; root: where environment snapshots read; say: called with a line of progress."""
        self._sampler = Sampler(source, clock)
        self._facts = facts_from_source(source)
        self._root, self._clock = root, clock
        self._say = say or (lambda line: None)
        self._windows, self._commands = [], {}
        self._source = source

    def __enter__(self):
        self._sampler.start()
        self._origin_s, self._origin_wall = self._clock(), _utc_now()
        return self

    def __exit__(self, *_):
        self._sampler.stop()

    @property
    def over(self):
        """Whether the source died."""
        return self._sampler.over

    def idle(self, seconds):
        """Measure the machine doing nothing of ours."""
        self._say("idle for {:g} s".format(seconds))
        self._measure(IDLE, lambda: time.sleep(seconds))

    def run(self, label, argv):
        """Run a command inside a window; returns its exit code. Its output goes to stderr."""
        self._commands[label] = list(argv)
        return self._measure(label, lambda: run_command(argv))

    def recording(self):
        """The Recording so far."""
        trace = trace_from_readings(self._sampler.readings(), self._facts.kind, self._facts.rails)
        origin = self._origin_s
        windows = tuple(w._replace(start_s=w.start_s - origin, end_s=w.end_s - origin) for w in self._windows)
        return Recording(self._facts, dict(self._commands), self._origin_wall.strftime("%Y-%m-%dT%H:%M:%SZ"),
                         trace._replace(time_s=trace.time_s - origin), windows, tuple(self._all_warnings(trace)))

    def _measure(self, label, work):
        before, start_s = environment.snapshot(self._root), self._clock()
        exit_code = work()
        end_s = self._clock()
        after = environment.snapshot(self._root)
        self._windows.append(Window(label, start_s, end_s, exit_code, before, after))
        # the last interval of the window is only known when the sample after its end is there
        self._sampler.wait_for_sample(end_s, self._period_s())
        return exit_code

    def _period_s(self):
        recent = trace_from_readings(self._sampler.readings()[-_RECENT:], self._facts.kind)
        median_s = period_of(recent).median_s
        return median_s if median_s == median_s else (self._facts.interval_s or 1.0)

    def _all_warnings(self, trace):
        found = list(self._source.warnings)  # it may have found some while it was read
        if self._sampler.error is not None:
            found.append("power source '{}' died after {:.1f} s: {}; energy after that is unknown".format(
                self._facts.name, self._sampler.died_s - self._origin_s, self._sampler.error))
        if trace.dropped:
            found.append("{} samples dropped: their time did not advance".format(trace.dropped))
        passed_s = self._clock() - self._origin_s
        stepped_s = (_utc_now() - self._origin_wall).total_seconds() - passed_s
        if abs(stepped_s) > _CLOCK_STEP_S:
            found.append("the system clock was set by {:+.1f} s meanwhile; times and energies here come from the "
                         "monotonic clock and are not affected".format(stepped_s))
        measured = [window for window in self._windows if window.label != IDLE]
        if measured:
            found += environment.warnings(measured[0].before, measured[-1].after, "during the runs")
            found += environment.clock_warnings(measured[0].before, measured[-1].before, "between first and last run")
        return found


def _utc_now():
    return datetime.datetime.now(datetime.timezone.utc)


def record(recorder, argv, plan, half_width):
    """Measure a command by `plan`. half_width(recording) -> half the interval's width, relative. Returns the exit code
    of the run that failed, else 0."""
    return _repeat(recorder, [(RUN, argv)], plan, half_width)


def compare(recorder, argv_a, argv_b, plan, half_width):
    """Measure two commands by turns: A B, B A, A B, ... so that drift hits both alike."""
    return _repeat(recorder, [(A, argv_a), (B, argv_b)], plan, half_width)


def _repeat(recorder, commands, plan, half_width):
    for _ in range(plan.warmup):
        for _, argv in commands:
            if run_command(argv):
                return 1
    if plan.idle_s > 0.0:
        time.sleep(plan.settle_s if plan.warmup else 0.0)
        recorder.idle(plan.idle_s)
    for count in range(1, plan.most + 1):
        for label, argv in commands if count % 2 else reversed(commands):
            time.sleep(plan.settle_s)
            code = recorder.run(label, argv)
            if code:
                return code
        if recorder.over:
            break  # more runs would not be measured
        if count >= plan.least and (plan.precision is None or half_width(recorder.recording()) <= plan.precision):
            break
    return 0


def run_command(argv):
    """Run a command to its end, output to stderr; returns its exit code. Raises InputError where it cannot start."""
    try:
        process = subprocess.Popen(list(argv), stdout=_STDERR)
    except FileNotFoundError:
        raise InputError("command '{}' is not there; write it as you would in a shell, after --".format(
            argv[0])) from None
    except OSError as error:
        raise InputError("command '{}' cannot be started: {}".format(argv[0], error.strerror)) from error
    try:
        return process.wait()
    except BaseException:  # Ctrl-C: the child got it too, if it shares our terminal; it must not outlive us
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def checked_plan(plan):
    """`plan`; raises InputError for numbers that make no sense."""
    if not 0.0 <= plan.idle_s <= 3600.0 or not 0.0 <= plan.settle_s <= 3600.0:
        raise InputError("idle and settle times are {:g} s and {:g} s, expected 0 to 3600".format(
            plan.idle_s, plan.settle_s))
    if not 1 <= plan.least <= plan.most:
        raise InputError("at least {} and at most {} runs; expected 1 <= least <= most".format(plan.least, plan.most))
    if plan.precision is not None and not 0.0 < plan.precision < 1.0:
        raise InputError("precision is {:g} %, expected above 0 and below 100".format(100.0 * plan.precision))
    return plan
