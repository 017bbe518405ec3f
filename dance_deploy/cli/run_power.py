"""dance-run --power: opens the source, holds JSON records back until their joules are known, says what a video took."""
import contextlib
import math

from dance_deploy.errors import InputError, OperationError
from dance_deploy.quantities import joules

DEFAULT_IDLE_S = 5.0


@contextlib.contextmanager
def opened_meter(spec, interval_ms, total, idle_s):
    """A running Meter on the source that --power names; None where spec is None."""
    if spec is None:
        yield None
        return
    from dance_deploy.cli.power import open_from_options
    from dance_deploy.power import boards
    from dance_deploy.power.meter import Meter
    idle_s = DEFAULT_IDLE_S if idle_s is None else idle_s
    if not 0.0 <= idle_s <= 3600.0:
        raise InputError("--power-idle is {:g} s, expected 0 to 3600".format(idle_s))
    with contextlib.closing(open_from_options(spec, interval_ms, total)) as source:
        if not source.total_rails:
            raise OperationError(("; ".join(source.warnings) or boards.unknown_total(source.rails)).replace(
                "--total", "--power-total"))
        with Meter(source, idle_s) as meter:
            yield meter


class PendingRecords(object):
    """Between the windows and the sink: a record waits until its energy is known. Without a meter nothing waits."""

    def __init__(self, meter, sink):
        """meter, sink: either may be None."""
        self._meter = meter
        self._sink = sink
        self._waiting = []

    def begin_video(self):
        self._waiting = []
        if self._meter:
            self._meter.begin_video()

    def add(self, make_record):
        """A window ended just now. make_record() -> its record, energy_j null; not called without a sink."""
        if self._meter:
            self._meter.close_window()
        if self._sink:
            self._waiting.append(make_record())
        self._pass_on(self._meter.ready() if self._meter else [None])

    def end_video(self):
        """Wait for the last samples; all records are out then. Returns the VideoEnergy, None without a meter."""
        if not self._meter:
            return None
        self._pass_on(self._meter.settle())
        return self._meter.video()

    def _pass_on(self, energies_j):
        if self._sink:
            for record, energy_j in zip(self._waiting, energies_j):
                self._sink.write(dict(record, energy_j=None if energy_j is None else round(energy_j, 6)))
            del self._waiting[:len(energies_j)]


def energy_note(video, error):
    """Why a video's energy is unknown, in words; None where it is known. error: why the source ended, or None."""
    if math.isfinite(video.energy_j.estimate):
        return None
    if video.missing_s:
        return "{:.2f} of {:.2f} s are not measured{}".format(video.missing_s, video.seconds,
                                                              "; " + error if error else "")
    return "{} samples in {:.3f} s are too few; sample faster or run longer".format(video.samples, video.seconds)


def energy_lines(video, error):
    """The lines below a video. video: VideoEnergy; error: why the source ended, or None."""
    if not video.windows:
        return
    note = energy_note(video, error)
    if note is not None:
        yield "    energy unknown: " + note
        return
    yield "    {} a window{}, {} above idle{}".format(
        joules(video.energy_j.estimate), _interval(video.energy_j),
        joules(video.above_idle_j.estimate if math.isfinite(video.above_idle_j.estimate) else None),
        _interval(video.above_idle_j))
    yield "    {} over {:.2f} s, {} samples, one every {:.4g} s".format(
        joules(video.energy_j.estimate * video.windows), video.seconds, video.samples, video.period_s)


def _interval(interval):
    if not interval.finite:
        return " (no interval)"
    return " (95 % {} to {})".format(joules(interval.low), joules(interval.high))
