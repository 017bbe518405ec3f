"""The picture of what is kept: the right places are dark, and the command writes it whole or says why not."""

import numpy as np

from dance_deploy.report.kept_maps import DROPPED_BRIGHTNESS, shaded


def test_dropped_places_are_dark_and_kept_ones_untouched():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    keep = np.array([[True, False], [False, True], [True, True]])
    result = shaded(image, keep)
    whole = np.repeat(np.repeat(keep, 2, axis=0), 4, axis=1)
    np.testing.assert_array_equal(result[whole], image[whole])
    np.testing.assert_array_equal(result[~whole], (image[~whole] * DROPPED_BRIGHTNESS).astype(np.uint8))


def test_command_draws_a_video(tiny_bundle, python, tmp_path):
    from tiny_video import write_video

    video, output = tmp_path / "square.mp4", tmp_path / "kept.png"
    write_video(video, 60)
    done = python("-m", "dance_deploy.cli.kept_maps", tiny_bundle, str(video), str(video), "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"\x89PNG")


def test_a_gate_that_is_not_there_is_one_line(tiny_bundle, python, tmp_path):
    output = tmp_path / "kept.png"
    done = python("-m", "dance_deploy.cli.kept_maps", tiny_bundle, "x.mp4", "-o", str(output), "--gate", "99")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "gate 99" in done.stderr
    assert not output.exists()
