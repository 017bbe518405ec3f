"""Recording real commands on captured trees: windows, idle, sources that die, environments that move, files."""
import datetime
import json
import os
import sys
import threading
import time

import numpy as np
import pytest
from power_trees import iio_nano, rapl, set_value, write_tree

from dance_deploy.errors import InputError, OperationError
from dance_deploy.power import environment, recording, recording_file
from dance_deploy.power.ina3221 import Ina3221Source
from dance_deploy.power.recording import IDLE, RUN, Plan, Recorder, Window
from dance_deploy.power.sampling import Sampler
from dance_deploy.power.source import PolledSource, Reading, Source
from dance_deploy.power.summary import ratio_half_width, run_half_width, summarize
from dance_deploy.power.trace import trace_from_readings

pytestmark = pytest.mark.real_time
NANO_IN = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(0.3)"]


def nano(tmp_path, **options):
    """An opened Nano source, whatever profiles say of its total."""
    source = Ina3221Source(root=iio_nano(tmp_path / "tree"), **dict(dict(interval_s=0.02), **options))
    source.open()
    source.total_rails = ("POM_5V_IN",)
    return source


def machine(root, **values):
    """A tree of environment files."""
    return write_tree(root, {
        "var/lib/nvpmodel/status": values.get("mode", "pmode:0000"),
        "sys/devices/system/cpu/online": "0-3",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": values.get("khz", 1000000),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": values.get("limit_khz", 1479000),
        "sys/class/devfreq/57000000.gpu/cur_freq": values.get("gpu_hz", 614400000),
        "sys/class/thermal/thermal_zone0/type": "CPU-therm",
        "sys/class/thermal/thermal_zone0/temp": values.get("mc", 40000),
        "sys/class/thermal/thermal_zone1/type": "PMIC-Die", "sys/class/thermal/thermal_zone1/temp": 100000,
        "sys/class/thermal/thermal_zone2/type": "GPU-therm", "sys/class/thermal/thermal_zone2/temp": -256000,
        "sys/class/hwmon/hwmon5/oc3_event_cnt": values.get("throttled", 0)})


def test_a_command_at_constant_power(tmp_path):
    with Recorder(nano(tmp_path)) as recorder:
        assert recording.record(recorder, SLEEP, Plan(idle_s=0.3, settle_s=0.0), run_half_width) == 0
        found = recorder.recording()
    assert [window.label for window in found.windows] == [IDLE, RUN]
    window, summary = found.windows[1], summarize(found)
    seconds = window.end_s - window.start_s
    assert 0.3 <= seconds < 5.0
    command = summary["commands"]["run"]
    assert command["energy_j"]["estimate"] == pytest.approx(3.0 * seconds, rel=1e-9)
    assert (command["energy_j"]["low"], command["energy_j"]["high"]) == (None, None)     # one run has no interval
    assert command["above_idle_j"]["estimate"] == pytest.approx(0.0, abs=1e-9)
    assert summary["idle"]["average_mw"]["estimate"] == pytest.approx(3000.0)
    assert command["rails"]["POM_5V_CPU"]["energy_j"] == pytest.approx(0.9 * seconds, rel=1e-9)
    assert (command["average_mw"], command["peak_mw"]) == (pytest.approx(3000.0), 3000.0)
    assert summary["sampling"]["period_median_s"] == pytest.approx(0.02, rel=0.5)
    assert summary["sampling"]["samples"] > 10


def test_repeats_until_tight_and_not_beyond_the_limit(tmp_path):
    source = nano(tmp_path)
    widths = iter([0.5, 0.3, 0.04, 0.01])
    with Recorder(source) as recorder:
        command = [sys.executable, "-S", "-c", ""]
        recording.record(recorder, command, Plan(0.0, 0, 2, 9, 0.05, 0.0), lambda _: next(widths))
        assert len(recorder.recording().windows) == 4      # asked from the second run on
        recording.record(recorder, command, Plan(0.0, 0, 1, 3, 0.05, 0.0), lambda _: 1.0)
        assert len(recorder.recording().windows) == 4 + 3


