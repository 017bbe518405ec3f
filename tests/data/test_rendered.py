"""The rendered data set: the same bytes every time, classes by motion only, difficulty that can be measured."""
import csv
import shutil
import time

import numpy as np
import pytest

from dance_deploy.data import CLASSES, open_dataset, render_clip, render_dataset, rendered
from dance_deploy.data.shapes import shape_cover
from dance_deploy.errors import InputError
from dance_deploy.video import frames, probe

BACKWARDS = {"left": "right", "up": "down", "counter_clockwise": "clockwise", "shrinking": "growing"}


@pytest.mark.parametrize("difficulty", [0.0, 0.7])
@pytest.mark.parametrize("one, other", BACKWARDS.items())
def test_one_of_a_pair_is_the_other_backwards(one, other, difficulty):
    """So neither single frames nor shuffled ones can tell the two apart."""
    first, second = (render_clip(c, difficulty, 5, frames=12, size=(32, 48)) for c in (one, other))
    assert np.array_equal(first, second[::-1])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("label", CLASSES)
def test_same_arguments_same_bytes(label):
    a, b = (render_clip(label, 0.4, 3, frames=6, size=(32, 32)) for _ in range(2))
    assert a.shape == (6, 32, 32, 3) and a.dtype == np.uint8 and np.array_equal(a, b)
    assert np.array_equal(a, render_clip(CLASSES.index(label), 0.4, 3, frames=6, size=(32, 32)))
    for difficulty, seed in ((0.4, 4), (0.5, 3)):
        assert not np.array_equal(a, render_clip(label, difficulty, seed, frames=6, size=(32, 32)))


def shape_mask(clip):
    """Where an easy clip differs from its background colour: [T, H, W] bool."""
    grey = clip.astype(float).mean(axis=3)
    return np.abs(grey - np.median(grey)) > 30


