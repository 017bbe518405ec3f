"""dance-power and dance-run --power as a user meets them."""
import ast
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from power_trees import hwmon_orin, iio_nano, rapl
from tiny_video import write_video

from dance_deploy.cli import entry
from dance_deploy.cli.power import app
from dance_deploy.cli.run import app as run_app
from dance_deploy.power import catalog

pytestmark = pytest.mark.real_time
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOTHING = [sys.executable, "-S", "-c", ""]
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(0.3)"]


@pytest.fixture
def call(capsys):
    """call(*arguments, app=...) -> (exit code, stdout, lines of stderr)."""
    def run(*arguments, app=app):
        code = entry.exit_code_of(app, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()
    return run


@pytest.fixture
def nano(tmp_path):
    return "ina3221=" + iio_nano(tmp_path / "nano")


def unpaused(call, told, *arguments, **options):
    """call(), up to four times until it told what `told` matches: a machine that stands still in between takes samples
    away, and what cannot be known is not told then."""
    for _ in range(4):
        found = call(*arguments, **options)
        if found[0] or re.search(told, found[1]):
            break
    return found


def test_record_writes_and_shows(call, nano, tmp_path):
    code, out, err = unpaused(call, r"energy +[\d.]+ J", "record", "--source", nano, "--interval-ms", 20, "--idle", 0.3,
                              "-o", tmp_path / "r.json", "--", *SLEEP)
    assert (code, err) == (0, ["idle for 0.3 s"])
    assert "total POM_5V_IN" in out and "idle     3.00 W" in out
    assert re.search(r"energy +\d+\.\d+ J \(no interval: too few values\) a run", out)
    tree = json.loads((tmp_path / "r.json").read_text())
    window = tree["windows"][1]
    assert window["total"]["energy_j"] == pytest.approx(3.0 * (window["end_s"] - window["start_s"]), rel=1e-6)
    assert tree["source"]["total_rails"] == ["POM_5V_IN"] and tree["source"]["scope"] == "module"
    assert set(window["before"]) >= {"power_mode", "cpu_mhz", "temps_c"}
    assert call("report", tmp_path / "r.json") == (0, out, [])


def test_compare_tells_what_it_found(call, nano, tmp_path):
    longer = " ".join([sys.executable, "-S", "-c", "'import time; time.sleep(0.25)'"])
    shorter = longer.replace("0.25", "0.1")
    options = ["compare", "--source", nano, "--interval-ms", 10, "--idle", 0, "--settle", 0, "--warmup", 0]
    code, out, _ = unpaused(call, r"LESS energy[\s\S]*from 5 pairs", *options, "--pairs", 5, "--most", 5, "-o",
                            tmp_path / "c.json", "--a", longer, "--b", shorter)
    assert code == 0 and "B takes LESS energy than A" in out and "from 5 pairs" in out
    assert "idle     not measured" in out and "above idle unknown" in out
    code, out, _ = call(*options, "--pairs", 3, "--most", 3, "--a", shorter, "--b", shorter)
    assert code == 0 and "INCONCLUSIVE" in out
    windows = json.loads((tmp_path / "c.json").read_text())["windows"]
    assert "".join(window["label"] for window in windows) == "abbaabbaab"


def test_windows_shorter_than_the_period_are_not_told(call, nano, tmp_path):
    code, out, _ = call("record", "--source", nano, "--interval-ms", 400, "--idle", 0, "-o", tmp_path / "r.json", "--",
                        *NOTHING)
    assert code == 0 and "energy   unknown" in out and "too few to tell its energy" in out


@pytest.mark.parametrize("arguments, code, said", [
    (["record", "--source", "wall", "-o", "OUT", "--", "true"], 2, "expected auto, one of ina3221, tegrastats"),
    (["record", "--source", "tegrastats=it's", "-o", "OUT", "--", "true"], 2, "No closing quotation"),
    (["record", "--source", "NANO", "--interval-ms", "0", "-o", "OUT", "--", "true"], 2, "sampling interval is 0 ms"),
    (["record", "--source", "NANO", "--interval-ms", "nan", "-o", "OUT", "--", "true"], 2, "sampling interval is nan"),
    (["record", "--source", "NANO", "--total", "VDD_IN", "-o", "OUT", "--", "true"], 2, "there are: POM_5V_IN"),
    (["record", "--source", "NANO", "--total", "POM_5V_IN, POM_5V_IN", "-o", "OUT", "--", "true"], 2, "a rail twice"),
    (["record", "--source", "NANO", "--total", ",", "-o", "OUT", "--", "true"], 2, "names no rail"),
    (["record", "--source", "rapl=EMPTY", "-o", "OUT", "--", "true"], 1, "modprobe"),
    (["record", "--source", "NANO", "--idle", "0", "-o", "OUT", "--", "/no/such"], 2, "command '/no/such'"),
    (["record", "--source", "NANO", "--idle", "-1", "-o", "OUT", "--", "true"], 2, "idle"),
    (["record", "--source", "NANO", "--precision", "0", "-o", "OUT", "--", "true"], 2, "precision"),
    (["record", "--source", "NANO", "-o", "EMPTY", "--", "true"], 2, "cannot be written"),
    (["record", "--source", "NANO", "-o", "OUT"], 2, "CMD"),
    (["record", "--source", "NANO", "--idle", "0", "-o", "OUT", "--", "false"], 1, "exit code 1"),
    (["compare", "--a", "", "--b", "true"], 2, "--a is empty"),
    (["compare", "--a", "true", "--b", "tr'ue"], 2, "No closing quotation"),
    (["compare", "--a", "true", "--b", "true", "--margin", "0"], 2, "--margin"),
    (["report", "EMPTY"], 2, "cannot be read"), (["report", os.devnull], 2, "is empty"),
    (["report", __file__], 2, "is not JSON"), (["report", "EMPTY/a"], 2, "cannot be read")])
def test_what_is_refused_and_how(call, nano, tmp_path, arguments, code, said):
    (tmp_path / "empty").mkdir()
    known = {"NANO": nano, "OUT": str(tmp_path / "out.json"), "EMPTY": str(tmp_path / "empty")}
    for name, value in known.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    found, _, err = call(*arguments)
    assert found == code
    assert len([line for line in err if line.startswith("error: ")]) == 1 and said in err[-1]
    # a run that failed is kept for a look at it, nothing else is
    assert os.path.exists(known["OUT"]) == ("false" in arguments)


def test_a_full_disk_loses_the_file_and_not_the_figures(call, nano, tmp_path, monkeypatch):
    from dance_deploy.power import recording_file

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(recording_file, "save", full)
    code, out, err = call("record", "--source", nano, "--interval-ms", 20, "--idle", 0, "-o", tmp_path / "r.json", "--",
                          *SLEEP)
    assert code == 1 and re.search(r"energy +\S", out)
    assert err[-1] == "error: output cannot be written: No space left on device"


def test_a_log_that_is_read_is_not_replaced(call, tmp_path):
    (tmp_path / "log").write_text(LINE.format(5000, 1000) * 50)
    code, out, err = call("record", "--source", "tegrastats-log=%s" % (tmp_path / "log"), "-o", tmp_path / "log", "--",
                          *SLEEP)
    assert (code, out) == (2, "") and "is the log that --source reads" in err[0]
    assert (tmp_path / "log").read_text() == LINE.format(5000, 1000) * 50


def test_parse_of_a_stream_that_was_closed(tmp_path):
    done = subprocess.run(["bash", "-c", '"$0" -m dance_deploy.cli.power parse - <&-', sys.executable], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is empty" in done.stderr


def test_an_unknown_board_is_recorded_by_rail_and_compared_only_with_a_total(call, tmp_path):
    root = tmp_path / "board"
    iio_nano(root)
    for path in root.rglob("rail_name_*"):
        path.write_text("X_" + path.name[-1] + "\n")
    code, out, _ = unpaused(call, r"X_2 +0\.\d+ J", "record", "--source", "ina3221=%s" % root, "--interval-ms", 10,
                            "--idle", 0, "-o", tmp_path / "r.json", "--", *SLEEP)
    assert code == 0 and "name it with --total" in out and "energy   unknown a run" in out
    assert re.search(r"X_2 +0\.\d+ J", out)
    code, out, err = call("compare", "--source", "ina3221=%s" % root, "--a", "true", "--b", "true")
    assert (code, out) == (1, "") and "there are X_0, X_1, X_2; name it with --total" in err[-1]
    code, out, _ = call("record", "--source", "ina3221=%s" % root, "--interval-ms", 10, "--idle", 0, "--total",
                        "X_1,X_2", "-o", tmp_path / "r.json", "--", *SLEEP)
    assert code == 0 and "total X_1 + X_2" in out and "name it" not in out


def test_sources_says_what_is_there_and_what_is_not(call):
    code, out, err = call("sources")
    assert err == []
    lines = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert [line.split()[0] for line in lines[:5]] == list(catalog.NAMES)
    works = any(line.split()[1] == "yes" for line in lines[:5])
    assert code == (0 if works else 1)
    assert works or "no power source works on this machine" in lines[5]
    for line in lines[:5]:
        assert line.split()[1] == "yes" or len(line.split()) > 6    # why, and what to do
    code, out, _ = call("sources", "--json")
    assert [offer["name"] for offer in json.loads(out)["sources"]] == list(catalog.NAMES)


def test_offers_of_a_board_and_of_a_machine(tmp_path):
    hwmon_orin(tmp_path)
    rapl(tmp_path)
    found = {offer.name: offer for offer in catalog.offers(0.01, root=str(tmp_path))}
    assert found["ina3221"].total_rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert found["ina3221"].rails_mw["VIN_SYS_5V0"] == pytest.approx(4000.0)
    assert found["rapl"].rails_mw == {"package-0": 0.0, "package-0/core": 0.0, "package-0/dram": 0.0}
    assert "supply" in found["battery"].reason
    with catalog.open_source(root=str(tmp_path)) as source:     # the board's own sensors come first
        assert source.name == "ina3221"


REPLAYER = os.path.join(ROOT, "tools", "tegrastats_replay.py")
LINE = ("RAM 1000/3964MB (lfb 1x1MB) CPU [1%@102,2%@102,0%@102,0%@102] "
        "POM_5V_IN {0}/{0} POM_5V_GPU {1}/{1} POM_5V_CPU 90/90\n")


def replayed(log):
    return "tegrastats=%s %s --log %s --at-end hold" % (sys.executable, REPLAYER, log)


@pytest.mark.parametrize("overhead_ms", [0, 7])
def test_a_replayed_log_gives_the_logs_energy(call, tmp_path, overhead_ms):
    """Against an integral that knows the log and the replayer's pace, and of the recording only the window's ends."""
    period_s = (20 + overhead_ms) / 1e3
    power_mw = [3000 + int(1500 * math.sin(i / 7.0)) + i * 37 % 100 for i in range(2000)]
    (tmp_path / "log").write_text("".join(LINE.format(mw, mw // 4) for mw in power_mw))
    source = replayed(tmp_path / "log") + " --overhead-ms {}".format(overhead_ms)
    code, out, _ = unpaused(call, r"energy +[\d.]+ J", "record", "--source", source, "--interval-ms", 20, "--idle", 0.5,
                            "-o", tmp_path / "r.json", "--", sys.executable, "-S", "-c", "import time; time.sleep(2)")
    assert code == 0 and "total POM_5V_IN" in out
    tree = json.loads((tmp_path / "r.json").read_text())
    values = tree["samples"]["values"]["POM_5V_IN"]
    start = next(i for i in range(200) if power_mw[i:i + len(values)] == values)     # each line once, in order
    window = tree["windows"][1]
    assert window["end_s"] - window["start_s"] >= 2.0 and window["total"]["missing_s"] == 0.0
    # the replayer prints on a grid; a busy machine delays single lines, so the grid is where most of them came
    came_s = np.array(tree["samples"]["time_s"]) - period_s * np.arange(len(values))
    grid_s = np.median(came_s)
    at_s = np.linspace(window["start_s"], window["end_s"], 100001)
    exact_w = 1e-3 * np.interp(at_s, grid_s + period_s * (np.arange(len(power_mw)) - start), power_mw)
    exact_j = float(exact_w.mean() * (window["end_s"] - window["start_s"]))
    # a delayed line moves the border between two trapezoids: by at most this much
    steps_w = 1e-3 * np.abs(np.diff(values))
    moved_j = np.abs(came_s - grid_s)[1:-1] @ (steps_w[1:] + steps_w[:-1]) / 2
    assert window["total"]["energy_j"] == pytest.approx(exact_j, abs=0.002 * exact_j + moved_j)
    assert tree["summary"]["commands"]["run"]["energy_j"]["estimate"] == window["total"]["energy_j"]


def test_dance_run_tells_joules_a_clip_with_interval_under_a_replayed_log(call, tiny_bundle, tmp_path):
    (tmp_path / "log").write_text(LINE.format(5000, 1000) * 50)
    clip_file = write_video(tmp_path / "long.mp4", 4800)  # long enough for an interval on fast machines
    for mode in ([], ["--dense"]):
        code, out, _ = unpaused(
            call, r"\d J above idle \(95 %", tiny_bundle, clip_file, "--power", replayed(tmp_path / "log"),
            "--power-interval-ms", 5, "--power-idle", 0.3, "--hop", 2, "--quiet",
            "--json", tmp_path / "out.jsonl", *mode, app=run_app)
        assert code == 0
        told = re.search(r"([\d.e-]+) J a window \(95 % ([\d.e-]+) J to ([\d.e-]+) J\)", out)
        assert told, out
        a_clip, low, high = map(float, told.groups())
        joules, seconds = map(float, re.search(r"([\d.]+) J over ([\d.]+) s", out).groups())
        windows = int(re.search(r"\((\d+) windows\)", out).group(1))
        assert windows == len((tmp_path / "out.jsonl").read_text().splitlines()) == 2397
        # both are printed rounded: the seconds to two places, the joules to four digits
        assert joules == pytest.approx(5.0 * seconds, abs=5.0 * 0.005 + 0.0005 * joules)
        assert low <= a_clip <= high and a_clip == pytest.approx(joules / windows, rel=0.01)
        assert re.search(r"[\d.e-]+ J above idle \(95 % ", out)


def test_parse_writes_a_json_object_a_line(call, tmp_path):
    (tmp_path / "log").write_text("garbage\n" + LINE.format(5000, 1000) * 3)
    code, out, err = call("parse", tmp_path / "log")
    assert code == 0
    assert [json.loads(line)["total"]["mw"] for line in out.splitlines()] == [5000] * 3
    assert call("parse", tmp_path / "log", "--json", tmp_path / "out")[:2] == (0, "")
    assert (tmp_path / "out").read_text() == out
    (tmp_path / "empty").write_text("")
    code, _, err = call("parse", tmp_path / "empty")
    assert code == 2 and "is empty" in err[0]


@pytest.mark.parametrize("name", ["power.py", "power_text.py", "run_power.py"])
def test_commands_are_python_3_6_syntax(name):
    path = os.path.join(ROOT, "dance_deploy", "cli", name)
    with open(path, encoding="utf-8") as stream:
        ast.parse(stream.read(), path, feature_version=(3, 6))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_its_like_end_the_command_too_and_leave_no_file(nano, tmp_path, number):
    child = tmp_path / "child"
    script = "import os, time; open(r'%s', 'w').write(str(os.getpid())); time.sleep(60)" % child
    process = subprocess.Popen(
        [sys.executable, "-m", "dance_deploy.cli.power", "record", "--source", nano, "--idle", "0", "-o",
         str(tmp_path / "r.json"), "--", sys.executable, "-S", "-c", script], stderr=subprocess.PIPE, encoding="utf-8")
    deadline_s = time.monotonic() + 20.0
    while not (child.exists() and child.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip().splitlines()[-1]) == (1, "interrupted")
    assert not (tmp_path / "r.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)


def test_the_commands_output_goes_to_stderr(python, nano, tmp_path):
    done = python("-m", "dance_deploy.cli.power", "record", "--source", nano, "--idle", "0", "-o", tmp_path / "r.json",
                  "--", sys.executable, "-S", "-c", "print('hello')")
    assert done.returncode == 0 and "hello" in done.stderr and "hello" not in done.stdout.splitlines()


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "moving.mp4", 40)


def test_dance_run_tells_joules(call, nano, tiny_bundle, clip_file, tmp_path):
    for mode in ([], ["--dense"]):
        code, out, err = unpaused(call, r" J over [\d.]+ s", tiny_bundle, clip_file, *mode, "--power", nano,
                                  "--power-interval-ms", 1, "--power-idle", 0.2, "--json", tmp_path / "out.json",
                                  app=run_app)
        assert (code, err) == (0, [])
        joules, seconds = map(float, re.search(r"([\d.]+) J over ([\d.]+) s, \d+ samples, one every", out).groups())
        assert joules == pytest.approx(3.0 * seconds, abs=3.0 * 0.005 + 0.0005)    # both are printed rounded
        assert " J a window" in out and " above idle" in out
        found = [json.loads(line)["energy_j"] for line in (tmp_path / "out.json").read_text().splitlines()]
        assert len(found) == 5
        told = [energy_j for energy_j in found if energy_j is not None]
        assert sum(told) <= 3.0 * seconds + 3.0 * 0.005
        assert all(energy_j > 0.0 for energy_j in told)


def test_dance_run_with_slow_sampling_tells_the_video_only(call, nano, tiny_bundle, clip_file, tmp_path):
    code, out, _ = call(tiny_bundle, clip_file, "--power", nano, "--power-interval-ms", 300, "--power-idle", 0,
                        "--json", tmp_path / "out.json", app=run_app)
    assert code == 0 and ("energy unknown: " in out or " J a window" in out)
    assert {json.loads(line)["energy_j"] for line in (tmp_path / "out.json").read_text().splitlines()} == {None}


@pytest.mark.parametrize("arguments, code, said", [
    (["--power", "wall"], 2, "expected auto, one of"), (["--power-idle", "1"], 2, "add --power auto"),
    (["--power", "rapl=/nowhere"], 1, "modprobe"), (["--power", "NANO", "--power-idle", "-1"], 2, "--power-idle"),
    (["--power", "NANO", "--power-total", "X"], 2, "there are: POM_5V_IN")])
def test_dance_run_refuses(call, nano, tiny_bundle, clip_file, arguments, code, said):
    found, _, err = call(tiny_bundle, clip_file, *[a.replace("NANO", nano) for a in arguments], app=run_app)
    assert found == code and len(err) == 1 and said in err[0]


def test_dance_run_goes_on_where_the_source_dies(tiny_bundle, clip_file, nano, tmp_path, call):
    # the tree goes away while the machine is measured idle
    import shutil
    import threading
    timer = threading.Timer(0.3, shutil.rmtree, (nano.split("=")[1],))
    timer.start()
    code, out, _ = call(tiny_bundle, clip_file, "--power", nano, "--power-interval-ms", 5, "--power-idle", 0.6,
                        "--json", tmp_path / "out.json", app=run_app)
    timer.join()
    assert code == 0 and "energy unknown: " in out and "it is gone" in out
    assert [json.loads(line)["energy_j"] for line in (tmp_path / "out.json").read_text().splitlines()] == [None] * 5
