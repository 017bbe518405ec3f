"""What a user may name as a video: a file, a camera, a network stream. Checked before any decoder touches it."""
import os
import re
import stat
import sys
from typing import NamedTuple, Union

from dance_deploy.errors import InputError

# Read as endless: no length is known, a lost packet is no damage, and the end is no error.
STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "http", "https")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_CAMERA_DEVICE = re.compile(r"^/dev/video[0-9]+$")


class Source(NamedTuple):
    """target: absolute path, address, or camera index; name: how messages call it; live: no file.
    head: the first bytes of a file."""

    target: Union[str, int]
    name: str
    live: bool
    head: bytes = b""


def is_live(source):
    """Return whether `source` names a camera (0, "0", "/dev/video0") or a network stream, rather than a file.

    A file whose name is only digits is written "./0".
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return True
    text = _text(source)
    return bool(re.match(r"^[0-9]+$", text) or _CAMERA_DEVICE.match(text) or _scheme(text) in STREAM_SCHEMES)


def resolve(source):
    """Return the Source that `source` names; raises InputError where it is not there or cannot be a video."""
    if isinstance(source, Source):
        return source
    if is_live(source):
        return _resolve_live(source)
    text = _text(source)
    scheme = _scheme(text)
    if scheme and not os.path.exists(text):
        raise InputError("{}: unknown kind of address '{}'; expected a file, a camera index, or one of {}".format(
            text, scheme, ", ".join(STREAM_SCHEMES)))
    # absolute, so that FFmpeg takes no file name for one of its protocols ("concat:a|b")
    return Source(os.path.abspath(text), printable(text), False, _check_file(text))


def _resolve_live(source):
    if isinstance(source, int):
        index = source
    else:
        text = _text(source)
        if _scheme(text):
            return Source(text, re.sub(r"//[^/@]*@", "//***@", text), True)  # a password stays out of logs
        index = int(text[len("/dev/video"):] if text.startswith("/dev/") else text)
    if index < 0:
        raise InputError("camera {}: expected an index of 0 or more".format(index))
    if sys.platform.startswith("linux") and not os.path.exists("/dev/video{}".format(index)):
        raise InputError("camera {0}: there is no /dev/video{0}; connect the camera, or name a file './{0}'".format(
            index))
    return Source(index, "camera {}".format(index), True)


def _text(source):
    try:
        return os.fsdecode(source)
    except TypeError as error:
        raise InputError("a video is named by a path, a camera index or an address (got {})".format(
            type(source).__name__)) from error


def _scheme(text):
    match = _SCHEME.match(text)
    return match.group(1).lower() if match else ""


def printable(text):
    """Return `text` on one line and fit for any terminal (file names may hold newlines and undecodable bytes)."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in safe)


def _check_file(path):
    """Return the first bytes of a readable, regular, non-empty file; raise InputError otherwise."""
    name = printable(path)
    if not path:
        raise InputError("the video's name is empty; expected a path, a camera index or an address")
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError("{}: is a folder, expected a video file; name the files in it".format(name))
        if not stat.S_ISREG(status.st_mode):  # opening a pipe that nobody writes to would wait for ever
            raise InputError("{}: is not a regular file (a pipe, socket or device), expected a video file".format(name))
        with open(path, "rb") as stream:
            head = stream.read(512)
    except FileNotFoundError as error:
        raise InputError("{}: no such file".format(name)) from error
    except PermissionError as error:
        raise InputError("{}: may not be read (permission denied); change its permissions or run as its owner".format(
            name)) from error
    except (OSError, ValueError) as error:
        raise InputError("{}: cannot be read ({})".format(name, getattr(error, "strerror", None) or error)) from error
    if not head:
        raise InputError("{}: the file is empty, expected a video".format(name))
    return head


def not_a_video(source, reason):
    """Return the InputError for a file that no demuxer accepts, with a guess at what it is."""
    return InputError("{}: {} ({}); expected a video file such as MP4, AVI, MKV or WebM".format(
        source.name, guess_content(source.head), reason))


def guess_content(head):
    """Say in a few words what the first bytes of an unreadable file look like."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the video itself: run 'git lfs pull'"
    if head[4:8] == b"ftyp":
        return "is an MP4 without a readable video; its index (moov) may be missing, as when a recording was cut off"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "is a Matroska or WebM file without a readable video, as when a recording was cut off"
    if all(32 <= byte < 127 or byte in (9, 10, 13) for byte in head):
        return "is a web page or XML, not a video" if head.lstrip().startswith(b"<") else "is text, not a video"
    return "is not a video that can be decoded"


def refuse_unreadable(error):
    """For os.walk's `onerror`, which passes over a folder silently where there is none: raise InputError."""
    raise InputError("folder '{}' cannot be read: {}".format(printable(error.filename), error.strerror))
