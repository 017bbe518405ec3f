"""Drawing of the rendered data set: soft-edged shapes by their distance functions, and cluttered backgrounds."""
from __future__ import annotations

import numpy as np

# None looks the same after a quarter turn, or turning could not be seen.
SHAPES = ("bar", "wedge", "ell", "half_disc", "arrow")


def shape_cover(kind: str, center: np.ndarray, angle: np.ndarray, radius: np.ndarray, size: tuple[int, int]
                ) -> np.ndarray:
    """Return how much of each pixel a moving shape covers, [T, H, W] float32 in [0, 1].

    center: [T, 2] (y, x) pixels, on a torus: what leaves on one side enters on the other
    angle:  [T] radians, clockwise as seen; radius: [T] pixels, less than half of the smaller side
    """
    y, x = (np.mod(np.arange(length) - center[:, axis, None] + length / 2, length) - length / 2
            for axis, length in enumerate(size))
    y, x = y.astype(np.float32)[:, :, None], x.astype(np.float32)[:, None, :]
    cos, sin = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    scale = radius.astype(np.float32)[:, None, None]
    u = (x * cos + y * sin) / scale  # along the shape
    v = (y * cos - x * sin) / scale  # across it
    return np.clip(0.5 - _distance(kind, u, v) * scale, 0.0, 1.0)


def _distance(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the distance to the border of a shape of radius 1, negative inside (exact enough near the border)."""
    if kind == "bar":
        return _box(u, v, 1.0, 0.33)
    if kind == "wedge":
        return np.maximum(np.abs(v) * 0.866 + u * 0.5 - 0.5, -u - 0.6)
    if kind == "ell":
        return np.minimum(_box(u, v - 0.55, 0.85, 0.27), _box(u + 0.58, v, 0.27, 0.82))
    if kind == "half_disc":
        return np.maximum(np.hypot(u, v) - 1.0, v - 0.1)
    if kind == "arrow":
        head = np.maximum(np.abs(v) * 0.7071 + u * 0.7071 - 0.7071, 0.15 - u)
        return np.minimum(head, _box(u + 0.4, v, 0.6, 0.22))
    raise ValueError(f"unknown shape '{kind}'")


def _box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def clutter(rng: np.random.Generator, size: tuple[int, int], strength: float, n_shapes: int) -> np.ndarray:
    """Return a still background [H, W, 3] float32 around 0: soft colour patches, and shapes that do not move.

    strength: standard deviation of the patches, in grey levels
    """
    height, width = size
    image = np.zeros((height, width, 3), np.float32)
    for cells in (3, 7):
        patches = rng.standard_normal((cells, cells, 3)).astype(np.float32) * (strength * 3 / cells)
        image += _enlarge(patches, size)
    for _ in range(n_shapes):
        center = rng.uniform((0, 0), (height, width))[None]
        radius = np.array([rng.uniform(0.05, 0.13) * min(size)])
        cover = shape_cover(SHAPES[rng.integers(len(SHAPES))], center, rng.uniform(0, 2 * np.pi, 1), radius, size)[0]
        image += cover[..., None] * rng.uniform(-2.5, 2.5, 3).astype(np.float32) * strength
    return image


def _enlarge(patches: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return [h, w, 3] patches enlarged to size by linear interpolation."""
    for axis, length in enumerate(size):
        cells = patches.shape[axis]
        at = np.linspace(0, cells - 1, length, dtype=np.float32)
        low = np.minimum(at.astype(int), cells - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        patches = np.take(patches, low, axis) * (1 - share) + np.take(patches, low + 1, axis) * share
    return patches
