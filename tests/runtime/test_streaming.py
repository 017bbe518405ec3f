"""From inputs to results: what is found, in which order, and with how much memory."""
import threading

import numpy as np
import pytest
from tiny_video import write_video

from dance_deploy import video
from dance_deploy.errors import InputError
from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.streaming import Input, inputs_from_argument, results

SPAN = 7  # frames of a window: 4 with a stride of 2


@pytest.fixture(scope="module")
def runner(tiny_bundle):
    with open_runner(tiny_bundle, dense=True, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "moving.mp4", 40)


def file_input(path):
    return Input(str(path), "name", False)


def test_a_folder_is_searched_in_sorted_order(tmp_path):
    for name in ("b.mp4", "a.AVI", "sub/deeper/z.mkv", "sub/a.mp4", "notes.txt", ".hidden.mp4", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = inputs_from_argument(str(tmp_path))
    assert [source.target[len(str(tmp_path)) + 1:] for source in found] == [
        "a.AVI", "b.mp4", "sub/a.mp4", "sub/deeper/z.mkv"]
    assert not any(source.live for source in found)


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no video"):
        inputs_from_argument(str(tmp_path))


def test_cameras_and_addresses_are_live_and_passwords_hidden():
    assert inputs_from_argument("rtsp://me:secret@host/cam") == [
        Input("rtsp://me:secret@host/cam", "rtsp://***@host/cam", True)]
    assert inputs_from_argument("0")[0].live
    assert not inputs_from_argument("./0")[0].live


def test_windows_are_those_of_video_and_results_those_of_infer(runner, clip_file):
    spec = runner.manifest.clip
    expected = list(video.windows(video.frames(clip_file, resize=spec.resize), spec))
    found = list(results(runner, file_input(clip_file), budget=0.4))
    assert len(found) == len(expected) == 40 // 8
    for item, window in zip(found, expected):
        assert (item.window.start_s, item.window.end_s) == (window.start_s, window.end_s)
        alone = runner.infer(video.normalize(window.frames, spec), 0.4)
        np.testing.assert_array_equal(item.result.logits, alone.logits)
        assert item.result.kept.tolist() == alone.kept.tolist()
        assert item.dropped == 0


def test_hop_limit_and_dense(runner, clip_file):
    assert len(list(results(runner, file_input(clip_file), hop=1))) == 40 - SPAN + 1
    assert len(list(results(runner, file_input(clip_file), hop=1, limit=5))) == 5
    assert all(item.result.masks is None for item in results(runner, file_input(clip_file), dense=True))
    assert [thread for thread in threading.enumerate() if thread.name == "dance-decode"] == []


def test_a_short_video_needs_pad(runner, tmp_path):
    short = write_video(tmp_path / "short.mp4", SPAN - 2)
    with pytest.raises(InputError, match="--pad"):
        list(results(runner, file_input(short)))
    assert len(list(results(runner, file_input(short), pad=True))) == 1


def test_a_missing_file_is_an_input_error(runner, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(results(runner, file_input(tmp_path / "absent.mp4")))


MEASURE = """
import sys
from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.streaming import Input, results

def resident_bytes():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

with open_runner(sys.argv[1], threads=1) as runner:
    readings = [resident_bytes() for _ in results(runner, Input(sys.argv[2], "long", False))]
print(len(readings), readings[len(readings) // 5], max(readings))
"""


def test_memory_stays_flat_over_a_long_video(tiny_bundle, tmp_path, python):
    frames, width, height = 3000, 160, 120
    path = write_video(tmp_path / "long.mp4", frames, width=width, height=height)
    done = python("-c", MEASURE, tiny_bundle, path)
    assert done.returncode == 0, done.stderr
    windows, early, largest = map(int, done.stdout.split())
    assert windows == frames // 8
    # a tenth of what keeping the remaining frames would need
    assert largest - early < 0.8 * frames * width * height * 3 / 10
