"""From frames to what a model reads: windows of frames, and their numbers. Offered to users as part of `video`."""
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from dance_deploy.errors import InputError


class Window(NamedTuple):
    """One clip of a video.

    frames: [T, H, W, 3] uint8 RGB of the spec's size; start_s: time of its first frame;
    end_s: time at which its last frame ends; index: 0, 1, 2, ...
    """

    frames: Any
    start_s: float
    end_s: float
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


def windows(frame_iter, spec, hop=None, pad=False, name="the video"):
    """Yield the Windows of a stream of Frames, each as soon as its last frame is there.

    spec: ClipSpec; a window takes every spec.stride-th frame, spec.frames of them, centre-cropped to spec.size
    hop:  frames of the video between the starts of two windows; default spec.frames * spec.stride, so that windows
          neither overlap nor leave out a frame of the sampling grid
    pad:  repeat the last frame of a video that is shorter than one window
    name: of the video, for messages
    Where frames remain at the end that no window reached, one more window is aligned to the end and overlaps the one
    before. Keeps spec.span cropped frames, however long the stream is.
    Raises InputError where a frame is smaller than the crop, and where the video is shorter than one window.
    """
    spec.check()
    reach = spec.frames * spec.stride
    hop = reach if hop is None else hop
    if hop < 1:
        raise InputError("hop must be at least 1 frame (got {})".format(hop))
    kept = deque(maxlen=spec.span)
    count, made, covered, step_s = 0, 0, 0, 0.0
    for frame in frame_iter:
        if kept:
            step_s = frame.time_s - kept[-1][1]
        kept.append((center_crop(frame.image, spec.size, name), frame.time_s))
        count += 1
        start = count - spec.span
        if start >= 0 and start % hop == 0:
            yield _window(kept, spec, step_s, made)
            made, covered = made + 1, start + reach
    if count == 0:
        raise InputError("{}: has no frames, a clip needs {}".format(name, spec.span))
    if count < spec.span:
        if not pad:
            raise InputError("{}: has {} frame{}, a clip needs {}; use --pad to repeat the last frame".format(
                name, count, "" if count == 1 else "s", spec.span))
        kept.extend([kept[-1]] * (spec.span - count))
        yield _window(kept, spec, step_s, 0)
    elif covered < count:
        yield _window(kept, spec, step_s, made)


def _window(kept, spec, step_s, index):
    """Build a Window from `spec.span` (image, time_s) pairs; step_s: how long the last frame is taken to last."""
    chosen = [kept[i] for i in range(0, spec.span, spec.stride)]
    return Window(np.stack([image for image, _ in chosen]), chosen[0][1], chosen[-1][1] + step_s, index)


def center_crop(image, size, name="the video"):
    """Return a copy of the middle (H, W) = `size` of image [H', W', 3]; raises InputError where it is smaller."""
    height, width = image.shape[:2]
    if height < size[0] or width < size[1]:
        raise InputError("{}: its frames are {}x{} (HxW), smaller than the clip's {}x{}; resize them while "
                         "decoding".format(name, height, width, size[0], size[1]))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    # a copy, so that the full-size frame can go
    return np.array(image[top:top + size[0], left:left + size[1]])


def normalize(frames, spec):
    """Return the clip as the model reads it: (frames / 255 - mean) / std.

    frames: [T, H, W, 3] uint8 of the spec's frames and size; returns [1, 3, T, H, W] float32, C-contiguous
    Raises InputError where the shape or type differs.
    """
    expected = (spec.frames,) + tuple(spec.size) + (3,)
    if tuple(frames.shape) != expected or frames.dtype != np.uint8:
        raise InputError("clip: got {} {}, expected uint8 {} [T, H, W, 3]".format(
            frames.dtype, list(frames.shape), list(expected)))
    clip = np.empty(spec.shape, np.float32)
    for channel in range(3):
        scale = np.float32(1.0 / (255.0 * spec.std[channel]))
        offset = np.float32(-spec.mean[channel] / spec.std[channel])
        plane = clip[0, channel]
        np.multiply(frames[..., channel], scale, out=plane, casting="unsafe")
        plane += offset
    return clip
