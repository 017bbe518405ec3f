"""Clips of labelled videos as torch tensors."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dance_deploy import video
from dance_deploy.data.augment import Augmentation, jitter, random_crop
from dance_deploy.data.decoding import decoding_pool, decoding_threads
from dance_deploy.data.labelled import LabelledVideos
from dance_deploy.errors import InputError
from dance_deploy.geometry import ClipSpec

DEFAULT_CACHE_BYTES = 1 << 30


class ClipDataset(Dataset):
    """Clips of videos: item i is window i % windows of video i // windows.

    An item is (clip uint8 [T, H, W, 3] RGB of spec.size, label, index of the video). Train: a random window of a
    random crop, augmented; eval: `windows` evenly spaced windows, cropped in the middle. Videos shorter than a window
    repeat their last frame. An item depends on seed, epoch and index only, not on workers or order.

    cache_bytes: decoded videos (resized to spec.resize) are kept up to this size; the rest is decoded at each access.
                 Each DataLoader worker has a cache of its own, except for what `preload` took in before they start.
    Raises InputError where there are no videos; at access, where a video cannot be decoded.
    """

    def __init__(self, videos: LabelledVideos, spec: ClipSpec, train: bool, windows: int = 1, *, seed: int = 0,
                 augmentation: Augmentation | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES,
                 decoder: str | None = None) -> None:
        if not len(videos):
            raise InputError(f"no videos to {'train on' if train else 'evaluate'}")
        if windows < 1:
            raise InputError(f"windows per video must be at least 1 (got {windows})")
        self.videos = videos
        self.spec = spec.check()
        self.train = train
        self.windows = windows
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        self._store = _FrameStore(spec.resize, cache_bytes, decoder)
        # in shared memory, so that workers that stay alive between epochs see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.videos) * self.windows

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends `for item in dataset`
        video_index, window = divmod(index, self.windows)
        path, label = self.videos.videos[video_index]
        if self.train:
            rng = np.random.default_rng([self.seed, int(self._epoch), index])
            clip = self._store.pick(path, lambda count: random_indices(count, self.spec, rng))
            clip = jitter(random_crop(clip, self.spec.size, self.augmentation, rng), self.augmentation, rng)
        else:
            clip = self._store.pick(path, lambda count: even_indices(count, self.spec, window, self.windows))
            clip = np.stack([video.center_crop(image, self.spec.size, path) for image in clip])
        return torch.from_numpy(np.ascontiguousarray(clip)), label, video_index

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of the coming epoch, also in workers that run already."""
        self._epoch.fill_(epoch)

    def preload(self, progress: Callable[[int, int], Any] | None = None, threads: int | None = None) -> int:
        """Decode all videos, into the cache until it is full; return how many it holds. Call before workers start.

        threads: how many to decode at once, None as the machine allows; each may hold a share of what is left of the
        cache until its video is taken in. Raises InputError for the first video that fails; the others are left.
        """
        paths = [path for path, _ in self.videos.videos]
        for done, _ in enumerate(self._store.load_all(paths, threads or decoding_threads()), 1):
            if progress:
                progress(done, len(paths))
        return len(self._store)


def random_indices(count: int, spec: ClipSpec, rng: np.random.Generator) -> np.ndarray:
    """Return [T] frame numbers of a random window of a video of `count` frames; the last repeats where it is short."""
    start = rng.integers(0, max(count - spec.span, 0) + 1)
    return np.minimum(start + np.arange(spec.frames) * spec.stride, count - 1)


def even_indices(count: int, spec: ClipSpec, window: int, windows: int) -> np.ndarray:
    """Return [T] frame numbers of window `window` of `windows` spread evenly from start to end (one: the middle)."""
    room = max(count - spec.span, 0)
    start = room // 2 if windows == 1 else round(room * window / (windows - 1))
    return np.minimum(start + np.arange(spec.frames) * spec.stride, count - 1)


class _FrameStore:
    """Decoded videos [F, H, W, 3] uint8 by path, up to a number of bytes; longer ones are decoded when asked for."""

    def __init__(self, resize: tuple[int, int], budget_bytes: int, decoder: str | None) -> None:
        self._resize = resize
        self._decoder = decoder
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._cached: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._cached)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the frames out where the data set is copied to a new process."""
        return dict(self.__dict__, _cached={}, _used_bytes=0)

    def pick(self, path: str, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return the frames [T, H, W, 3] that choose(number of frames) names, in ascending order."""
        self.load(path)
        indices = choose(self._counts[path])
        if path in self._cached:
            return self._cached[path][indices]
        wanted = set(indices.tolist())
        found = {}
        for frame in self._frames(path):
            if frame.index in wanted:
                found[frame.index] = frame.image
            if len(found) == len(wanted):
                break
        if len(found) < len(wanted):
            raise InputError(f"{path}: has fewer frames than when it was first read; it was changed meanwhile")
        return np.stack([found[i] for i in indices.tolist()])

    def load(self, path: str) -> None:
        """Learn a video's number of frames; keep its frames if the budget allows. Memory stays within the budget."""
        if path in self._cached:
            return
        room = self._budget_bytes - self._used_bytes
        if path not in self._counts or self._bytes(self._counts[path]) <= room:
            self._take(path, *self._read(path, room))

    def load_all(self, paths: Sequence[str], threads: int) -> Iterator[str]:
        """Load the videos, several at once; yields each path, in order, once its frames are taken in or given up."""
        running: deque[tuple[str, Future[tuple[int, np.ndarray | None]] | None]] = deque()
        waiting, known = iter(paths), set(self._cached)
        shares = 1 if threads == 1 else threads + 1
        with decoding_pool(threads) as pool:
            while True:
                # so few ahead, and with so little room, that what is decoded but not taken in stays small
                for path in islice(waiting, threads - len(running)):
                    room = (self._budget_bytes - self._used_bytes) // shares
                    running.append((path, None if path in known else pool.submit(self._read, path, room)))
                    known.add(path)
                if not running:
                    return
                path, found = running.popleft()
                if found is not None:
                    self._take(path, *found.result())
                yield path

    def _read(self, path: str, room: int) -> tuple[int, np.ndarray | None]:
        """A video's number of frames, and these [F, H, W, 3] if they fit into so many bytes."""
        images: list[np.ndarray] | None = []
        count = 0
        for frame in self._frames(path):
            count += 1
            if images is not None:
                images.append(frame.image)
                if self._bytes(count) > room:
                    images = None
        return count, np.stack(images) if images else None

    def _take(self, path: str, count: int, images: np.ndarray | None) -> None:
        self._counts[path] = count
        if images is not None and self._used_bytes + images.nbytes <= self._budget_bytes:
            self._cached[path] = images
            self._used_bytes += images.nbytes

    def _frames(self, path: str) -> Any:
        return video.frames(path, resize=self._resize, decoder=self._decoder)

    def _bytes(self, count: int) -> int:
        return count * self._resize[0] * self._resize[1] * 3


def to_input(batch: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """Return clips as a model reads them, as `video.normalize` does for one.

    batch: [N, T, H, W, 3] uint8 on any device; returns [N, 3, T, H, W] float32, contiguous, on the same device
    """
    if batch.dtype != torch.uint8 or batch.dim() != 5 or batch.shape[-1] != 3:
        raise InputError(f"clips: got {batch.dtype} {list(batch.shape)}, expected uint8 [N, T, H, W, 3]")
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (spec.mean, spec.std))
    scale, offset = (values.to(batch.device, torch.float32).view(1, 3, 1, 1, 1)
                     for values in (1 / (255 * std), -mean / std))
    clips = batch.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return clips.mul_(scale).add_(offset)