def test_two_commands_take_turns(tmp_path):
    with Recorder(nano(tmp_path)) as recorder:
        command = [sys.executable, "-S", "-c", ""]
        recording.compare(recorder, command, command, Plan(0.0, 0, 3, 3, None, 0.0), ratio_half_width)
        assert [window.label for window in recorder.recording().windows] == ["a", "b", "b", "a", "a", "b"]


def test_a_command_that_fails_ends_it_and_is_said(tmp_path):
    with Recorder(nano(tmp_path)) as recorder:
        failing = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
        assert recording.record(recorder, failing, Plan(0.0, 0, 5, 5, None, 0.0), run_half_width) == 3
        found = recorder.recording()
    assert [window.exit_code for window in found.windows] == [3]
    assert any("exit code 3" in line for line in summarize(found)["warnings"])


@pytest.mark.parametrize("command", [["/no/such/program"], ["/"]])
def test_a_command_that_cannot_start(tmp_path, command):
    with Recorder(nano(tmp_path)) as recorder, pytest.raises(InputError, match="command '/"):
        recorder.run(RUN, command)


def test_a_source_that_dies_mid_run_does_not_end_the_run(tmp_path):
    source = nano(tmp_path)
    folder = tmp_path / "tree/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    with Recorder(source) as recorder:
        recorder.run(RUN, SLEEP)

        def kill():
            for path in folder.glob("in_power*"):
                path.unlink()
        timer = threading.Timer(0.15, kill)
        timer.start()
        assert recorder.run(RUN, SLEEP) == 0
        timer.join()
        found = recorder.recording()
    whole, cut = recording_file.window_records(found)
    assert whole["total"]["energy_j"] == pytest.approx(3.0 * (whole["end_s"] - whole["start_s"]), rel=1e-9)
    assert cut["total"]["energy_j"] is None
    assert 0.0 < cut["total"]["measured_j"] < 3.0 * 0.3
    assert cut["total"]["missing_s"] > 0.0
    summary = summarize(found)
    assert any("died after" in line and "it is gone" in line for line in summary["warnings"])
    assert any("are not measured" in line for line in summary["warnings"])
    assert summary["commands"]["run"]["runs_measured"] == 1


def test_no_run_is_begun_after_the_source_died(tmp_path):
    folder = tmp_path / "tree/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    script = "import glob, os, time; [os.unlink(p) for p in glob.glob({!r})]; time.sleep(0.3)"
    kill = [sys.executable, "-S", "-c", script.format(str(folder / "in_power*"))]
    with Recorder(nano(tmp_path)) as recorder:
        assert recording.compare(recorder, kill, SLEEP, Plan(0.0, 0, 5, 9, None, 0.0), ratio_half_width) == 0
        found = recorder.recording()
    assert [window.label for window in found.windows] == ["a", "b"]     # the pair is finished, no other begins
    assert summarize(found)["comparison"]["verdict"] == "INCONCLUSIVE"


def test_a_system_clock_that_is_set_meanwhile_is_said_and_changes_nothing(tmp_path, monkeypatch):
    offset_s = [0.0]
    real = recording._utc_now
    monkeypatch.setattr(recording, "_utc_now", lambda: real() + datetime.timedelta(seconds=offset_s[0]))
    with Recorder(nano(tmp_path)) as recorder:
        recorder.run(RUN, SLEEP)
        offset_s[0] = -7200.0
        recorder.run(RUN, SLEEP)
        found = recorder.recording()
    assert [line for line in found.warnings if "the system clock was set by -7200." in line]
    for window in recording_file.window_records(found):
        assert window["total"]["energy_j"] == pytest.approx(3.0 * (window["end_s"] - window["start_s"]), rel=1e-9)


