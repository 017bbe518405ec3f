"""Decoding by OpenCV, for boards where PyAV is absent. Written for OpenCV 4.1 (JetPack 4.6) and newer.

OpenCV tells neither broken packets nor damaged frames from the end of a file, so damage shows only where clearly too
little came out; docs/data.md lists what differs from PyAV. It is imported when a source is opened, so that this module
imports where only numpy is.
"""
import contextlib
import os
import time

import numpy as np

from dance_deploy import sources
from dance_deploy.errors import InputError, OperationError
from dance_deploy.video import MAX_PIXELS, DecodedImage, DecodeFailure, StreamFacts

_TIMEOUT_MS = 10000


def open_reader(source):
    """Open a resolved source; raises InputError where it is no video, OperationError where a stream is not there."""
    import cv2
    with _silence(cv2):
        try:
            capture = _open(cv2, source)
        except (cv2.error, TypeError, UnicodeError) as error:
            reason = " ".join(str(error).split())
            raise InputError("{}: OpenCV cannot open it ({})".format(source.name, reason)) from error
        if not capture.isOpened():
            capture.release()
            if source.live:
                raise OperationError("{}: cannot be opened; is it connected, and free?".format(source.name))
            raise sources.not_a_video(source, "OpenCV finds no video stream that it can decode")
    return Reader(cv2, source, capture)


def _open(cv2, source):
    if isinstance(source.target, int):
        return cv2.VideoCapture(source.target)
    # only FFmpeg reads files here: OpenCV would go on to try GStreamer and image sequences, and print about each
    backends = [int(b) for b in cv2.videoio_registry.getBackends()] if hasattr(cv2, "videoio_registry") else []
    backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in backends else cv2.CAP_ANY
    if source.live and hasattr(cv2, "CAP_PROP_OPEN_TIMEOUT_MSEC"):
        return cv2.VideoCapture(source.target, backend, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS,
                                                         cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS])
    return cv2.VideoCapture(source.target, backend)


@contextlib.contextmanager
def _silence(cv2):
    """Keep OpenCV and its FFmpeg from writing to stderr meanwhile."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    before = logging.getLogLevel() if logging else None
    if logging:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    # FFmpeg's level is read from here when OpenCV first opens a file; -8 is "quiet"
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        yield
    finally:
        if logging:
            logging.setLogLevel(before)


class Reader:
    """One open capture; `images` may be called once."""

    def __init__(self, cv2, source, capture):
        self._cv2 = cv2
        self._source = source
        self._capture = capture
        self._camera = isinstance(source.target, int)
        self.end_s = None  # the caller's estimate from the times is all there is
        if hasattr(cv2, "CAP_PROP_ORIENTATION_AUTO"):
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)

    def close(self):
        self._capture.release()

    def facts(self):
        """Return the StreamFacts that OpenCV knows."""
        cv2 = self._cv2
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        fps = float(fps) if 0 < fps < 1e5 else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = int(count) if 0 < count < 1e9 and not self._source.live else None
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        codec = "".join(chr((code >> shift) & 0x7F) for shift in (0, 8, 16, 24)).strip("\0 ") or "unknown"
        duration_s = count / fps if count and fps else None
        promised_s, slack = None, 0.05
        if self._source.head[:4] == b"RIFF":
            promised_s = duration_s
        elif self._source.head[4:8] == b"ftyp":  # the count does not know edit lists, which may drop frames
            promised_s, slack = duration_s, 0.25
        return StreamFacts(fps, count, duration_s, sources.printable(codec), promised_s, slack)

    def images(self, resize):
        """Yield DecodedImages of (H, W) = resize until OpenCV has no more."""
        cv2 = self._cv2
        last_ms = None
        began = time.monotonic()
        while True:
            try:
                found, bgr = self._capture.read()
            except cv2.error as error:
                raise DecodeFailure(" ".join(str(error).split())) from error
            if not found:
                if last_ms is None and not self._source.live:
                    raise DecodeFailure("OpenCV returns no frame; it may lack a decoder for " + self.facts().codec)
                return
            if bgr.shape[0] * bgr.shape[1] > MAX_PIXELS:
                raise DecodeFailure("a frame of {}x{} pixels".format(bgr.shape[1], bgr.shape[0]))
            if self._camera:
                start_s = time.monotonic() - began
            else:
                now_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
                known = last_ms is None or now_ms > last_ms
                start_s, last_ms = (now_ms / 1e3 if known else None), now_ms
            yield DecodedImage(_rgb(cv2, bgr, resize), start_s, False)


def _rgb(cv2, bgr, resize):
    """Return [H, W, 3] uint8 RGB, scaled to `resize`: averaged where that shrinks, interpolated where it grows."""
    if bgr.ndim == 2 or bgr.shape[2] == 1:
        bgr = cv2.cvtColor(bgr, cv2.COLOR_GRAY2BGR)
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    if resize is None:
        return rgb
    smaller = (min(resize[0], rgb.shape[0]), min(resize[1], rgb.shape[1]))
    if smaller != rgb.shape[:2]:
        rgb = cv2.resize(rgb, smaller[::-1], interpolation=cv2.INTER_AREA)
    if tuple(resize) != smaller:
        rgb = cv2.resize(rgb, (resize[1], resize[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(rgb)
