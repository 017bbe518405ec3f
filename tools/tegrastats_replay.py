#!/usr/bin/env python3
"""Behaves like NVIDIA's tegrastats, from a log: for trying out what reads tegrastats on a machine that has none.

    tegrastats_replay.py --log LOG [--interval MS] [--logfile FILE] [--start | --stop] [--at-end loop|hold|exit]

It prints the log's samples byte for byte, one an interval (default 1000 ms), and like the real one never ends by
itself. Lines of the log that are no samples are left out. --start makes a daemon that outlives its caller, --stop ends
it. To stand in for `tegrastats` by name, put this into an executable file of that name, in a folder on the PATH:

    #!/bin/sh
    exec /path/to/tegrastats_replay.py --log /path/to/LOG "$@"

Standard library only, Python 3.6 and newer. Exit codes: 0 good, 1 failed, 2 wrong usage.
"""
import argparse
import errno
import fcntl
import os
import re
import signal
import sys
import tempfile
import time

_SAMPLE = re.compile(br"(?:^|[^A-Za-z])RAM \d+/\d+MB .*\b[Cc][Pp][Uu] \[")


def main(arguments=None):
    options = _options(arguments)
    try:
        if options.stop:
            return _stop(options.pid_file)
        samples = _samples(options.log)
        lock = _locked(options.pid_file) if options.start else None
        output = _opened(options.logfile)
        if options.start and not _became_daemon(lock, options.logfile):
            return 0
        _print_samples(samples, output, options)
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        sys.stderr.write("tegrastats_replay: {}\n".format(error))
        return 1
    except ValueError as error:
        sys.stderr.write("tegrastats_replay: {}\n".format(error))
        return 2


def _options(arguments):
    parser = argparse.ArgumentParser(description="Behaves like tegrastats, from a log.")
    parser.add_argument("--interval", type=int, default=1000, metavar="MS", help="between two samples (default: 1000)")
    parser.add_argument("--logfile", metavar="FILE", help="write there instead of stdout")
    parser.add_argument("--start", action="store_true", help="run as a daemon")
    parser.add_argument("--stop", action="store_true", help="end the daemon")
    parser.add_argument("--verbose", action="store_true", help="accepted, as the real one does; no effect")
    parser.add_argument("--readall", action="store_true", help="accepted, as the real one does; no effect")
    parser.add_argument("--log", metavar="LOG", help="the log to replay")
    parser.add_argument("--at-end", choices=("loop", "hold", "exit"), default="loop",
                        help="after the last sample: begin again, repeat the last one, or end (default: loop)")
    parser.add_argument("--overhead-ms", type=float, default=0.0, metavar="MS",
                        help="what taking a sample adds to the interval, 6 to 30 on real boards (default: 0)")
    parser.add_argument("--in-blocks", action="store_true", help="keep lines back to a pipe until 4096 bytes are full")
    parser.add_argument("--die-after", type=int, metavar="N", help="end with exit code 1 after N samples")
    parser.add_argument("--pid-file", metavar="FILE", default=_default_pid_file(), help="of the daemon")
    options = parser.parse_args(arguments)
    if not options.stop and options.log is None:
        parser.error("--log LOG is missing: the log to replay")
    if options.interval < 1 or not 0.0 <= options.overhead_ms <= 1e6:
        parser.error("--interval is {}, expected 1 ms or more; --overhead-ms is {:g}, expected 0 to 1e6".format(
            options.interval, options.overhead_ms))
    return options


def _samples(path):
    """The log's lines that hold a sample, as bytes without line ends."""
    with open(path, "rb") as stream:
        found = [line.rstrip(b"\r\n") for line in stream if _SAMPLE.search(line)]
    if not found:
        raise ValueError("'{}' holds no line of tegrastats".format(path))
    return found


def _opened(path):
    """Unbuffered binary stream; a log file is begun anew, as the real one does."""
    return os.fdopen(os.dup(1), "wb", 0) if path is None else open(path, "wb", 0)


def _print_samples(samples, output, options):
    period_s = (options.interval + options.overhead_ms) / 1e3
    keep_back = options.in_blocks and options.logfile is None and not output.isatty()
    start_s, block, number = time.monotonic(), b"", 0
    while number < len(samples) or options.at_end != "exit":
        if number == options.die_after:
            raise OSError("ended after {} samples, as asked".format(number))
        line = samples[number % len(samples) if options.at_end == "loop" else min(number, len(samples) - 1)]
        block += line + b"\n"
        number += 1
        if not keep_back or len(block) >= 4096:
            output.write(block)
            block = b""
        # a grid, not a pause: the pace stays right however busy the machine is
        time.sleep(max(0.0, start_s + number * period_s - time.monotonic()))
    output.write(block)


def _default_pid_file():
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return os.path.join(folder, "tegrastats_replay.{}.pid".format(os.getuid()))


def _locked(pid_file):
    """Descriptor of the pid file, locked: the daemon holds the lock as long as it lives."""
    handle = os.open(pid_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError("it runs already; end it with --stop") from None
    os.ftruncate(handle, 0)
    return handle


def _became_daemon(handle, logfile):
    """Fork; True in the daemon, False in the caller."""
    pid = os.fork()
    if pid:  # the caller writes: a --stop right after it finds the number
        os.write(handle, str(pid).encode("ascii"))
        return False
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 2) if logfile is None else (0, 1, 2):  # a caller that waits for their end must not hang
        os.dup2(nothing, descriptor)
    return True


def _stop(pid_file):
    try:
        handle = os.open(pid_file, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        raise ValueError("none was started with --start") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held: its process lives, so the number in the file is not another's
        pid = int(os.read(handle, 32) or b"0")
        if pid > 1:
            os.kill(pid, signal.SIGTERM)
            fcntl.flock(handle, fcntl.LOCK_EX)  # granted when it has ended
        os.unlink(pid_file)
        return 0
    os.unlink(pid_file)
    raise ValueError("the one that was started has ended before")


if __name__ == "__main__":
    sys.exit(main())
