"""Small real video files for tests."""
import os

import numpy as np


def write_video(path, frames, *, width=64, height=48, rate=25):
    """Write `frames` frames of a bright square that moves over noise; returns the path as str."""
    import av
    rng = np.random.default_rng(frames)
    image = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shown = image.copy()
            left = number % (width - 10)
            shown[10:20, left:left + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return str(path)