def test_a_rail_that_vanishes_is_unknown_from_then_on(tmp_path):
    with Recorder(nano(tmp_path)) as recorder:
        (tmp_path / "tree" / NANO_IN.replace("power0", "power2")).unlink()
        time.sleep(0.05)
        recorder.run(RUN, SLEEP)
        record = recording_file.window_records(recorder.recording())[0]
    assert record["rails"]["POM_5V_CPU"]["energy_j"] is None
    assert record["total"]["energy_j"] > 0.8


class Silent(Source):
    """Opens, and never tells anything."""
    name = "silent"

    def __init__(self):
        super().__init__()
        self._closed = threading.Event()

    def open(self):
        pass

    def read(self):
        self._closed.wait(60.0)
        raise OperationError("closed")

    def close(self):
        self._closed.set()


def test_a_source_without_samples_is_an_error_that_says_so():
    with pytest.raises(OperationError, match="gave no sample in 0.1 s"):
        Sampler(Silent()).start(patience_s=0.1)


class Broken(PolledSource):
    name = "broken"

    def sample(self):
        raise ZeroDivisionError("a bug of ours")


def test_a_bug_in_a_source_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        Sampler(Broken()).start()


def test_what_moved_is_said(tmp_path):
    before = environment.snapshot(machine(tmp_path / "a"))
    assert before["temps_c"] == {"CPU-therm": 40.0}     # neither the constant of the PMIC nor a sensor that is off
    assert environment.warnings(before, before, "during") == []
    after = environment.snapshot(machine(tmp_path / "b", mode="pmode:0002", limit_khz=918000, mc=61000, throttled=4,
                                         khz=500000, gpu_hz=307200000))
    lines = environment.warnings(before, after, "during") + environment.clock_warnings(before, after, "during")
    said = "\n".join(lines)
    for word in ("power mode changed", "clock limit", "CPU-therm moved during from 40 to 61 C", "throttled during (4",
                 "CPU clock moved", "GPU clock moved"):
        assert word in said
    assert len(lines) == 6
    nothing = environment.snapshot(str(tmp_path / "empty"))
    assert set(nothing) == set(before) and nothing["power_mode"] is None
    assert environment.warnings(nothing, before, "during")[0].startswith("power mode changed during from None")


def test_a_recording_warns_of_a_power_mode_that_changed(tmp_path):
    root = machine(tmp_path / "machine")
    with Recorder(nano(tmp_path), root=root) as recorder:
        recorder.run(RUN, SLEEP)
        set_value(tmp_path / "machine", "var/lib/nvpmodel/status", "pmode:0001")
        recorder.run(RUN, SLEEP)
        assert any("power mode changed" in line for line in recorder.recording().warnings)


def made(power_mw, windows, total=("IN",)):
    """A Recording of one rail sampled at 10 Hz; windows: [(label, start_s, end_s)]."""
    readings = [Reading(0.1 * i, {"IN": float(p)}) for i, p in enumerate(power_mw)]
    nothing = environment.snapshot("/nowhere")
    facts = recording.SourceFacts("ina3221", "power", ("IN",), total, "module", False, 0.1)
    labels = {label for label, _, _ in windows} - {IDLE}
    return recording.Recording(
        facts, {label: [label, "x"] for label in labels}, "2026-01-01T00:00:00Z", trace_from_readings(readings),
        tuple(Window(label, start_s, end_s, None if label == IDLE else 0, nothing, nothing)
              for label, start_s, end_s in windows), ())


def noisy(ratio, pairs, seed=0, idle_noise_mw=10.0):
    """Idle 2 W for 10 s, then pairs of 2 s windows at 6 W and 6 W x ratio with 2 % noise from window to window."""
    random = np.random.RandomState(seed)
    power, windows = [2000.0 + idle_noise_mw * random.randn() for _ in range(100)], [(IDLE, 0.05, 9.95)]
    for label, mean_mw in [("a", 6000.0), ("b", 6000.0 * ratio)] * pairs:
        start_s = len(power) / 10.0
        power += [mean_mw * (1.0 + 0.02 * random.randn())] * 20
        windows.append((label, start_s, start_s + 1.9))
    return made(power + [2000.0], windows)


