"""tegrastats as a power source: a running process. A log as one: tegrastats_log.py."""
import collections
import os
import shutil
import time

from dance_deploy.errors import OperationError
from dance_deploy.power import boards
from dance_deploy.power.line_process import LineProcess
from dance_deploy.power.source import Reading, Source, checked_interval
from dance_deploy.power.tegrastats import LONGEST_LINE, sample_from_line

# a first line may be cut; what has no rails in this many samples has none
_SAMPLES_WITHOUT_RAILS = 3
# one sample may be torn by a burst between two rails; labels that contradict each other this often are wrong
_SAMPLES_AGAINST_LABELS = 5
# lines at once: one more than a busy machine makes of a terminal's lines
_BLOCK = 4
_IN_BLOCKS = "tegrastats' lines come in blocks: each sample's time is an estimate"
# the sensor is off; the PMIC's zone is a constant
_NO_TEMPERATURE_C = -256


class TegrastatsSource(Source):
    """The rails that tegrastats prints, in mW.

    command: list of words that starts it, None: the one of this machine; "--interval MS" is added. interval_s: asked
    for; what comes is some per cent slower. clock: seconds, monotonic; each sample is stamped when its line arrives.
    root: the folder that stands for "/", for the device tree. patience_s: how long nothing may come.
    """

    name = "tegrastats"

    def __init__(self, command=None, interval_s=0.1, clock=time.monotonic, root="/", patience_s=10.0):
        super(TegrastatsSource, self).__init__()
        self.interval_s = checked_interval(interval_s)
        self._command = command
        self._clock = clock
        self._root = root
        self._patience_s = max(patience_s, 5.0 * self.interval_s)
        self._process = None
        self._closed = False
        self._waiting = collections.deque()
        self._others = collections.deque(maxlen=3)

    def open(self):
        command = list(self._command or [_program()])
        self._process = LineProcess(command + ["--interval", str(max(1, int(round(self.interval_s * 1e3))))],
                                    clock=self._clock, longest=LONGEST_LINE)
        try:
            self._look()
        except BaseException:  # no process stays behind, asking nobody for a password
            self.close()
            raise

    def _look(self):
        """Take the first samples and learn from them what is measured."""
        first = self._first_with_rails()
        known = boards.Boards(machine=boards.machine_names(self._root))
        self._waiting.append(first)
        learn(self, first[1], known)
        while known.board(_labels(first[1])).total and not self.total_rails \
                and len(self._waiting) < _SAMPLES_AGAINST_LABELS:
            self._waiting.append(self._next_sample())
            if _labels(self._waiting[-1][1]) == _labels(first[1]):
                learn(self, self._waiting[-1][1], known)

    def read(self):
        while True:
            time_s, sample = self._waiting.popleft() if self._waiting else self._next_sample()
            if sample.rails:  # not in a line cut before them
                return Reading(time_s, rails_mw(sample), extra(sample))

    def close(self):
        self._closed = True
        if self._process is not None:
            self._process.stop()

    def _first_with_rails(self):
        for _ in range(_SAMPLES_WITHOUT_RAILS):
            stamped = self._next_sample()
            if stamped[1].rails:
                return stamped
        raise OperationError(
            "tegrastats: it prints no power rails on this board (TK1, TX2 NX, some carriers and robots have no power "
            "monitor that it reads); measure with an external meter, or see what else is here: dance-power sources")

    def _next_sample(self):
        """(time_s, Sample) of the next line that holds one."""
        while True:
            try:
                stamped = None if self._closed else self._process.next_line(self._patience_s)
            except OperationError as error:
                raise OperationError("tegrastats: {}{}; try it by hand: {}".format(
                    error, self._last_words(), " ".join(self._command or ["tegrastats"]))) from error
            if stamped is None:
                raise OperationError("power source 'tegrastats' was closed" if self._closed else
                                     "tegrastats: {}{}".format(self._process.exit_text(), self._last_words()))
            time_s, line, at_once = stamped
            sample = sample_from_line(line)
            if sample is not None:
                if at_once >= _BLOCK and _IN_BLOCKS not in self.warnings:
                    self.warnings.append(_IN_BLOCKS)
                return time_s, sample
            if line.strip():
                self._others.append(line.strip())

    def _last_words(self):
        printable = ["".join(c if c.isprintable() else "?" for c in line)[:200] for line in self._others]
        return "; it said: " + " / ".join(printable) if printable else ""


def learn(source, sample, known):
    """Set rails, total, scope and warnings of `source` from a Sample with rails. known: boards.Boards."""
    source.rails = tuple(rails_mw(sample))
    board = known.board(_labels(sample))
    wrong = boards.total_mw(sample.rails, board)[1]
    source.warnings = [] if wrong is None else [wrong]
    if wrong is None:
        source.total_rails = board.total.rails
        source.scope = board.total.scope


def rails_mw(sample):
    """Instantaneous milliwatts by label, without channels that are not connected; a label that repeats is numbered."""
    found = {}
    for rail in sample.rails:
        if rail.label != boards.NOT_CONNECTED:
            label, copy = rail.label, 1
            while label in found:
                copy += 1
                label = "{} ({})".format(rail.label, copy)
            found[label] = float(rail.now_mw)
    return found


def extra(sample):
    """What a sample says besides power, and is a measurement."""
    found = {"temps_c": {temp[0]: temp[1] for temp in sample.temps_c
                         if temp[1] != _NO_TEMPERATURE_C and temp[0] != "PMIC"}}
    if sample.cpu_load_pct:
        found["cpu_load_pct"] = list(sample.cpu_load_pct)
    if sample.gpu_load_pct is not None:
        found["gpu_load_pct"] = sample.gpu_load_pct
    if sample.emc_load_pct is not None and sample.emc_mhz is not None:  # without root it is a constant 0, no clock
        found["emc_load_pct"] = sample.emc_load_pct
    return found


def _labels(sample):
    return tuple(rail.label for rail in sample.rails)


def _program():
    """Path of this machine's tegrastats; up to L4T R28.1 it lies in the home folder."""
    usual = ("/usr/bin/tegrastats", os.path.expanduser("~/tegrastats"))
    found = shutil.which("tegrastats") or next((path for path in usual if os.access(path, os.X_OK)), None)
    if found is None:
        raise OperationError("tegrastats: there is no such program here, it comes with NVIDIA's Jetson Linux; on "
                             "another machine see what is there: dance-power sources")
    return found
