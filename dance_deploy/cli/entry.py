"""What every command shares: how its Typer app is run and how it ends.

DanceError -> one line `error: ...` on stderr and the error's exit code; wrong usage -> exit 2; Ctrl-C, SIGTERM, SIGHUP
-> one line, exit 1; a reader that went away -> quiet, exit 1; anything else is a bug of ours and keeps its traceback.
"""
import errno
import logging
import os
import sys

from dance_deploy.errors import DanceError, InputError, OperationError
from dance_deploy.signals import ended_by_signals

MAX_THREADS = 1024  # far above any machine this runs on; 100000 threads start for minutes, or not at all

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what looking at a path raises wherever it is first looked at
_NOT_TO_BE_OPENED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
_INTERRUPTED = 130  # what newer Typer makes of Ctrl-C


def run(app):
    """Run a Typer app and leave the process with its exit code."""
    _stand_in_for_closed_streams()
    if hasattr(sys.stdout, "reconfigure"):  # Python 3.7: names of files may hold what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    _log_to_stderr()
    with ended_by_signals():
        code = exit_code_of(app)
    sys.exit(code)


def exit_code_of(app, args=None):
    """Exit code of running `app` with `args` (default: the process's), after printing what went wrong."""
    try:
        code = app(args=args, standalone_mode=False)
        _flush()
    except DanceError as error:
        return fail(error)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        if error.errno in _NOT_TO_BE_OPENED and error.filename is not None:
            return fail(InputError("'{}' cannot be opened: {}".format(error.filename, error.strerror)))
        if error.errno not in _NO_ROOM:
            raise
        _flush_or_discard()
        return fail(OperationError("output cannot be written: {}".format(error.strerror)))
    except Exception as error:
        if type(error).__name__ == "Abort":  # click's, or Typer's own copy of it
            code = _INTERRUPTED
        elif hasattr(error, "show") and hasattr(error, "exit_code"):  # a ClickException: wrong usage
            return _wrong_usage(error)
        else:
            sys.excepthook = sys.__excepthook__  # Typer's prints all local variables
            raise
    if code == _INTERRUPTED:
        print("interrupted", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def fail(error):
    """Print a DanceError as one line on stderr; returns its exit code."""
    print("error: {}".format(" ".join(str(error).split())), file=sys.stderr)
    return error.exit_code


def _wrong_usage(error):
    context = getattr(error, "ctx", None)
    hint = "; see {} --help".format(context.command_path) if context is not None else ""
    print("error: {}{}".format(" ".join(error.format_message().split()).rstrip("."), hint), file=sys.stderr)
    return error.exit_code


def _stand_in_for_closed_streams():
    """A stream that was closed before we began (`>&-`) is None in Python: what is written to it goes nowhere, and
    nothing comes from it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _flush():
    sys.stdout.flush()  # so that a broken pipe shows here and not while the interpreter shuts down


def _flush_or_discard():
    """What was printed is kept where it was another file that found no room."""
    try:
        _flush()
    except OSError:
        _discard_output()


def _discard_output():
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _LowerCaseLevel(logging.Formatter):
    def format(self, record):
        return "{}: {}".format(record.levelname.lower(), record.getMessage())


def _log_to_stderr():
    handler = logging.StreamHandler()
    handler.setFormatter(_LowerCaseLevel())
    logger = logging.getLogger("dance_deploy")
    logger.addHandler(handler)
    logger.propagate = False
