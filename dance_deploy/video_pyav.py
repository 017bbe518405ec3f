"""Decoding by PyAV, that is by FFmpeg's own libraries. Checked with PyAV 12 and 18; older ones lack what is asked for
by `hasattr` and `getattr` below.

PyAV is imported when a source is opened, so that this module imports where only numpy is.
"""
import numpy as np

from dance_deploy import sources
from dance_deploy.errors import InputError, OperationError
from dance_deploy.video import MAX_PIXELS, DecodedImage, DecodeFailure, StreamFacts

# Formats that may begin in the middle of a group of pictures: there the first packets may be undecodable and sound.
_CUT_ANYWHERE = ("mpegts", "mpeg", "h264", "hevc", "mpegvideo")
_MAX_LEADING_FAILURES = 500
_OPEN_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 10.0


def open_reader(source):
    """Open a resolved source; raises InputError where it is no video, OperationError where a stream is not there."""
    import av
    _silence_ffmpeg(av)
    try:
        container = av.open(**_open_arguments(source))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if source.live:
            raise OperationError("{}: cannot be opened ({})".format(source.name, _reason(error))) from error
        raise sources.not_a_video(source, _reason(error)) from error
    try:
        return Reader(av, source, container)
    except BaseException:
        container.close()
        raise


def _open_arguments(source):
    """Return the arguments of av.open."""
    common = {"file": source.target, "mode": "r", "metadata_errors": "ignore"}
    if not source.live:
        # a playlist or script under a video's name must not make FFmpeg fetch anything
        return dict(common, options={"protocol_whitelist": "file"})
    if isinstance(source.target, int):
        return dict(common, file="/dev/video{}".format(source.target), format="v4l2")
    options = {"rtsp_transport": "tcp"} if source.target.lower().startswith("rtsp") else {}
    return dict(common, options=options, timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S))


def _silence_ffmpeg(av):
    """Stop FFmpeg's own lines on stderr; our one line says what the user needs."""
    if av.logging.get_level() is None:
        return  # PyAV 14 and newer: silent unless somebody asked
    try:
        av.logging.set_level(None)
    except TypeError:
        av.logging.set_level(av.logging.PANIC)


