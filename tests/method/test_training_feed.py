"""What training reads: every video is decoded before the first epoch; what ends a decoding process is one line."""
import gc
import os
import shutil
import time
from functools import partial

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")

from torch.utils.data import DataLoader, Dataset  # noqa: E402
from training_helpers import TINY_CLIP  # noqa: E402

from dance_deploy.data import open_dataset  # noqa: E402
from dance_deploy.data.dataset import ClipDataset  # noqa: E402
from dance_deploy.errors import InputError, OperationError  # noqa: E402
from dance_deploy.method.training.feed import (  # noqa: E402
    decoded,
    decoding_processes,
    evaluation_batches,
    loaded,
    make_data,
)
from dance_deploy.method.training.settings import TrainSettings  # noqa: E402

SETTINGS = TrainSettings(windows=1, eval_windows=1)


@pytest.fixture
def splits(tiny_videos, tmp_path):
    """The tiny data set in a folder of its own, whose files may be spoilt."""
    shutil.copytree(tiny_videos, tmp_path / "videos")
    return open_dataset(tmp_path / "videos")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_damaged_video_is_known_before_the_first_epoch(splits, part):
    path = getattr(splits, part).videos[-1][0]
    with open(path, "r+b") as stream:
        stream.truncate(os.path.getsize(path) * 2 // 3)
    with pytest.raises(InputError, match="--skip-unreadable leaves such videos out") as error:
        decoded(make_data(splits, TINY_CLIP, SETTINGS))
    assert path in str(error.value) and "\n" not in str(error.value)
    if part != "train":
        decoded(make_data(splits, TINY_CLIP, SETTINGS), measures=False)  # another process reads these


def test_progress_goes_through_all_parts_once(splits):
    told = []
    data = make_data(splits, TINY_CLIP, SETTINGS)
    assert data.workers > 0 and decoded(data, progress=lambda *counts: told.append(counts)).workers == 0
    total = len(splits.train) + len(splits.val) + len(splits.test)
    assert told == [(done, total) for done in range(1, total + 1)]


def test_a_video_that_a_decoding_process_cannot_read_is_one_line(splits):
    dataset = ClipDataset(splits.val, TINY_CLIP, False, cache_bytes=1)
    path = splits.val.videos[0][0]
    os.unlink(path)
    with pytest.raises(InputError) as error:
        list(evaluation_batches(dataset, workers=1, device=torch.device("cpu")))
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.fixture
def forgotten():
    """Until a loader whose process was killed is gone, torch raises that again whenever any other process ends."""
    yield
    gc.collect()


class Calls(Dataset):
    """Four clips; to read one is to call `action` in a decoding process."""

    def __init__(self, action):
        self.action = action

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.action()


def test_a_decoding_process_that_is_killed_is_one_line(forgotten):
    with pytest.raises(OperationError, match="a process that decodes videos was killed"), decoding_processes():
        list(loaded(DataLoader(Calls(partial(os._exit, 9)), num_workers=1)))  # as a system without memory ends it


def test_one_that_is_killed_while_the_network_computes_is_too(forgotten):
    with pytest.raises(OperationError, match="a process that decodes videos was killed"), decoding_processes():
        batches = iter(DataLoader(Calls(partial(time.sleep, 60)), num_workers=1))
        batches._workers[0].kill()
        for _ in range(600):  # a step of training; torch's handler of SIGCHLD ends it
            time.sleep(0.1)
