"""A child process whose lines are stamped when they arrive, by a thread: a busy reader falsifies no times."""
import collections
import errno
import fcntl
import os
import select
import subprocess
import termios
import threading
import time

from dance_deploy.errors import OperationError

# nobody reads for an hour at 100 samples a second: then the oldest go
_MOST_WAITING = 360000


class LineProcess(object):
    """Runs `command` (a list) and collects its lines, stdout and stderr.

    The child writes to a terminal of its own, because programs keep their output back in blocks where it goes to a
    pipe; and it dies with that terminal, should this process be killed. clock: seconds, monotonic. longest: characters
    of a line; longer ones are dropped.
    """

    def __init__(self, command, clock=time.monotonic, longest=16384):
        self._clock = clock
        self._longest = longest
        self._arrived = threading.Condition()
        self._lines = collections.deque(maxlen=_MOST_WAITING)
        self._ended = False
        self._stopping = threading.Lock()
        self._last_s = clock()
        self._wake_out, self._wake_in = os.pipe()
        try:
            self._process, self._output = _spawned(command)
        except OSError as error:
            os.close(self._wake_out)
            os.close(self._wake_in)
            raise OperationError("'{}' cannot be run: {}".format(command[0], error.strerror)) from error
        self._thread = threading.Thread(target=self._run, name="lines-of-" + os.path.basename(command[0]))
        self._thread.daemon = True
        self._thread.start()

    def next_line(self, patience_s):
        """(time_s, text, number of lines that arrived at once) of the next line.

        time_s: its arrival; lines that arrived at once are spread evenly between the arrival before and theirs. None
        where the process ended and all is read. Raises OperationError where none comes for patience_s seconds.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._lines or self._ended, patience_s):
                raise OperationError("it printed nothing for {:g} s".format(patience_s))
            return self._lines.popleft() if self._lines else None

    def exit_text(self):
        """How it ended, in words, for a process that did."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return "it was ended by signal {}".format(-code) if code < 0 else "it ended with exit code {}".format(code)

    def stop(self):
        """End the process and wait for it; wakes a next_line() that waits. More than once is fine."""
        with self._stopping:
            if self._output is None:
                return
            os.write(self._wake_in, b"x")
            self._thread.join()
            _end(self._process, self._output)
            self._output = None
            os.close(self._wake_in)
            os.close(self._wake_out)

    def _run(self):
        rest = b""
        while True:
            readable, _, _ = select.select([self._output, self._wake_out], [], [])
            data = b"" if self._wake_out in readable else _read(self._output)
            time_s = self._clock()
            if not data:
                break  # a rest without newline is a line cut in half
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > self._longest:
                rest = rest[:self._longest + 1]  # stays too long until its newline comes
            kept = [line.decode("utf-8", "replace") for line in lines if len(line) <= self._longest]
            if kept:
                step_s, self._last_s = (time_s - self._last_s) / len(kept), time_s
                with self._arrived:
                    self._lines.extend((time_s - step_s * (len(kept) - i), line, len(kept))
                                       for i, line in enumerate(kept, 1))
                    self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()


def _spawned(command):
    """(Popen, file descriptor to read from)."""
    try:
        ours, theirs = os.openpty()
    except OSError:  # no /dev/ptmx, as in some containers: a pipe has to do
        ours, theirs = os.pipe()
        terminal = False
    else:
        terminal = True
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, close_fds=True,
                                   start_new_session=True, preexec_fn=_take_terminal if terminal else None)
    except (OSError, subprocess.SubprocessError) as error:
        os.close(ours)
        if isinstance(error, OSError):
            raise
        raise OSError(errno.ENOEXEC, str(error)) from error
    finally:
        os.close(theirs)
    return process, ours


def _end(process, output):
    """Terminate, close our end of its output, wait; kill what does not obey."""
    try:
        process.terminate()
    except OSError:  # a program that runs as root by sudo; closing its terminal hangs it up all the same
        pass
    os.close(output)
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        try:
            process.kill()
        except OSError:
            return
        process.wait()


def _take_terminal():
    """In the child: stdout becomes the terminal that controls it, so that it is hung up when our end closes."""
    try:
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    except OSError:
        pass


def _read(descriptor):
    """Some bytes; b"" at the end (which a terminal tells as an error)."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
