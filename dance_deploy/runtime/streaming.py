"""From what the user named to results: inputs, windows decoded ahead in a thread, inference, one result a window."""
import os
from typing import Any, List, NamedTuple

from dance_deploy import sources, video
from dance_deploy.errors import InputError
from dance_deploy.runtime.ahead import Ahead
from dance_deploy.runtime.runner import Result

# what a folder is searched for; a file named by itself may have any name
VIDEO_SUFFIXES = (".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
                  ".webm", ".wmv", ".3gp")


class Input(NamedTuple):
    """target: what video.frames() takes; name: how output calls it; live: a camera or network stream."""

    target: str
    name: str
    live: bool


class WindowResult(NamedTuple):
    """window: the clip's frames and times; result: what it gave; dropped: live windows lost so far."""

    window: Any
    result: Result
    dropped: int


def inputs_from_argument(argument) -> List[Input]:
    """The Input that a file, camera or address is, or those of all videos inside a folder, in sorted order.

    Raises InputError for a folder without videos. A file that is missing or broken shows when it is opened.
    """
    if os.path.isdir(argument):
        return [Input(path, sources.printable(path), False) for path in _videos_below(argument)]
    if sources.is_live(argument):
        return [Input(argument, _live_name(argument), True)]
    return [Input(argument, sources.printable(argument), False)]


def results(runner, source, budget=None, dense=False, hop=None, pad=False, limit=None):
    """Yield a WindowResult for each window of one Input, decoding ahead of inference.

    hop: frames between the starts of two windows (default: windows do not overlap); pad: repeat the last frame of a
    video shorter than a window; limit: stop after so many windows. Memory does not depend on the video's length.
    Raises what video.frames(), video.windows() and Runner.infer() raise.
    """
    clips = _clips(source, runner.manifest.clip, hop, pad)
    with Ahead(clips, drop_oldest=source.live) as ahead:
        for count, (window, clip) in enumerate(ahead, 1):
            result = runner.infer_dense(clip) if dense else runner.infer(clip, budget)
            yield WindowResult(window, result, ahead.dropped)
            if limit is not None and count >= limit:
                return


def _clips(source, spec, hop, pad):
    frames = video.frames(source.target, resize=spec.resize)
    try:
        for window in video.windows(frames, spec, hop=hop, pad=pad, name=source.name):
            yield window, video.normalize(window.frames, spec)
    finally:
        frames.close()


def _videos_below(folder):
    found = []
    for place, folders, names in os.walk(folder, onerror=sources.refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(os.path.join(place, name) for name in names
                     if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."))
    if not found:
        raise InputError("folder '{}' holds no video; expected files that end in {}".format(
            sources.printable(folder), ", ".join(VIDEO_SUFFIXES)))
    return sorted(found)


def _live_name(argument):
    try:
        return sources.resolve(argument).name  # without the password that an address may hold
    except InputError:  # opening it will fail the same way, and say so
        return sources.printable(argument)
