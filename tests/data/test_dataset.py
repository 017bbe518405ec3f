"""Clips as tensors: which frames, the same ones again, whatever the cache and the workers."""
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")

from torch.utils.data import DataLoader  # noqa: E402

from dance_deploy.data.augment import NONE, Augmentation, jitter, random_crop  # noqa: E402
from dance_deploy.data.dataset import ClipDataset, even_indices, random_indices, to_input  # noqa: E402
from dance_deploy.data.encode import write_video  # noqa: E402
from dance_deploy.data.labelled import LabelledVideos  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.geometry import ClipSpec  # noqa: E402
from dance_deploy.video import center_crop, frames, normalize  # noqa: E402

SPEC = ClipSpec(4, 2, (36, 40), (32, 32), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
LENGTHS = (20, 3, 7, 12)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos of LENGTHS frames; the brightness of a frame is 8 times its number."""
    folder = tmp_path_factory.mktemp("videos")
    listed = []
    for i, count in enumerate(LENGTHS):
        write_video(folder / f"{i}.mp4", [np.full((36, 40, 3), 8 * n, np.uint8) for n in range(count)])
        listed.append((str(folder / f"{i}.mp4"), i % 2))
    return LabelledVideos(("a", "b"), tuple(listed))


def numbers(clip):
    """The frame numbers of a clip that was not changed in brightness."""
    return np.rint(clip.numpy().mean(axis=(1, 2, 3)) / 8).astype(int).tolist()


def test_eval_windows_are_spread_evenly(videos):
    data = ClipDataset(videos, SPEC, train=False, windows=3)
    assert len(data) == 12
    items = [data[i] for i in range(12)]
    assert [numbers(clip) for clip, _, _ in items[:3]] == [[0, 2, 4, 6], [6, 8, 10, 12], [13, 15, 17, 19]]
    assert [numbers(clip) for clip, _, _ in items[3:6]] == [[0, 2, 2, 2]] * 3  # three frames: the last repeats
    assert [(label, video) for _, label, video in items[::3]] == [(0, 0), (1, 1), (0, 2), (1, 3)]
    assert all(c.shape == (4, 32, 32, 3) and c.dtype == torch.uint8 and c.is_contiguous() for c, _, _ in items)
    assert numbers(ClipDataset(videos, SPEC, train=False)[0][0]) == [6, 8, 10, 12]


def test_iteration_ends(videos):
    assert len(list(ClipDataset(videos, SPEC, train=True))) == 4


def test_eval_clip_is_what_running_would_see(videos):
    path = videos.videos[2][0]
    images = [center_crop(f.image, SPEC.size) for f in frames(path, resize=SPEC.resize)][::2]
    assert np.array_equal(ClipDataset(videos, SPEC, train=False)[2][0].numpy(), np.stack(images))


def test_items_depend_on_seed_epoch_and_index_only(videos):
    plain = ClipDataset(videos, SPEC, True, windows=2, seed=4)
    first = [plain[i][0] for i in range(8)]
    for other in (ClipDataset(videos, SPEC, True, windows=2, seed=4, cache_bytes=0),
                  ClipDataset(videos, SPEC, True, windows=2, seed=4, cache_bytes=36 * 40 * 3 * 13)):
        for i in (5, 2, 7, 0, 0, 1, 3, 4, 6):
            assert torch.equal(other[i][0], first[i])
    plain.set_epoch(1)
    assert any(not torch.equal(plain[i][0], first[i]) for i in range(8))
    plain.set_epoch(0)
    assert torch.equal(plain[3][0], first[3])
    assert any(not torch.equal(ClipDataset(videos, SPEC, True, windows=2, seed=5)[i][0], first[i]) for i in range(8))


def test_cache_stays_within_its_budget(videos):
    frame_bytes = 36 * 40 * 3
    for budget, held in ((0, 0), (frame_bytes * 5, 1), (frame_bytes * 10, 2), (frame_bytes * 42, 4)):
        data = ClipDataset(videos, SPEC, False, cache_bytes=budget)
        assert data.preload(threads=1) == held
        used = sum(array.nbytes for array in data._store._cached.values())
        assert used == data._store._used_bytes <= budget


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_load_what_one_would(videos, threads):
    """Each video once, in order, the same frames; with little room fewer are kept, and never more than it."""
    one, many = (ClipDataset(videos, SPEC, False) for _ in range(2))
    assert one.preload(threads=1) == many.preload(threads=threads) == len(videos)
    for path, kept in one._store._cached.items():
        assert np.array_equal(kept, many._store._cached[path])
    assert list(many._store._cached) == [path for path, _ in videos.videos]
    twice = LabelledVideos(videos.labels, videos.videos * 2)
    for budget in (0, 36 * 40 * 3 * 12, 36 * 40 * 3 * 30):
        data, seen = ClipDataset(twice, SPEC, False, cache_bytes=budget), []
        assert data.preload(lambda *p, seen=seen: seen.append(p), threads=threads) <= len(videos)
        assert seen == [(i, len(twice)) for i in range(1, len(twice) + 1)]
        assert sum(kept.nbytes for kept in data._store._cached.values()) <= budget
        assert torch.equal(data[3][0], one[3][0])


def test_threads_stop_at_the_first_broken_video(videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    paths = [*videos.videos[:2], (str(tmp_path / "bad.mp4"), 0), *videos.videos[2:]]
    data, seen = ClipDataset(LabelledVideos(videos.labels, tuple(paths)), SPEC, False), []
    with pytest.raises(InputError, match=r"bad\.mp4"):
        data.preload(lambda *p: seen.append(p), threads=2)
    assert seen == [(1, 5), (2, 5)]


def test_preloaded_videos_are_not_read_again(videos, tmp_path):
    copy = tmp_path / "a.mp4"
    with open(videos.videos[0][0], "rb") as stream:
        copy.write_bytes(stream.read())
    data = ClipDataset(LabelledVideos(("a",), ((str(copy), 0),)), SPEC, False)
    seen = []
    data.preload(progress=lambda *p: seen.append(p))
    copy.unlink()
    assert seen == [(1, 1)] and numbers(data[0][0]) == [6, 8, 10, 12]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_items_and_follow_the_epoch(videos, method):
    data = ClipDataset(videos, SPEC, True, windows=2, seed=7)
    loader = DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True, multiprocessing_context=method)
    for epoch in (0, 3):
        data.set_epoch(epoch)
        found = torch.cat([clips for clips, _, _ in loader])
        assert torch.equal(found, torch.stack([data[i][0] for i in range(8)]))


def test_pickle_leaves_the_frames_out(videos):
    data = ClipDataset(videos, SPEC, False)
    data.preload()
    assert len(pickle.dumps(data._store)) < 5000


def test_broken_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.mp4"):
        ClipDataset(LabelledVideos(("a",), ((str(tmp_path / "a.mp4"), 0),)), SPEC, True)[0]


def test_wrong_arguments(videos):
    with pytest.raises(InputError, match="no videos to train on"):
        ClipDataset(LabelledVideos(("a",), ()), SPEC, True)
    with pytest.raises(InputError, match="windows"):
        ClipDataset(videos, SPEC, True, 0)


def test_random_windows_reach_every_start():
    rng = np.random.default_rng(0)
    starts = {int(random_indices(10, SPEC, rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3}  # span 7 of 10
    assert all(np.array_equal(np.diff(random_indices(10, SPEC, rng)), [2, 2, 2]) for _ in range(20))
    assert even_indices(5, SPEC, 0, 1).tolist() == [0, 2, 4, 4]


def test_random_crop_is_one_place_for_all_frames_and_flips_only_if_asked():
    rng = np.random.default_rng(0)
    image = np.arange(36 * 40, dtype=np.uint16).reshape(36, 40, 1).repeat(3, 2)
    clip = np.stack([image] * 3)
    corners, mirrored = set(), 0
    for _ in range(300):
        crop = random_crop(clip, (32, 32), Augmentation(shift=0.0, flip=True), rng)
        assert np.array_equal(crop[0], crop[1]) and np.array_equal(crop[0], crop[2])
        back = crop[0, 0, 0, 0] > crop[0, 0, 1, 0]
        mirrored += back
        corner = int(crop[0, 0, 31 if back else 0, 0])
        row, column = divmod(corner, 40)
        upright = crop[0, :, ::-1] if back else crop[0]
        assert np.array_equal(upright, image[row:row + 32, column:column + 32])
        corners.add((row, column))
    assert corners == {(r, c) for r in range(5) for c in range(9)} and 100 < mirrored < 200
    for _ in range(50):
        crop = random_crop(clip, (32, 32), Augmentation(shift=0.2), rng)
        assert np.all(np.diff(crop[0, :, :, 0].astype(int), axis=1) >= 0)  # never mirrored, border repeated


def test_jitter_keeps_order_and_type():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert jitter(levels, NONE, np.random.default_rng(0)) is levels
    for seed in range(20):
        changed = jitter(levels, Augmentation(), np.random.default_rng(seed))
        assert changed.dtype == np.uint8 and np.all(np.diff(changed[..., 0].ravel().astype(int)) >= 0)
        assert np.array_equal(changed[..., 0], changed[..., 1])


def test_to_input_equals_normalize():
    batch = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = to_input(batch, SPEC)
    assert found.shape == (2, 3, 4, 32, 32) and found.dtype == torch.float32 and found.is_contiguous()
    wanted = np.concatenate([normalize(clip.numpy(), SPEC) for clip in batch])
    # same formula; a fused multiply-add may save one rounding of the product
    size = (np.abs(wanted) + 2 * np.max(np.array(SPEC.mean) / SPEC.std))
    assert np.all(np.abs(found.numpy() - wanted) <= np.finfo(np.float32).eps * size)
    with pytest.raises(InputError, match="expected uint8"):
        to_input(batch.float(), SPEC)
    with pytest.raises(InputError, match="expected uint8"):
        to_input(batch[0], SPEC)
