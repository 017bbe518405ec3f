"""Changes of a training clip that keep its class: where it is cut out, mirroring, brightness and contrast."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """How far a training clip is changed; each change is the same for all frames of a clip.

    shift:      how far a crop may leave the frame, as a share of the crop's size (border pixels are repeated)
    flip:       mirror every second clip. Off unless asked for: it turns 'left' into 'right'
    brightness: added, up to this share of the full range; contrast: multiplied by 1 plus or minus up to this
    """

    shift: float = 0.05
    flip: bool = False
    brightness: float = 0.15
    contrast: float = 0.2


NONE = Augmentation(shift=0.0, flip=False, brightness=0.0, contrast=0.0)


def random_crop(frames: np.ndarray, size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
                ) -> np.ndarray:
    """Return [T, H, W, 3] cut at random from frames [T, H', W', 3], mirrored if the augmentation says so."""
    rows, columns = (_places(frames.shape[1 + axis], size[axis], augmentation.shift, rng) for axis in (0, 1))
    if augmentation.flip and rng.random() < 0.5:
        columns = columns[::-1]
    return np.take(np.take(frames, rows, axis=1), columns, axis=2)


def _places(length: int, crop: int, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Return which of `length` rows (or columns) a crop at a random place takes; outside, the border's."""
    beyond = round(shift * crop)
    start = rng.integers(-beyond, length - crop + beyond + 1)
    return np.clip(np.arange(start, start + crop), 0, length - 1)


def jitter(frames: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 frames with brightness and contrast changed at random."""
    if not augmentation.brightness and not augmentation.contrast:
        return frames
    gain = 1 + rng.uniform(-augmentation.contrast, augmentation.contrast)
    lift = 255 * rng.uniform(-augmentation.brightness, augmentation.brightness)
    levels = (np.arange(256) - 127.5) * gain + 127.5 + lift
    return np.take(np.clip(np.rint(levels), 0, 255).astype(np.uint8), frames)