def _reason(error):
    """Return FFmpeg's reason without the file name and number that surround it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Reader:
    """One open container; `images` may be called once."""

    def __init__(self, av, source, container):
        self._av = av
        self._source = source
        self._container = container
        self._stream = self._pick_stream()
        self._scaler = _Scaler(av)
        self.end_s = None  # where the last frame so far ends, in seconds from the stream's start

    def close(self):
        self._container.close()

    def facts(self):
        """Return the StreamFacts that the header holds."""
        stream, container = self._stream, self._container
        rate = stream.average_rate or getattr(stream, "guessed_rate", None) or stream.base_rate
        fps = float(rate) if rate else None
        frame_count = stream.frames or None
        promised_s = _promised_s(container, stream, fps)
        duration_s = promised_s
        if duration_s is None and stream.duration and stream.time_base:
            duration_s = float(stream.duration * stream.time_base)
        if duration_s is None and container.duration:
            duration_s = container.duration / 1e6
        return StreamFacts(fps, frame_count, duration_s, stream.codec_context.name, promised_s, 0.05)

    def images(self, resize):
        """Yield DecodedImages of (H, W) = resize; raises DecodeFailure where FFmpeg does."""
        start_s = _start_s(self._stream)
        degrees = _stream_rotation(self._stream)
        for frame in self._frames():
            image = self._scaler.image(frame, resize, getattr(frame, "rotation", degrees))
            if frame.time is not None:
                length = getattr(frame, "duration", None) or 0
                end_s = frame.time - start_s + float(length * frame.time_base if length else 0)
                self.end_s = max(end_s, self.end_s or 0.0)
            yield DecodedImage(image, frame.time, bool(frame.is_corrupt))

    def _frames(self):
        """Yield FFmpeg's frames; skip packets that may be undecodable in a sound source."""
        forgiven = _MAX_LEADING_FAILURES if self._source.live or self._container.format.name in _CUT_ANYWHERE else 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except self._av.error.InvalidDataError as error:
                    if forgiven == 0:
                        raise DecodeFailure(_reason(error)) from error
                    forgiven -= 1
                    continue
                for frame in decoded:
                    forgiven = _MAX_LEADING_FAILURES if self._source.live else 0
                    yield frame
        except self._av.error.FFmpegError as error:
            if self._source.live:
                raise OperationError("{}: the stream failed ({})".format(self._source.name, _reason(error))) from error
            raise DecodeFailure(_reason(error)) from error

    def _pick_stream(self):
        """Return the stream that a player would show, or raise InputError."""
        streams = [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            raise InputError("{}: has no video stream (sound or pictures only); expected a video".format(
                self._source.name))
        chosen = self._container.streams.best("video") if hasattr(self._container.streams, "best") else None
        if chosen not in streams:  # PyAV before 13 does not offer FFmpeg's choice; the bit rate decides most of it
            chosen = max(streams, key=lambda stream: stream.bit_rate or 0)
        context = chosen.codec_context
        if context is None:
            raise InputError("{}: is encoded in a way that this FFmpeg cannot decode; convert it, for example to "
                             "H.264".format(self._source.name))
        if context.width * context.height > MAX_PIXELS:
            raise InputError("{}: its frames are {}x{}, more than {} pixels; scale it down first".format(
                self._source.name, context.width, context.height, MAX_PIXELS))
        return chosen


def _is_cover(stream):
    """Whether a stream is only the cover picture of a sound file."""
    return "attached_pic" in str(getattr(stream, "disposition", ""))


def _promised_s(container, stream, fps):
    """Return how long this stream lasts by its header in seconds, or None where the format does not say it.

    Formats whose length FFmpeg estimates from the data (MPEG-TS, raw streams) promise nothing.
    """
    names = container.format.name.split(",")
    if "avi" in names:  # its stream.duration is estimated where the index is missing; the frame count is not
        return stream.frames / fps if stream.frames and fps else None
    if "mov" in names and stream.duration and stream.time_base:  # knows edit lists, which the frame count does not
        return float(stream.duration * stream.time_base)
    if "matroska" in names:
        end_s = _clock_s(stream.metadata.get("DURATION", ""))
        if end_s is None and len(container.streams) == 1 and container.duration:
            end_s = container.duration / 1e6
        return None if end_s is None else end_s - _start_s(stream)  # both are the end, counted from time 0
    return None


def _start_s(stream):
    """Return the time of the stream's first frame by the header, 0 where it does not say."""
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _clock_s(text):
    """Return the seconds of a Matroska tag such as 00:01:02.500000000, or None."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _stream_rotation(stream):
    """Return the counter-clockwise rotation in degrees as PyAV before 14 has it."""
    try:
        if hasattr(stream, "side_data"):
            return int(stream.side_data.get("DISPLAYMATRIX", 0))
        return -int(stream.metadata.get("rotate", 0))
    except (AttributeError, TypeError, ValueError):
        return 0


class _Scaler:
    """Turns FFmpeg's frames into upright RGB arrays by its own scaler, whose set-up is kept from frame to frame."""

    def __init__(self, av):
        self._av = av
        self._reformatter = av.video.reformatter.VideoReformatter()
        flags = av.video.reformatter.Interpolation
        try:  # area averaging; exact rounding and full chroma, else thin lines are off by up to half the range
            self._options = {"interpolation": int(flags.AREA | flags.ACCURATE_RND | flags.FULL_CHR_H_INT),
                             "threads": 1}
        except (AttributeError, TypeError):
            self._options = {"interpolation": "AREA"}

    def image(self, frame, resize, degrees):
        """Return [H, W, 3] uint8 RGB of a frame, rotated counter-clockwise by a multiple of 90 degrees."""
        if frame.width * frame.height > MAX_PIXELS:
            raise DecodeFailure("a frame of {}x{} pixels".format(frame.width, frame.height))
        quarters = round(degrees / 90.0) % 4
        height, width = resize or (None, None)
        if resize and quarters % 2:
            height, width = width, height
        rgb = self._reformat(frame, width or frame.width, height or frame.height)
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarters))

    def _reformat(self, frame, width, height):
        try:
            return self._reformatter.reformat(frame, width, height, "rgb24", **self._options)
        except (TypeError, KeyError):  # an older PyAV: no threads, and only single flags, by name
            self._options = {"interpolation": "AREA"}
            return self._reformatter.reformat(frame, width, height, "rgb24", **self._options)
        except self._av.error.FFmpegError as error:
            raise DecodeFailure("cannot be converted to RGB: " + _reason(error)) from error
