"""Small values out of sysfs files, by root path, so that captured trees replay."""
import errno
import glob
import os
import re

_LONGEST_BYTES = 4096


def find(root, pattern):
    """Sorted paths below `root` that match; numbers sort as numbers."""
    found = glob.glob(os.path.join(glob.escape(root), pattern))
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)])


def text(path):
    """The file's first line, printable; None where it cannot be read."""
    try:
        return _read(path)
    except OSError:
        return None


def number(path):
    """The number the file starts with ("32760 ma" is 32760), or None where it cannot be read or holds none."""
    value = text(path)
    match = re.match(r"[-+]?\d+", value) if value else None
    return int(match.group()) if match else None


def why_unreadable(path):
    """In words why `path` gives nothing: "permission denied", "it is gone", ...; None where it can be read."""
    try:
        return None if re.match(r"[-+]?\d", _read(path)) else "it holds no number"
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "permission denied"
        return "it is gone" if error.errno == errno.ENOENT else (error.strerror or "unknown error").lower()


def _read(path):
    with open(path, "rb") as stream:
        line = stream.read(_LONGEST_BYTES).split(b"\n")[0]
    return "".join(c if c.isprintable() else "?" for c in line.decode("utf-8", "replace").strip("\0 \t\r"))[:200]
