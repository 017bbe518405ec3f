"""Files that appear whole or not at all: written beside, then renamed."""
import contextlib
import os
import uuid

from dance_deploy.errors import OperationError


@contextlib.contextmanager
def whole_file(path, mode="w"):
    """A stream whose content becomes the file `path` when the block ends well; else nothing changes.

    mode: "w" (text, UTF-8) or "wb". An existing file is replaced at the end; the new one has the permissions that any
    new file has. Raises OperationError, one line, where the place cannot be written or the disk is full.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    temporary = os.path.join(folder, ".{}.{}".format(name, uuid.uuid4().hex[:8]))
    try:
        try:
            with open(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # or a power cut could leave the new name on an empty file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OperationError("{}: cannot write ({})".format(path, error.strerror or error)) from error
