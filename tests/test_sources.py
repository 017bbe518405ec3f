"""What may be named as a video, and the one line for everything else."""
import os
import socket

import pytest

from dance_deploy import video
from dance_deploy.errors import InputError, MissingPackageError, OperationError
from dance_deploy.sources import guess_content, printable, resolve


@pytest.mark.parametrize("source, live", [
    (0, True), ("0", True), ("12", True), ("/dev/video3", True), ("rtsp://host/stream", True), ("RTSP://host", True),
    ("http://host/clip.mp4", True), ("./0", False), ("clip.mp4", False), ("a:b", False), ("C:/clips/a.avi", False),
    (b"clip.mp4", False), ("", False), ("file:///tmp/a.mp4", False)])
def test_is_live(source, live):
    assert video.is_live(source) is live


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and text
    return text


@pytest.mark.parametrize("source, says", [
    ("", "empty"), ("/nowhere/a.mp4", "no such file"), ("a\0b", "cannot be read"), ("x" * 5000, "cannot be read"),
    ("gopher://host/a", "unknown kind of address"), (3.5, "named by"), (None, "named by"), (-1, "index of 0 or more"),
    (["a"], "named by")])
def test_wrong_names_are_refused(source, says):
    with pytest.raises(InputError) as error:
        video.frames(source)
    assert says in one_line(error)


def test_folder_pipe_socket_and_device_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        for path, says in ((tmp_path, "folder"), (tmp_path / "pipe.mp4", "pipe"), (tmp_path / "s.mp4", "socket"),
                           ("/dev/zero", "device")):
            with pytest.raises(InputError) as error:
                video.frames(path)
            assert says in one_line(error)


def test_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError) as error:
        video.frames(tmp_path / "a.mp4" / "b.mp4")
    assert "cannot be read" in one_line(error)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError) as error:
        video.frames(path)
    assert "permission denied" in one_line(error)


def test_absent_camera_is_refused():
    index = next(i for i in range(99, 200) if not os.path.exists(f"/dev/video{i}"))
    with pytest.raises(InputError) as error:
        video.frames(str(index))
    assert f"camera {index}" in one_line(error)


def test_password_of_an_address_is_not_shown():
    source = resolve("rtsp://user:secret@host/stream")
    assert "secret" not in source.name and "secret" in source.target


def test_stream_that_does_not_answer_is_an_operation_error():
    pytest.importorskip("av")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"rtsp://127.0.0.1:{taken.getsockname()[1]}/live"
        with pytest.raises(OperationError) as error:
            list(video.frames(address, decoder="pyav"))
    assert "127.0.0.1" in one_line(error)


def test_names_are_printed_on_one_line():
    assert printable("a\nb") == "a\\nb"
    assert printable("歩く ü") == "歩く ü"
    printable(os.fsdecode(b"\xff.mp4")).encode("utf-8")


def test_unknown_decoder_and_size_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="pyav, opencv"):
        video.frames(tmp_path / "a.mp4", decoder="ffmpeg")
    with pytest.raises(InputError, match="at least 1x1"):
        video.frames(tmp_path / "a.mp4", resize=(0, 4))


def test_missing_decoders_are_named(tmp_path, monkeypatch):
    import sys
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError, match="opencv-python-headless"):
        video.frames(tmp_path / "a.mp4")
    with pytest.raises(OperationError, match="pip install av"):
        video.frames(tmp_path / "a.mp4", decoder="pyav")


@pytest.mark.parametrize("head, says", [
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"\0\0\0\x20ftypisom", "moov"),
    (b"<!DOCTYPE html>", "web page"), (b"hello", "text"), (b"\xff\x00\x12", "not a video"),
    (b"<\xff\x00", "not a video")])
def test_guess_content(head, says):
    assert says in guess_content(head)
