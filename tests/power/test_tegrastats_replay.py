"""The replayer behaves like the real tegrastats."""
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tegrastats_lines import LINES, has_ended

pytestmark = pytest.mark.real_time
REPLAY = str(Path(__file__).resolve().parents[2] / "tools" / "tegrastats_replay.py")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "a.log"
    lines = [LINES[name][0] for name in ("nano r32", "thor r39", "tx2 nx")]
    path.write_text("\n".join(["Fri Mar  7 08:07:06 UTC 2025"] + lines) + "\n")
    return str(path)


def samples(log):
    return Path(log).read_text().splitlines()[1:]


def replay(*options, timeout=30):
    return subprocess.run([sys.executable, REPLAY, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="utf-8", timeout=timeout)


def test_samples_come_byte_for_byte_and_the_rest_is_left_out(log):
    done = replay("--log", log, "--interval", "1", "--at-end", "exit")
    assert done.returncode == 0 and done.stdout.splitlines() == samples(log)


@pytest.mark.parametrize("at_end, order", [("loop", (0, 1, 2, 0, 1, 2, 0)), ("hold", (0, 1, 2, 2, 2, 2, 2))])
def test_it_never_ends_by_itself(log, at_end, order):
    done = replay("--log", log, "--interval", "1", "--at-end", at_end, "--die-after", "7")
    assert done.stdout.splitlines() == [samples(log)[i] for i in order]
    assert done.returncode == 1 and "ended after 7 samples" in done.stderr


def test_the_pace_is_the_interval(log):
    began_s = time.monotonic()
    replay("--log", log, "--interval", "40", "--overhead-ms", "10", "--die-after", "8")
    assert time.monotonic() - began_s >= 8 * 0.050


def test_a_reader_that_leaves_ends_it(log):
    with subprocess.Popen([sys.executable, REPLAY, "--log", log, "--interval", "1"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(20) == 0


def test_lines_kept_back_to_a_pipe_come_in_blocks(log):
    with subprocess.Popen([sys.executable, REPLAY, "--log", log, "--interval", "5", "--in-blocks"],
                          stdout=subprocess.PIPE, bufsize=0) as process:
        assert len(process.stdout.read(8192)) >= 4096
        process.terminate()


def test_start_makes_a_daemon_and_stop_ends_it(log, tmp_path):
    pid_file, out = str(tmp_path / "pid"), tmp_path / "out.log"
    options = ("--log", log, "--interval", "5", "--logfile", str(out), "--pid-file", pid_file)
    started = replay(*options, "--start")  # returns at once, though the daemon lives
    try:
        assert started.returncode == 0, started.stderr
        again = replay(*options, "--start")
        assert again.returncode == 2 and "runs already" in again.stderr
        for _ in range(200):
            if len(out.read_text().splitlines()) >= 4:
                break
            time.sleep(0.02)
        pid = int(Path(pid_file).read_text())
    finally:
        stopped = replay("--stop", "--pid-file", pid_file)
    assert stopped.returncode == 0, stopped.stderr
    assert has_ended(pid)
    lines = out.read_text().splitlines()
    assert len(lines) >= 4 and lines[:3] == samples(log)
    nothing = replay("--stop", "--pid-file", pid_file)
    assert nothing.returncode == 2 and "none was started" in nothing.stderr


def test_wrong_usage(log, tmp_path):
    (tmp_path / "no.log").write_text("hello\n")
    no_log = ("--log", str(tmp_path / "no.log"))
    assert "holds no line of tegrastats" in replay(*no_log).stderr
    for options in ((), ("--log", log, "--interval", "0"), no_log, ("--log", log, "--nope")):
        assert replay(*options).returncode == 2
    assert replay("--log", str(tmp_path / "absent")).returncode == 1
