"""Writing video files, for data that is made here."""
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dance_deploy.errors import InputError, MissingPackageError


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: int = 25) -> None:
    """Write frames [H, W, 3] uint8 RGB as MPEG-4 part 2 into the container that the suffix names (.mp4, .avi, .mkv).

    The codec is FFmpeg's own, so that every build has it; one thread, so that the same frames give the same file.
    The file appears whole or not at all. Raises InputError where there is no frame or sizes differ.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", "train", "writing a video") from error
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as container:
            stream = None
            for image in frames:
                if stream is None:
                    stream = container.add_stream("mpeg4", rate=fps)
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    # constant quantiser 3: noise and low contrast are part of the data and must survive
                    stream.codec_context.options = {"qmin": "3", "qmax": "3", "threads": "1", "flags": "+bitexact"}
                elif image.shape[:2] != (stream.height, stream.width):
                    raise InputError(f"{path}: a frame is {image.shape[:2]} (HxW), the first was "
                                     f"{(stream.height, stream.width)}")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            if stream is None:
                raise InputError(f"{path}: there is no frame to write")
            container.mux(stream.encode(None))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