def test_a_comparison_with_enough_pairs_and_with_too_few():
    found = summarize(noisy(0.97, 30), margin=0.02)["comparison"]
    assert found["verdict"] == "LESS" and found["pairs"] == 30
    assert found["ratio"]["low"] <= 0.97 <= found["ratio"]["high"]
    above = found["above_idle_ratio"]
    assert above["low"] <= (6.0 * 0.97 - 2.0) / 4.0 <= above["high"] and above["estimate"] < found["ratio"]["estimate"]
    assert summarize(noisy(0.97, 3), margin=0.02)["comparison"]["verdict"] == "INCONCLUSIVE"
    assert summarize(noisy(1.0, 40), margin=0.02)["comparison"]["verdict"] == "NO DIFFERENCE"


def test_energy_and_energy_above_idle_cover_the_truth():
    hits, hits_above = 0, 0
    for seed in range(100):
        entry = summarize(noisy(1.0, 12, seed))["commands"]["a"]
        energy, above = entry["energy_j"], entry["above_idle_j"]
        assert energy["estimate"] == pytest.approx(6.0 * 1.9, rel=4 * 0.02 / 12 ** 0.5)    # four standard errors
        hits += energy["low"] <= 6.0 * 1.9 <= energy["high"]
        hits_above += above["low"] <= 4.0 * 1.9 <= above["high"]
    assert 90 <= hits and 90 <= hits_above


def test_a_restless_idle_widens_what_is_above_it():
    quiet, restless = (summarize(noisy(1.0, 12, 1, noise))["commands"]["a"] for noise in (1.0, 1500.0))
    width = [entry["above_idle_j"]["high"] - entry["above_idle_j"]["low"] for entry in (quiet, restless)]
    assert width[1] > 1.5 * width[0]
    assert restless["energy_j"]["high"] - restless["energy_j"]["low"] < width[1]


def test_counters_are_recorded_as_joules(tmp_path):
    """A RAPL tree whose package counts 5 W, by a thread that writes the counter every millisecond."""
    from dance_deploy.power.rapl import RaplSource
    source = RaplSource(root=rapl(tmp_path / "tree", energy_uj=0), interval_s=0.01)
    path = tmp_path / "tree/sys/class/powercap/intel-rapl:0/energy_uj"
    done, start_s, written_s = threading.Event(), time.monotonic(), [time.monotonic()]

    def count():
        while not done.wait(0.001):
            written_s.append(time.monotonic())
            beside = path.with_suffix(".new")
            beside.write_text("%d\n" % (5e6 * (time.monotonic() - start_s)))
            os.replace(str(beside), str(path))    # a reader sees the old or the new value, as in sysfs
    thread = threading.Thread(target=count)
    thread.start()
    try:
        source.open()
        with Recorder(source) as recorder:
            recorder.run(RUN, SLEEP)
            found = recorder.recording()
    finally:
        done.set()
        thread.join()
    window = recording_file.window_records(found)[0]
    late_s = 0.01 + 2 * np.diff(written_s).max()    # the thread that counts, at both edges
    assert window["total"]["energy_j"] == pytest.approx(5.0 * (window["end_s"] - window["start_s"]), abs=5.0 * late_s)
    assert found.source.kind == "counter" and window["rails"]["package-0/core"]["energy_j"] == 0.0
    recording_file.save(found, str(tmp_path / "r.json"))
    assert recording_file.load(str(tmp_path / "r.json")).trace.kind == "counter"


