"""How a program is told to end."""
import contextlib
import signal


@contextlib.contextmanager
def ended_by_signals():
    """Inside, SIGTERM and SIGHUP (a CI job cancelled, a service stopped, a connection lost) act as Ctrl-C does: raise
    KeyboardInterrupt, so that files are whole or gone and a measured command does not run on. For the main thread."""
    def leave(*_):
        raise KeyboardInterrupt

    # one that is ignored stays so: nohup means it
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
