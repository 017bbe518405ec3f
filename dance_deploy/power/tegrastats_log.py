"""A tegrastats log as a power source: as fast as it is read, or at a pace."""
import threading
import time
from datetime import datetime

from dance_deploy.errors import InputError, OperationError
from dance_deploy.power import boards
from dance_deploy.power.parse_log import lines_of
from dance_deploy.power.source import Reading, Source, checked_interval
from dance_deploy.power.tegrastats import sample_from_line
from dance_deploy.power.tegrastats_source import extra, learn, rails_mw

# printed times are whole seconds: over this span the period is right to 5 % at worst
_LEAST_SPAN_S = 20.0


class TegrastatsLogSource(Source):
    """The samples of the log at `path`, one after the other; sample i stands at open() + i * period_s.

    period_s: seconds between two samples, None: from the printed times, which only R34 and newer have. speed: 1 is the
    pace at which it was recorded, 10 ten times that, None does not wait. clock: seconds, monotonic. wait: as
    PolledSource's. read() raises OperationError at the end of the log.
    """

    name = "tegrastats-log"

    def __init__(self, path, period_s=None, speed=None, clock=time.monotonic, wait=None):
        super(TegrastatsLogSource, self).__init__()
        if speed is not None and not 0.0 < speed <= 1e6:
            raise InputError("replay speed is {!r}, expected a number above 0, 1 for the pace of the recording".format(
                speed))
        self._path = path
        self.interval_s = None if period_s is None else checked_interval(period_s)
        self._speed = speed
        self._clock = clock
        self._closed = threading.Event()
        self._wait = self._closed.wait if wait is None else wait
        self._samples = None
        self._start_s = None
        self._at = 0

    def open(self):
        first = self._first_with_rails()
        if self.interval_s is None:
            self.interval_s = checked_interval(self._period_s())
        learn(self, first, boards.Boards())
        self._samples = self._read_samples()
        self._start_s = self._clock()

    def read(self):
        for sample in self._samples:
            if self._closed.is_set():
                break
            at_s = self._at * self.interval_s
            self._at += 1
            if not sample.rails:  # a line cut before them: a gap
                continue
            ahead_s = 0.0 if self._speed is None else self._start_s + at_s / self._speed - self._clock()
            if ahead_s > 0.0 and self._wait(ahead_s):
                break
            return Reading(self._start_s + at_s, rails_mw(sample), extra(sample))
        raise OperationError("power source 'tegrastats-log' was closed" if self._closed.is_set() else
                             "log '{}': it ends after {} samples".format(self._path, self._at))

    def close(self):
        self._closed.set()

    def _first_with_rails(self):
        lines = 0
        for sample in self._read_samples():
            lines += 1
            if sample.rails:
                return sample
        raise OperationError("log '{}': {}".format(self._path, "it holds no sample of tegrastats" if not lines else
                                                   "none of its {} samples has power rails".format(lines)))

    def _period_s(self):
        """Mean seconds between samples by the printed times. Raises InputError where these cannot tell."""
        times = [sample.timestamp for sample in self._read_samples()]
        missing = ("log '{}': {}; say how far apart its samples are, the interval it was recorded with (--interval-ms, "
                   "in dance-run --power-interval-ms)")
        if not times or None in times:
            raise InputError(missing.format(self._path, "its lines have no date and time"))
        try:
            seconds = [datetime.strptime(text, "%m-%d-%Y %H:%M:%S") for text in times]
        except ValueError:
            raise InputError(missing.format(self._path, "one of its times is none")) from None
        if any(later < earlier for earlier, later in zip(seconds, seconds[1:])):
            raise InputError(missing.format(self._path, "its clock was set back on the way"))
        span_s = (seconds[-1] - seconds[0]).total_seconds()
        if span_s < _LEAST_SPAN_S:
            raise InputError(missing.format(self._path, "it lasts {:g} s, its times are whole seconds".format(span_s)))
        return span_s / (len(seconds) - 1)

    def _read_samples(self):
        try:
            with open(self._path, "rb") as stream:
                for line in lines_of(stream):
                    sample = sample_from_line(line)
                    if sample is not None:
                        yield sample
        except OSError as error:
            raise InputError("log '{}' cannot be read: {}".format(self._path, error.strerror)) from error
