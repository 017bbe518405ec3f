"""tegrastats as a source: a live process (the replayer or a shell), and logs."""
import sys
import threading
import time
from pathlib import Path

import pytest
from tegrastats_lines import LINES, has_ended

from dance_deploy.errors import InputError, OperationError
from dance_deploy.power.tegrastats_log import TegrastatsLogSource
from dance_deploy.power.tegrastats_source import TegrastatsSource

pytestmark = pytest.mark.real_time
REPLAY = str(Path(__file__).resolve().parents[2] / "tools" / "tegrastats_replay.py")
NANO = "RAM 1/2MB CPU [0%@1] GPU@30C PMIC@50C CV0@-256C POM_5V_IN {0}/{0} POM_5V_GPU 0/0 POM_5V_CPU 100/100"
# the least step between two arrivals that a busy machine does not turn into one
INTERVAL_S = 0.05


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("".join(NANO.format(1000 + i) + "\n" for i in range(30)))
    return str(path)


def replayed(log, *options, interval_s=INTERVAL_S, **rest):
    return TegrastatsSource([sys.executable, REPLAY, "--log", log, *options], interval_s=interval_s, **rest)


def shell(script, **rest):
    return TegrastatsSource(["sh", "-c", script], interval_s=INTERVAL_S, **rest)


def power_until_it_dies(source):
    found = []
    with pytest.raises(OperationError) as caught:
        while True:
            found.append(source.read().rails_mw["POM_5V_IN"])
    return found, str(caught.value)


def test_live(log):
    with replayed(log) as source:
        assert source.rails == ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")
        assert source.total_rails == ("POM_5V_IN",) and source.scope == "module" and source.warnings == []
        readings = [source.read() for _ in range(8)]
        now_s = time.monotonic()
    assert [reading.rails_mw["POM_5V_IN"] for reading in readings] == [1000 + i for i in range(8)]
    assert readings[0].rails_mw == {"POM_5V_IN": 1000.0, "POM_5V_GPU": 0.0, "POM_5V_CPU": 100.0}
    assert readings[0].extra == {"temps_c": {"GPU": 30}, "cpu_load_pct": [0]}  # no constants, no sensors that are off
    times = [reading.time_s for reading in readings]
    assert all(later > earlier for earlier, later in zip(times, times[1:])) and times[-1] <= now_s
    assert times[-1] - times[0] > 4 * INTERVAL_S  # 7 intervals, less what starting took


def test_samples_are_stamped_when_they_arrive_not_when_they_are_read(log):
    with replayed(log) as source:
        time.sleep(10 * INTERVAL_S)
        before_s = time.monotonic()
        readings = [source.read() for _ in range(5)]
    assert readings[-1].time_s < before_s
    assert readings[4].time_s - readings[1].time_s > INTERVAL_S


def test_blocks_are_spread_and_said(log):
    with shell(f"sleep 0.1; cat {log}; sleep 30") as source:
        times = [source.read().time_s for _ in range(30)]
        assert any("blocks" in line for line in source.warnings)
    steps = [later - earlier for earlier, later in zip(times, times[1:])]
    assert min(steps) > 0.0


def test_garbage_and_cut_lines_are_passed_over():
    line = NANO.format(1500)
    lines = ("[sudo] password:", line[:20], line, "xyz", line[:-25])
    script = "".join(f"echo '{each}'; " for each in lines) + f"printf %s '{line}'; exit 0"
    with shell(script) as source:
        found, error = power_until_it_dies(source)
    # the last has no newline: it may have been cut inside a number; the cut one keeps what is whole
    assert found == [1500.0, 1500.0] and "exit code 0" in error


def test_a_process_that_dies_says_how(log):
    with replayed(log, "--die-after", "3") as source:
        found, error = power_until_it_dies(source)
        assert found == [1000.0, 1001.0, 1002.0]
        assert "ended with exit code 1; it said: tegrastats_replay: ended after 3 samples" in error
        with pytest.raises(OperationError):
            source.read()
    with pytest.raises(OperationError, match="signal 9"):
        shell("kill -9 $$").open()


@pytest.mark.parametrize("script, why", [
    ("exit 0", "ended with exit code 0"), ("echo 'tegrastats: permission denied' >&2; exit 3", "3; it said: .*denied"),
    ("sleep 60", "printed nothing for 0.3 s"), ("echo Password: ; sleep 60", "nothing for 0.3 s; it said: Password:"),
    ("for i in 1 2 3; do echo '" + LINES["tx2 nx"][0] + "'; done; sleep 60", "no power rails")])
def test_a_source_that_gives_nothing_is_an_error_with_its_reason(script, why, tmp_path):
    source = TegrastatsSource(["sh", "-c", f"echo $$ > {tmp_path}/pid; {script}"], interval_s=0.01, patience_s=0.3)
    with pytest.raises(OperationError, match=why):
        source.open()
    assert has_ended(int((tmp_path / "pid").read_text()))  # nothing stays behind