@pytest.mark.parametrize("label, axis, sign", [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_shapes_move_where_the_class_says(label, axis, sign):
    for seed in range(5):
        places = [_direction(np.argwhere(mask)[:, axis], 112) for mask in shape_mask(render_clip(label, 0.0, seed))]
        moved = (np.diff(places) + np.pi) % (2 * np.pi) - np.pi  # on a circle: what leaves enters on the other side
        assert sign * moved.sum() > 2 * np.pi * 0.4


def _direction(places, length):
    """Return the mean of places on a circle of the given length, as an angle."""
    return np.angle(np.exp(2j * np.pi * places / length).mean())


@pytest.mark.parametrize("label, sign", [("growing", 1), ("shrinking", -1)])
def test_shapes_change_size_as_the_class_says(label, sign):
    for seed in range(5):
        areas = shape_mask(render_clip(label, 0.0, seed)).sum(axis=(1, 2))
        growth = sign * np.diff(np.log(areas))
        assert np.median(growth) > 0.02 and np.sum(growth < -0.5) <= 1  # it starts again at most once


@pytest.mark.parametrize("label, sign", [("clockwise", 1), ("counter_clockwise", -1)])
def test_shapes_turn_as_the_class_says(label, sign):
    seen = 0
    for seed in range(12):
        axes = [_long_axis(mask) for mask in shape_mask(render_clip(label, 0.0, seed))]
        if min(length for _, length in axes) < 0.3:
            continue  # nearly as wide as long: no axis to follow
        turned = (np.diff([angle for angle, _ in axes]) + np.pi / 2) % np.pi - np.pi / 2
        assert sign * turned.sum() > 2 * np.pi * 0.5
        seen += 1
    assert seen >= 3


def _long_axis(mask):
    """Return the direction of the long axis of what the mask shows (y points down: clockwise grows), and how long."""
    height, width = mask.shape
    y, x = np.argwhere(mask).T
    y, x = ((v - round(_direction(v, n) / (2 * np.pi) * n) + n // 2) % n for v, n in ((y, height), (x, width)))
    y, x = y - y.mean(), x - x.mean()
    across, along = 2 * (x * y).mean(), (x * x).mean() - (y * y).mean()
    return np.arctan2(across, along) / 2, np.hypot(across, along) / ((x * x).mean() + (y * y).mean())


def test_angle_is_clockwise():
    cover = shape_cover("bar", np.array([[32.0, 32.0]] * 2), np.array([0.0, np.pi / 4]), np.array([20.0] * 2), (64, 64))
    assert cover[0, 32, 46] == 1 and cover[0, 42, 42] == 0
    assert cover[1, 42, 42] == 1 and cover[1, 22, 42] == 0  # from right to the lower right


@pytest.mark.parametrize("pair", rendered._PAIRS)
def test_one_frame_does_not_tell_the_direction(pair):
    """At any moment, what changes is spread evenly over its range; so are angle and size in every class."""
    count, size = 1000, (96, 112)
    drawn = [rendered._motion(pair, 0.0, np.random.default_rng([s, 77]), 5, size) for s in range(count)]
    center, angle, radius = (np.stack(values) for values in zip(*drawn, strict=True))
    shares = {"turn": angle / (2 * np.pi), "size": np.log(radius / (0.22 * 96)) + 0.5,
              "vertical": center[..., 0] / 96, "horizontal": center[..., 1] / 112}
    for name in {pair, "turn", "size"}:
        for moment in (0, 2, 4):
            for wave in (1, 2):  # for other seeds each of these would fail once in ten million
                assert abs(np.exp(2j * np.pi * wave * shares[name][:, moment]).mean()) < np.sqrt(16 / count)


def test_difficulty_adds_noise_and_takes_contrast():
    spread = []
    for difficulty in (0.0, 0.5, 1.0):
        clips = [render_clip("left", difficulty, s, frames=4, size=(64, 64)).astype(float) for s in range(4)]
        spread.append(np.mean([np.abs(np.diff(c, axis=2)).mean() for c in clips]))
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("options", [{"label": "sideways"}, {"label": 8}, {"label": -1}, {"difficulty": 1.5},
                                     {"difficulty": float("nan")}, {"seed": -1}, {"frames": 0}, {"size": (8, 64)}])
def test_wrong_arguments(options):
    with pytest.raises(InputError, match="rendered clip"):
        render_clip(**{"label": "left", **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("av")
    seen = []
    path = render_dataset(tmp_path_factory.mktemp("data") / "set", 6, 1, size=(32, 48), frames=10,
                          progress=lambda *p: seen.append(p))
    assert seen == [(i, 48) for i in range(1, 49)]
    return path


def test_files_are_videos_of_what_was_rendered(folder):
    with open(folder / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 48 and len({r["seed"] for r in rows}) == 48
    for row in rows[::7]:
        clip = render_clip(row["label"], float(row["difficulty"]), int(row["seed"]), frames=10, size=(32, 48))
        found = np.stack([f.image for f in frames(folder / row["path"])])
        assert found.shape == clip.shape and np.abs(found.mean(axis=3) - clip.mean(axis=3)).mean() < 4
        assert probe(folder / row["path"]).fps == pytest.approx(25)


def test_every_split_has_every_class_and_easy_and_hard_clips(folder):
    splits = open_dataset("rendered", render_dir=folder, clips_per_class=6, seed=1, size=(32, 48), frames=10)
    assert splits.labels == CLASSES
    by_path = rendered.read_difficulties(folder)
    for part in (splits.train, splits.val, splits.test):
        assert min(part.counts().values()) == max(part.counts().values()) > 0
    trained_on = [by_path[path] for path, _ in splits.train.videos]
    assert max(trained_on) > 0.8 and min(trained_on) < 0.2
    by_folders = open_dataset(folder)  # the split files say the same as the manifest
    assert [sorted(getattr(by_folders, s).videos) for s in ("train", "val", "test")] == [
        sorted(getattr(splits, s).videos) for s in ("train", "val", "test")]


def test_reused_where_it_is_the_same_and_refused_where_not(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    render_dataset(folder, 6, 1, size=(32, 48), frames=10)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(InputError, match="holds something else"):
        render_dataset(folder, 7, 1, size=(32, 48), frames=10)


def test_of_two_that_render_at_once_the_second_takes_what_is_there(tmp_path, monkeypatch):
    wanted = tmp_path / "shapes"
    real = rendered._render_files

    def slower(folder, *rest):
        real(folder, *rest)
        shutil.copytree(folder, wanted)

    monkeypatch.setattr(rendered, "_render_files", slower)
    assert render_dataset(wanted, 2, size=(32, 32), frames=4) == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shapes"]


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        render_dataset(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_same_seed_same_files(folder, tmp_path):
    again = render_dataset(tmp_path / "again", 6, 1, size=(32, 48), frames=10)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


def test_interrupted_rendering_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    pytest.importorskip("av")
    with pytest.raises(KeyboardInterrupt):
        render_dataset(tmp_path / "set", 2, size=(32, 32), frames=4, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"clips_per_class": 1}, {"size": (33, 32)}])
def test_wrong_data_set_arguments(tmp_path, options):
    with pytest.raises(InputError, match="rendered data"):
        render_dataset(tmp_path / "set", **options)
    assert list(tmp_path.iterdir()) == []


def test_speed():
    """160 clips of 48 frames at 112x112 should take less than 20 s of one core, encoding included."""
    pytest.importorskip("av")
    began = time.process_time()
    for seed in range(4):
        render_clip(CLASSES[seed], 0.25 + 0.16 * seed, seed)
    # encoding takes as long again at most; processor time, so that a busy machine does not matter
    assert (time.process_time() - began) / 4 * 160 < 20
