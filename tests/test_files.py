"""whole_file: all or nothing, whatever happens in between."""

import os
import stat
import subprocess
import sys

import pytest

from dance_deploy.errors import InputError, OperationError
from dance_deploy.files import check_writable, is_unfinished, whole_file


@pytest.mark.parametrize("mode, content", [("w", "grüße\n"), ("wb", b"\x00\xff")])
def test_writes_and_replaces(tmp_path, mode, content):
    path = tmp_path / "out"
    path.write_text("old")
    with whole_file(path, mode) as stream:
        stream.write(content)
        assert path.read_text() == "old"
    assert path.read_bytes() == (content.encode("utf-8") if mode == "w" else content)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_inside_leaves_the_old_file_alone(tmp_path, failure):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(failure), whole_file(path) as stream:
        stream.write("new")
        raise failure
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(OperationError, match="cannot write"), whole_file(tmp_path / "missing" / "out"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OperationError, match="cannot write"), whole_file(tmp_path / "folder"):
        pass
    assert os.listdir(tmp_path) == ["folder"]


def test_what_a_kill_leaves_is_known_by_its_name(tmp_path):
    code = "import os, sys; from dance_deploy.files import whole_file\nwith whole_file(sys.argv[1]): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.pt")],
                   cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    name, = os.listdir(tmp_path)
    assert is_unfinished(tmp_path / name) and name.startswith(".out.pt.")
    assert not any(map(is_unfinished, ["out.pt", ".out.pt", "out.pt.12345678", ".out.pt.mine", ".bash_history"]))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    code = ("import resource, signal, sys\n"
            "from dance_deploy.files import whole_file\n"
            "from dance_deploy.errors import OperationError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n"
            "    with whole_file(sys.argv[1], 'wb') as stream:\n"
            "        stream.write(bytes(100000))\n"
            "except OperationError as error:\n"
            "    print(error)\n")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True,
                          cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert "cannot write" in done.stdout and done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_others_may_read_the_file_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "out") as stream:
            stream.write("x")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with whole_file(pipe) as stream:
            stream.write("text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with whole_file(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "old").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "new", tmp_path / "old", tmp_path / "link", "/dev/null"):
        check_writable(path)
    for path in ("", tmp_path, tmp_path / "missing" / "out", tmp_path / "old" / "out", "/proc/out"):
        with pytest.raises(InputError, match="cannot be written"):
            check_writable(path)
    assert sorted(os.listdir(tmp_path)) == ["link", "old"] and (tmp_path / "old").read_text() == "x"