def test_idle_against_idle_has_no_ratio_above_idle():
    random = np.random.RandomState(0)
    windows = [(IDLE, 0.05, 9.95)] + [("ab"[i % 2], 10.0 + i, 10.9 + i) for i in range(40)]
    found = summarize(made(2000.0 + 10.0 * random.randn(520), windows))["comparison"]
    assert found["verdict"] == "NO DIFFERENCE"
    assert found["above_idle_ratio"] == {"estimate": None, "low": None, "high": None}


def test_no_total_no_joules_but_rails():
    summary = summarize(made([1000.0] * 50, [(RUN, 1.0, 3.0)], total=()))
    assert summary["commands"]["run"]["energy_j"]["estimate"] is None
    assert summary["commands"]["run"]["rails"]["IN"]["energy_j"] == pytest.approx(2.0)
    assert any("--total" in line for line in summary["warnings"])


def test_a_file_gives_back_what_went_in(tmp_path):
    found = noisy(0.97, 5)
    path = tmp_path / "r.json"
    recording_file.save(found, str(path))
    again = recording_file.load(str(path))
    assert again._replace(trace=None) == found._replace(trace=None)
    np.testing.assert_array_equal(again.trace.values, np.round(found.trace.values, 6))
    assert summarize(again)["comparison"]["verdict"] == summarize(found)["comparison"]["verdict"]
    assert json.loads(path.read_text())["summary"]["comparison"]["pairs"] == 5
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_missing_rail_stays_missing_in_the_file(tmp_path):
    found = made([1000.0, float("nan"), 1000.0], [(RUN, 0.0, 0.2)])
    recording_file.save(found, str(tmp_path / "r.json"))
    assert np.isnan(recording_file.load(str(tmp_path / "r.json")).trace.values[1, 0])


def damage(tree, path, value):
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize("path, value, said", [
    (("format",), "other", "is no recording"), (("version",), 2, "version"), (("extra",), 1, "unknown key"),
    (("samples", "time_s"), [0.2, 0.1, 0.3], "rise"), (("samples", "values", "IN"), [1.0], "one a sample"),
    (("samples", "values", "IN"), ["a", 1, 2], "no number"), (("samples", "values", "IN"), [1e300, 1, 2], "expected"),
    (("windows", 0, "end_s"), -1, "end_s"), (("windows", 0, "label"), "c", "label"), (("windows",), {}, "windows"),
    (("source", "kind"), "guess", "kind"), (("commands",), {"run": "ls"}, "commands.run"),
    (("windows", 0, "before", "temps_c"), {"a\nb": 1}, "temps_c"), (("started_at",), "\x1b[2J", "started_at")])
def test_damaged_files_are_refused_in_one_line(tmp_path, path, value, said):
    file = tmp_path / "r.json"
    recording_file.save(made([1.0, 2.0, 3.0], [(RUN, 0.0, 0.2)]), str(file))
    tree = json.loads(file.read_text())
    damage(tree, path, value)
    file.write_text(json.dumps(tree))
    with pytest.raises(InputError) as caught:
        recording_file.load(str(file))
    assert said in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data, said", [(b"", "is empty"), (b"\n", "is empty"), (b"{", "not JSON"),
                                        (b"[1]", "no recording"), (b"\xff", "not JSON")])
def test_files_that_are_no_recording(tmp_path, data, said):
    (tmp_path / "r").write_bytes(data)
    with pytest.raises(InputError, match=said):
        recording_file.load(str(tmp_path / "r"))
    with pytest.raises(InputError, match="cannot be read"):
        recording_file.load(str(tmp_path / "absent"))


@pytest.mark.parametrize("plan", [Plan(idle_s=-1.0), Plan(idle_s=float("nan")), Plan(least=0), Plan(least=3, most=2),
                                  Plan(precision=0.0), Plan(precision=1.0)])
def test_plans_that_make_no_sense(plan):
    with pytest.raises(InputError):
        recording.checked_plan(plan)
