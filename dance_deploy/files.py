"""Files that appear whole or not at all: written beside, then renamed."""
import contextlib
import errno
import os
import re
import stat
import tempfile
import uuid

from dance_deploy.errors import InputError, OperationError


_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\Z")


def is_special(path):
    """Whether `path` is a device, a pipe or a socket (/dev/null, /dev/stdout): to be written, never to be replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def same_file(one, other):
    """Whether two paths lead to one file, there already or not; "-" (a stream) and None lead to none."""
    return not {"-", None} & {one, other} and os.path.realpath(one) == os.path.realpath(other)


def check_writable(path, option=None):
    """Raise InputError where a file at `path` cannot be written: before the work whose result it is to hold.

    option: by which the user named it ("--json"), for the error.
    """
    path = os.fspath(path)
    if is_special(path):
        return
    try:
        try_to_write(path)
    except OSError as error:
        raise InputError("{}'{}' cannot be written ({}); expected a file name in a folder that exists and is writable"
                         .format(option + " " if option else "", path, error.strerror)) from error


def try_to_write(path):
    """Raise OSError where no file can be made in the place of `path`; leaves nothing behind."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "the name is empty")
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    # permissions alone do not tell: a read-only disk, /proc, a full quota
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.realpath(path)), prefix=".dance-"):
        pass


def is_unfinished(path):
    """Whether `path` has the name of a file that `whole_file` was writing when its process was killed."""
    return _UNFINISHED.match(os.path.basename(os.fspath(path))) is not None


@contextlib.contextmanager
def whole_file(path, mode="w"):
    """A stream whose content becomes the file `path` when the block ends well; else nothing changes.

    mode: "w" (text, UTF-8) or "wb". An existing file is replaced at the end; the new one has the permissions that any
    new file has. A link stays a link, its target is replaced; a device or a pipe is written in place.
    Raises OperationError, one line, where the place cannot be written or the disk is full.
    """
    target = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, ".{}.{}".format(name, uuid.uuid4().hex[:8]))
    encoding = None if "b" in mode else "utf-8"
    try:
        if is_special(path):
            with open(path, mode, encoding=encoding) as stream:
                yield stream
            return
        try:
            with open(temporary, mode, encoding=encoding) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # or a power cut could leave the new name on an empty file
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OperationError("{}: cannot write ({})".format(path, error.strerror or error)) from error