def test_no_such_program(tmp_path):
    with pytest.raises(OperationError, match="cannot be run: No such file"):
        TegrastatsSource([str(tmp_path / "tegrastats")]).open()
    with pytest.raises(InputError, match="sampling interval is 0 ms"):
        TegrastatsSource(interval_s=0.0)


def test_permuted_labels_are_said_and_there_is_no_total(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(NANO.format(1000).replace("GPU 0/0", "GPU 8000/8000") + "\n")
    with replayed(str(path), interval_s=0.01) as source:
        assert source.total_rails == () and "permuted" in source.warnings[0]
        assert source.read().rails_mw["POM_5V_GPU"] == 8000.0


def test_unknown_rails_are_listed_and_the_total_is_asked_for(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("RAM 1/2MB CPU [0%@1] VDD_FOO 5mW/6mW NC 1mW/1mW VDD_FOO 7mW/7mW\n")
    with replayed(str(path), interval_s=0.01) as source:
        assert source.rails == ("VDD_FOO", "VDD_FOO (2)") and source.total_rails == ()
        assert "VDD_FOO" in source.warnings[0] and "--total" in source.warnings[0]
        assert source.read().rails_mw == {"VDD_FOO": 5.0, "VDD_FOO (2)": 7.0}


def test_close_wakes_a_read_and_leaves_no_process(log):
    source = shell(f"echo $$ > {log}.pid; head -1 {log}; sleep 60")
    source.open()
    source.read()
    threading.Timer(0.2, source.close).start()
    with pytest.raises(OperationError, match="closed"):
        source.read()
    source.close()
    assert has_ended(int(Path(log + ".pid").read_text()))


def test_the_child_dies_with_its_parent(log, python):
    """Killed outright there is nobody to call close(); the terminal that goes hangs the child up."""
    done = python("-c", f"""
import os, signal
from dance_deploy.power.tegrastats_source import TegrastatsSource
source = TegrastatsSource(["sh", "-c", "echo $$ > {log}.pid; exec {sys.executable} {REPLAY} --log {log} --interval 20"])
source.open()
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert done.returncode == -9, done.stderr
    assert has_ended(int(Path(log + ".pid").read_text()))


def test_log_as_fast_as_it_is_read(log):
    with TegrastatsLogSource(log, period_s=0.5, clock=lambda: 100.0) as source:
        readings = [source.read() for _ in range(30)]
        assert source.total_rails == ("POM_5V_IN",)
        with pytest.raises(OperationError, match="ends after 30 samples"):
            source.read()
    assert [reading.time_s for reading in readings] == [100.0 + 0.5 * i for i in range(30)]
    assert [reading.rails_mw["POM_5V_IN"] for reading in readings] == [1000.0 + i for i in range(30)]


def test_log_at_a_pace_waits_until_each_sample(log):
    now_s = [10.0]

    def wait(seconds):
        now_s[0] += seconds

    with TegrastatsLogSource(log, period_s=1.0, speed=4.0, clock=lambda: now_s[0], wait=wait) as source:
        for _ in range(9):
            last = source.read()
    assert now_s[0] == 10.0 + 8 / 4.0 and last.time_s == 18.0


def dated(seconds):
    return "".join(f"03-09-2025 08:{second // 60:02d}:{second % 60:02d} {NANO.format(1)}\n" for second in seconds)


def test_the_period_comes_from_the_printed_times(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(dated(int(i * 0.5) for i in range(81)))
    with TegrastatsLogSource(str(path)) as source:
        assert source.interval_s == 0.5


@pytest.mark.parametrize("text, why", [
    (NANO.format(1) + "\n", "no date and time"), (dated((30, 10, 50)), "set back"), (dated((0, 5)), "lasts 5 s"),
    (dated(range(60)).replace("03-09", "33-99"), "none"), (LINES["tx2 nx"][0], "has power rails"), ("", "no sample")])
def test_a_log_that_cannot_be_replayed_says_why(tmp_path, text, why):
    path = tmp_path / "a.log"
    path.write_text(text)
    with pytest.raises((InputError, OperationError), match=why):
        TegrastatsLogSource(str(path)).open()


def test_a_cut_line_in_a_log_is_a_gap(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(NANO.format(1) + "\n" + NANO.format(2)[:30] + "\n" + NANO.format(3) + "\n")
    with TegrastatsLogSource(str(path), period_s=1.0, clock=lambda: 0.0) as source:
        assert [source.read().time_s for _ in range(2)] == [0.0, 2.0]
    with pytest.raises(InputError, match="cannot be read"):
        TegrastatsLogSource(str(tmp_path / "absent")).open()
    with pytest.raises(InputError, match="replay speed is 0"):
        TegrastatsLogSource(str(path), speed=0)
