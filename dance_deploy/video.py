"""Videos in, RGB frames and clips out: the one way in which training and running read a video.

Two decoders serve, each in a module of its own that is imported when first used: PyAV (`video_pyav.py`) and OpenCV
(`video_opencv.py`, where PyAV is absent). What both must do is decided here: which sources are accepted, what a
time is, and when a file counts as damaged. `clips.py` cuts frames into clips; its functions are offered here too.
"""
import importlib
from typing import Any, NamedTuple, Optional

from dance_deploy import sources
from dance_deploy.clips import Window, center_crop, normalize, windows
from dance_deploy.errors import InputError, MissingPackageError, OperationError
from dance_deploy.sources import is_live

__all__ = ["DECODERS", "Frame", "VideoInfo", "Window", "center_crop", "frames", "is_live", "normalize", "probe",
           "windows"]

DECODERS = ("pyav", "opencv")

# A frame above this (8K is 33 million) is taken for a damaged or hostile header: as RGB it would need 400 MB.
MAX_PIXELS = 1 << 27

_PACKAGES = {"pyav": "av", "opencv": "cv2"}


class Frame(NamedTuple):
    """One decoded frame, as a viewer would show it.

    image: [H, W, 3] uint8 RGB, C-contiguous, the caller's own; index: 0, 1, 2, ... in order of display;
    time_s: seconds since the first frame, never less than that of the frame before.
    """

    image: Any
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    time_s: float


class VideoInfo(NamedTuple):
    """What is known of a video without decoding all of it.

    width, height: pixels of the first frame, its rotation applied; fps: frames a second, or None;
    frames, duration_s: as the header states them (it may be wrong by some), or None; codec: FFmpeg's name of it.
    """

    width: int
    height: int
    fps: Optional[float]
    frames: Optional[int]
    duration_s: Optional[float]
    codec: str


class DecodedImage(NamedTuple):
    """What a decoder module hands to this one. start_s: in the file's own time, or None; damaged: the decoder says
    that the image is not what was encoded."""

    image: Any
    start_s: Optional[float]
    damaged: bool


class StreamFacts(NamedTuple):
    """The header of a video stream, from a decoder module. promised_s: how long the stream lasts where the container
    states that of this very stream, else None; slack: the share of promised_s that may be missing."""

    fps: Optional[float]
    frames: Optional[int]
    duration_s: Optional[float]
    codec: str
    promised_s: Optional[float]
    slack: float


class DecodeFailure(Exception):
    """A decoder module cannot go on; the text is the reason in FFmpeg's words. Never leaves this package."""


def frames(source, resize=None, decoder=None):
    """Return an iterator of Frame over a video file, a camera or a network stream.

    source:  path (str, bytes or os.PathLike), camera index (0 or "0"), or address such as rtsp://...
    resize:  (H, W) of the images, scaled by area averaging; None: as the video has them
    decoder: one of DECODERS; None: PyAV where it is installed, else OpenCV (for a camera the other way round)
    The file is opened at the first frame and closed with the iterator. Memory does not depend on the length.
    Raises InputError (one line) where the source is missing, unreadable, no video, or damaged. Damage may show only
    after frames were delivered: then the error comes at that point and says how many there were. OperationError
    where a camera or stream fails. MissingPackageError where no decoder is installed.
    """
    if resize is not None:
        resize = (int(resize[0]), int(resize[1]))
        if min(resize) < 1:
            raise InputError("resize must be at least 1x1 (got {}x{})".format(*resize))
    resolved = sources.resolve(source)
    return _decode(resolved, resize, _decoder_module(decoder, resolved))


def probe(source, decoder=None):
    """Return the VideoInfo of a source after decoding its first frame; raises what `frames` raises."""
    resolved = sources.resolve(source)
    reader = _decoder_module(decoder, resolved).open_reader(resolved)
    try:
        first = _next_image(reader.images(None), resolved, 0)
        if first is None:
            raise _no_frames(resolved)
        facts = reader.facts()
        return VideoInfo(width=first.image.shape[1], height=first.image.shape[0], fps=facts.fps, frames=facts.frames,
                         duration_s=facts.duration_s, codec=facts.codec)
    finally:
        reader.close()


def _decoder_module(name, source):
    """Return the module of the named decoder, or of the first that is installed."""
    if name is not None and name not in DECODERS:
        raise InputError("unknown decoder '{}'; known: {}".format(name, ", ".join(DECODERS)))
    names = (name,) if name else DECODERS
    if name is None and isinstance(source.target, int):
        names = DECODERS[::-1]  # FFmpeg needs a device path and a format for a camera; OpenCV knows each platform
    for candidate in names:
        try:
            importlib.import_module(_PACKAGES[candidate])
        except ImportError:
            continue
        return importlib.import_module("dance_deploy.video_" + candidate)
    if name == "pyav":  # no extra brings it: it comes with the package itself wherever there is a build of it
        raise OperationError("decoder 'pyav' needs the package 'av', which is not installed; run: pip install av")
    raise MissingPackageError("opencv-python-headless", "opencv", "reading a video")


def _decode(source, resize, module):
    """Yield the Frames of a resolved source."""
    reader = module.open_reader(source)
    try:
        images = reader.images(resize)
        facts = reader.facts()
        step_s = 1.0 / facts.fps if facts.fps else 1.0 / 25
        count, origin_s, time_s, last_step_s = 0, None, 0.0, step_s
        while True:
            decoded = _next_image(images, source, count)
            if decoded is None:
                break
            before_s = time_s
            if count:
                # a raw stream carries no times; a broken one may jump back
                time_s = before_s + step_s if decoded.start_s is None else max(before_s, decoded.start_s - origin_s)
                last_step_s = time_s - before_s
            else:
                origin_s = decoded.start_s or 0.0
            yield Frame(decoded.image, count, time_s)
            count += 1
        if not source.live:
            _check_complete(source, facts, count, max(reader.end_s or 0.0, time_s + last_step_s))
    finally:
        reader.close()


def _next_image(images, source, count):
    """Return the next DecodedImage or None at the end; raise where the decoder fails, or found damage in a file."""
    try:
        decoded = next(images, None)
    except DecodeFailure as error:
        raise damaged(source, count, str(error)) from error
    if decoded is not None and decoded.damaged and not source.live:
        raise damaged(source, count, "frame {} is damaged".format(count))
    return decoded


def damaged(source, count, reason):
    """Return the InputError for a source that fails after `count` good frames."""
    if count == 0:
        return InputError("{}: no frame can be decoded ({}); expected a whole video file: copy or record it "
                          "again".format(source.name, reason))
    return InputError("{}: damaged, decoding failed after {} frame{} ({}); copy it again, or re-encode the part that "
                      "plays".format(source.name, count, "" if count == 1 else "s", reason))


def _no_frames(source):
    return InputError("{}: has a video stream, but no frame in it; expected a whole video file: copy or record it "
                      "again".format(source.name))


def _check_complete(source, facts, count, end_s):
    """Raise InputError where a file ended without an error and still clearly before its header's end."""
    if count == 0:
        raise _no_frames(source)
    if facts.promised_s is None:
        return
    slack_s = max(facts.slack * facts.promised_s, 3.0 / facts.fps if facts.fps else 0.0)
    if end_s < facts.promised_s - slack_s:
        raise InputError(
            "{}: cut off or damaged, it ends after {} frame{} at {:.2f} s and its header promises {:.2f} s; copy it "
            "again, or re-encode the part that plays".format(
                source.name, count, "" if count == 1 else "s", end_s, facts.promised_s))
