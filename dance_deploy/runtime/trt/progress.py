"""What a long build is doing, for people at a terminal; quiet elsewhere."""
import sys
import threading
import time

_TICK_S = 0.5


class Progress(object):
    """Shows the step under way and the seconds it takes; use it as a context. stream: where; default: stderr."""

    def __init__(self, stream=None):
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._step, self._phase, self._width = "", "", 0
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        if self._shows:
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._write("")

    def step(self, text):
        """A new step begins."""
        with self._lock:
            self._step, self._phase = text, ""
        if self._shows:
            self._draw()

    def phase(self, name, step, steps):
        """Called by TensorRT's progress monitor (10 and newer); older ones show the step and its time alone."""
        with self._lock:
            self._phase = name if not steps else "{} {}/{}".format(name, step + 1, steps)

    def _tick(self):
        while not self._stop.wait(_TICK_S):
            self._draw()

    def _draw(self):
        with self._lock:
            text = " · ".join(part for part in (self._step, self._phase) if part)
        self._write("[{:5.0f} s] {}".format(time.monotonic() - self._started, text)[:110])

    def _write(self, line):
        self._stream.write("\r" + line.ljust(self._width) + ("\r" if not line else ""))
        self._stream.flush()
        self._width = len(line)
