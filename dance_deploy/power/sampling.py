"""A thread that reads a source while something else runs."""
import threading
import time

from dance_deploy.errors import OperationError

# a source that is this late is taken for hung: it ends no run, it is reported
_LEAST_PATIENCE_S = 2.0


class Sampler(object):
    """Reads an opened source in a thread until stop(). A source that dies ends the samples, never the run.

    error: the line of the OperationError that ended the samples, or None; died_s: when (monotonic).
    """

    def __init__(self, source, clock=time.monotonic):
        self._source = source
        self._clock = clock
        self._readings = []
        self._news = threading.Condition()
        self._stopping = False
        self._bug = None
        self._thread = threading.Thread(target=self._run, name="power-" + source.name)
        self._thread.daemon = True
        self.error = None
        self.died_s = None

    def start(self, patience_s=10.0):
        """Start and wait for the first sample. Raises OperationError where none comes."""
        self._thread.start()
        with self._news:
            came = self._news.wait_for(lambda: self._readings or self._over(), patience_s)
            error = self.error
        if self._bug is not None or error is not None or not came:
            self.stop()
            raise OperationError(error or "power source '{}' gave no sample in {:g} s; check it with: "
                                 "dance-power sources".format(self._source.name, patience_s))
        return self

    def wait_for_sample(self, time_s, period_s):
        """Wait until a sample at or after time_s is there. False where the source died or is silent for long.
        period_s: seconds between samples as they come."""
        patience_s = max(_LEAST_PATIENCE_S, 5.0 * period_s) + max(0.0, time_s - self._clock())
        with self._news:
            return bool(self._news.wait_for(lambda: self._reached(time_s) or self._over(), patience_s)
                        and self._reached(time_s))

    def reached(self, time_s):
        """Whether a sample at or after time_s is there."""
        with self._news:
            return self._reached(time_s)

    @property
    def over(self):
        """Whether no further sample will come."""
        with self._news:
            return self._over()

    def readings(self):
        """The Readings so far, those forgotten left out."""
        with self._news:
            return list(self._readings)

    def forget_before(self, time_s, keep):
        """Drop the Readings before the last one at or before time_s, but not the newest `keep`: runs may be endless."""
        with self._news:
            last = len(self._readings) - keep
            first = next((i for i in range(last) if self._readings[i + 1].time_s > time_s), last)
            del self._readings[:max(0, first)]

    def stop(self):
        """End the thread and close the source; a bug of a source's code comes out here."""
        self._stopping = True
        self._source.close()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug

    def _reached(self, time_s):
        return bool(self._readings) and self._readings[-1].time_s >= time_s

    def _over(self):
        return self.error is not None or self._bug is not None or self._stopping

    def _run(self):
        error = bug = None
        try:
            while not self._stopping:
                reading = self._source.read()
                with self._news:
                    self._readings.append(reading)
                    self._news.notify_all()
        except OperationError as caught:
            error = str(caught)
        except BaseException as caught:
            bug = caught
        with self._news:
            if not self._stopping:  # closing a source ends its read(): that is no death
                self.error, self._bug, self.died_s = error, bug, self._clock()
            self._news.notify_all()
