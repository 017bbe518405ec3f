"""The energy gate as CI calls it: exit codes, reports, broken input, the way over ssh, the replayer as the source."""
import ast
import json
import os
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from power_trees import write_tree
from tegrastats_lines import has_ended

from dance_deploy.power import recording_file
from dance_deploy.power.environment import snapshot
from dance_deploy.power.recording import Recording, SourceFacts, Window
from dance_deploy.power.trace import Trace

pytestmark = pytest.mark.real_time
ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / "tools" / "energy_gate.py"
REPLAY = ROOT / "tools" / "tegrastats_replay.py"
IDLE_MW = 1000.0
# ssh that reaches "the board" by running the command line in a shell, as sshd does; it logs what it was given
SSH = """#!/bin/sh
printf '%s\\n' "$@" >> "$SSH_LOG"
while [ $# -gt 2 ]; do shift; done
[ "$1" = nobody@nowhere ] && { echo 'ssh: Could not resolve hostname nowhere' >&2; exit 255; }
exec sh -c "$2"
"""


def recorded(path, powers, estimate=False, exit_code=0, mode="MAXN", total=("IN",), idle=True, states=()):
    """A recording of runs of exactly 1 s. powers: {label: [mW of each run]}; the runs alternate between labels. The
    rail GPU takes a quarter of IN. states: environment of the windows' beginnings, the last one for all that follow."""
    empty = dict(snapshot(str(path.parent / "no such root")), power_mode=mode)
    states = [dict(empty, **state) for state in states] or [empty]
    windows, time_s, power_mw = [], [], []
    runs = [("idle", IDLE_MW, 8.0)] if idle else []
    runs += [(label, mw, 1.0) for row in zip(*powers.values()) for label, mw in zip(powers, row)]
    at_s = 0.0
    for label, mw, seconds in runs:
        # a plateau wider than the window: the energy inside is exactly power x time
        steps = np.arange(0.0, seconds + 0.39, 0.05)
        time_s += (at_s + steps).tolist()
        power_mw += [mw] * len(steps)
        state = states[min(len(windows), len(states) - 1)]
        windows.append(Window(label, at_s + 0.1, at_s + 0.1 + seconds, None if label == "idle" else exit_code, state,
                              state))
        at_s = time_s[-1] + 0.05
    values = np.array(power_mw)[:, None] * [1.0, 0.25]
    trace = Trace("power", np.array(time_s), ("IN", "GPU"), values, 0)
    source = SourceFacts("ina3221", "power", ("IN", "GPU"), total, "module", estimate, 0.05)
    recording_file.save(Recording(source, {label: ["cmd"] for label in powers}, "2026-01-01T10:00:00Z", trace,
                                  tuple(windows), ()), str(path))
    return str(path)


def noisy(mean_mw, seed=1, runs=12, spread=0.02):
    return (mean_mw * (1.0 + spread * np.random.RandomState(seed).standard_normal(runs))).tolist()


def limits(tmp_path, *entries, **more):
    path = tmp_path / "limits.json"
    path.write_text(json.dumps(dict({"format": "dance-energy-limits", "version": 1, "limits": list(entries)}, **more)))
    return str(path)


@pytest.fixture
def gate(python, tmp_path):
    """gate(*arguments) -> the finished process, with .report and .cases (name -> element's tag) of its reports."""
    def run(*arguments, **options):
        reports = {name: tmp_path / ("report." + name) for name in ("json", "junit", "markdown")}
        for _ in range(4):
            done = python(GATE, *arguments, *["--{}={}".format(*item) for item in reports.items()], **options)
            if not (done.returncode == 3 and "--recording" not in arguments and "between samples" in done.stdout):
                break    # else the machine stood still while it measured
        assert "Traceback" not in done.stderr
        if done.returncode == 2 or not reports["json"].exists():
            assert not any(path.exists() for path in reports.values())
            assert len(done.stderr.splitlines()) >= 1 and done.stderr.splitlines()[-1].startswith("error: ")
            return done
        done.report = json.loads(reports["json"].read_text())
        done.suites = list(ElementTree.parse(str(reports["junit"])).getroot())
        done.cases = {case.get("name"): [child.tag for child in case if child.tag != "system-out"]
                      for suite in done.suites for case in suite.iter("testcase")}
        done.markdown = reports["markdown"].read_text(encoding="utf-8")
        assert done.report["exit_code"] == done.returncode
        assert "energy gate: " + done.report["verdict"].upper() in done.stdout
        return done
    return run


def verdicts(done):
    return {check["name"]: check["verdict"] for check in done.report["checks"]}


@pytest.mark.parametrize("limit_j, verdict, code, tag", [
    (3.2, "pass", 0, []), (2.8, "fail", 1, ["failure"]), (3.0, "inconclusive", 3, ["error"])])
def test_three_recorded_cases(gate, tmp_path, limit_j, verdict, code, tag):
    file = recorded(tmp_path / "run.json", {"run": noisy(3000.0)})
    done = gate(limits(tmp_path, {"name": "joules", "metric": "energy_j", "at_most": limit_j}), "--recording", file)
    assert (done.returncode, done.report["verdict"], verdicts(done)["joules"]) == (code, verdict, verdict)
    check = done.report["checks"][-1]
    assert check["low"] < check["estimate"] < check["high"] and check["estimate"] == pytest.approx(
        np.mean(noisy(3000.0)) / 1e3, rel=1e-6)     # the file rounds to 1e-6 mW
    assert done.cases["joules"] == tag and done.suites[0].get("tests") == "2"
    assert "## Energy gate: " + verdict.upper() in done.markdown


@pytest.mark.parametrize("kind, code, tag", [("fail", 1, ["failure"]), ("pass", 0, ["skipped"])])
def test_inconclusive_as(gate, tmp_path, kind, code, tag):
    file = recorded(tmp_path / "run.json", {"run": noisy(3000.0)})
    limit = {"name": "joules", "metric": "energy_j", "at_most": 3.0}
    done = gate(limits(tmp_path, limit), "--recording", file, "--inconclusive-as", kind)
    assert (done.returncode, done.report["verdict"], done.cases["joules"]) == (code, "inconclusive", tag)
    # it changes nothing about what is known
    file = recorded(tmp_path / "bad.json", {"run": noisy(4000.0)})
    assert gate(limits(tmp_path, limit), "--recording", file, "--inconclusive-as", kind).returncode == 1


def test_each_metric_has_the_value_that_was_put_in(gate, tmp_path):
    a, b = noisy(4000.0), [0.75 * mw for mw in noisy(4000.0)]
    file = recorded(tmp_path / "ab.json", {"a": a, "b": b})
    truth = {"energy_j": np.mean(b) / 1e3, "above_idle_j": (np.mean(b) - IDLE_MW) / 1e3, "duration_s": 1.0,
             "average_power_w": np.mean(b) / 1e3}
    entries = [{"name": name, "metric": name, "command": "b", "at_most": 9.0} for name in truth]
    entries += [{"name": "per clip", "metric": "energy_j", "command": "b", "at_most": 9.0, "divide_by": 4},
                {"name": "saving", "metric": "saving", "at_least": 0.2},
                {"name": "too much", "metric": "saving", "at_least": 0.3},
                {"name": "above", "metric": "above_idle_saving", "at_least": 0.0}]
    truth.update({"per clip": np.mean(b) / 4e3, "saving": 0.25, "too much": 0.25,
                  "above": 1.0 - (np.mean(b) - IDLE_MW) / (np.mean(a) - IDLE_MW)})
    done = gate(limits(tmp_path, *entries), "--recording", file)
    found = {check["name"]: check["estimate"] for check in done.report["checks"] if check["metric"]}
    assert found == pytest.approx(truth, rel=1e-5)
    assert [name for name, verdict in verdicts(done).items() if verdict != "pass"] == ["too much"]
    assert done.returncode == 1


def test_limits_on_one_rail_hold_without_a_total(gate, tmp_path):
    file = recorded(tmp_path / "run.json", {"run": noisy(4000.0)}, total=())
    entries = [{"name": "joules", "metric": "energy_j", "rail": "GPU", "at_most": 1.1},
               {"name": "joules a clip", "metric": "energy_j", "rail": "GPU", "at_most": 1.1, "divide_by": 10},
               {"name": "watts", "metric": "average_power_w", "rail": "GPU", "at_most": 0.9},
               {"name": "total", "metric": "energy_j", "at_most": 900.0}]
    done = gate(limits(tmp_path, *entries), "--recording", file)
    mean_w = np.mean(noisy(4000.0)) / 4e3
    assert verdicts(done) == {"every run ended with exit code 0": "pass", "joules": "pass", "joules a clip": "pass",
                              "watts": "fail", "total": "inconclusive"}
    found = {check["name"]: check["estimate"] for check in done.report["checks"]}
    assert [found["joules"], found["watts"]] == pytest.approx([mean_w, mean_w], rel=1e-6)
    assert found["joules a clip"] == pytest.approx(mean_w / 10.0, rel=1e-6)


def test_one_sample_above_a_peak_limit_breaks_it(gate, tmp_path):
    powers = noisy(4000.0)
    file = recorded(tmp_path / "run.json", {"run": powers})
    highest_w = max(powers) / 1e3
    for more_w, verdict, said in ((0.001, "pass", "the highest sample of 12 runs"),
                                  (-0.001, "fail", "above it in 1 of 12 runs")):
        limit = {"name": "peak", "metric": "peak_power_w", "at_most": highest_w + more_w}
        done = gate(limits(tmp_path, limit), "--recording", file)
        assert verdicts(done)["peak"] == verdict and said in done.stdout
        assert done.report["checks"][-1]["estimate"] == pytest.approx(highest_w, rel=1e-6)
    rail = {"name": "peak", "metric": "peak_power_w", "rail": "GPU", "at_most": highest_w / 4.0 + 0.001}
    assert gate(limits(tmp_path, rail), "--recording", file).returncode == 0
    few = recorded(tmp_path / "few.json", {"run": powers[:3]})
    done = gate(limits(tmp_path, dict(rail, at_most=9.0)), "--recording", few)
    assert done.returncode == 3 and "3 of 3 runs measured whole; a pass takes all, and at least 4" in done.stdout


def test_reports_show_the_environment(gate, tmp_path):
    warm = [{"temps_c": {"GPU|therm": 40.0}, "gpu_mhz": 921.6}, {"temps_c": {"GPU|therm": 61.5}, "gpu_mhz": 921.6},
            {"temps_c": {"GPU|therm": 55.0}, "gpu_mhz": 921.6}]
    file = recorded(tmp_path / "run.json", {"run": noisy(4000.0)}, states=warm)
    done = gate(limits(tmp_path, GOOD), "--recording", file)
    found = done.report["recordings"][0]["environment"]
    assert found["power mode"] == {"unit": "", "first": "MAXN", "last": "MAXN", "least": None, "most": None}
    assert found["temperature GPU|therm"] == {
        "unit": "\u00b0C", "first": 40.0, "last": 55.0, "least": 40.0, "most": 61.5}
    said = {entry.get("name"): entry.get("value") for entry in done.suites[0].iter("property")}
    assert said == {"power mode": "MAXN", "GPU clock": "921.6 MHz",
                    "temperature GPU|therm": "40 \u00b0C at first, 55 \u00b0C at last, 40 to 61.5 \u00b0C"}
    assert "- power mode: MAXN\n" in done.markdown and "- GPU clock: 921.6 MHz\n" in done.markdown
    assert "- temperature GPU\\|therm: 40 \u00b0C at first" in done.markdown
    assert "- not told by this machine: CPU governor, CPUs online, CPU clock" in done.markdown


@pytest.mark.parametrize("options, more, why", [
    ({"estimate": True}, {}, "is an estimate"),
    ({"total": ()}, {}, "no rail is known to be the total"),
    ({}, {"expect": {"power_mode": "5W"}}, "measured in power mode 'MAXN', the limits are for '5W'"),
    ({"mode": None}, {"expect": {"power_mode": "5W"}}, "power mode unknown"),
    ({}, {"expect": {"source": "tegrastats"}}, "measured by source 'ina3221'"),
])
def test_inconclusive_where_the_figures_must_not_be_trusted(gate, tmp_path, options, more, why):
    file = recorded(tmp_path / "run.json", {"run": noisy(3000.0)}, **options)
    done = gate(limits(tmp_path, {"metric": "energy_j", "at_most": 9.0}, **more), "--recording", file)
    assert done.returncode == 3 and why in done.stdout


def test_three_runs_and_missing_idle_are_no_interval(gate, tmp_path):
    few = recorded(tmp_path / "few.json", {"run": noisy(3000.0, runs=3)})
    file = limits(tmp_path, {"name": "j", "metric": "energy_j", "at_most": 900.0})
    done = gate(file, "--recording", few)
    assert done.returncode == 3 and "3 of 3 runs measured whole; an interval takes at least 4" in done.stdout
    bare = recorded(tmp_path / "bare.json", {"run": noisy(3000.0)}, idle=False)
    done = gate(limits(tmp_path, {"metric": "above_idle_j", "at_most": 900.0}), "--recording", bare)
    assert done.returncode == 3 and "idle was not measured" in done.stdout


def test_a_command_that_failed_fails_the_gate_whatever_its_energy(gate, tmp_path):
    file = recorded(tmp_path / "run.json", {"run": noisy(10.0)}, exit_code=7)
    done = gate(limits(tmp_path, {"metric": "energy_j", "at_most": 9.0}), "--recording", file)
    assert done.returncode == 1 and "the first with exit code 7" in done.stdout
    assert done.cases["every run ended with exit code 0"] == ["failure"]


def test_several_recordings_and_odd_names(gate, tmp_path):
    name = 'limit <&"\'> | `x` \u00e9'
    one = recorded(tmp_path / "a <&> | \x07.json", {"run": noisy(1000.0)})
    two = recorded(tmp_path / "two.json", {"run": noisy(5000.0)})
    done = gate(limits(tmp_path, {"name": name, "metric": "energy_j", "at_most": 3.0}), "--recording", one, two)
    assert done.returncode == 1 and len(done.suites) == 2 and name in done.cases
    assert [suite.get("failures") for suite in done.suites] == ["0", "1"]
    assert "limit \\<\\&\"'\\> \\| \\`x\\` \u00e9" in done.markdown
    assert all(line.count(" | ") == 4 for line in done.markdown.splitlines() if line.startswith("| "))


GOOD = {"metric": "energy_j", "at_most": 9.0}


@pytest.mark.parametrize("text, why", [
    ("", "is not JSON"), ("[]", "is no file of limits"), ("{}", "is no file of limits"), ("\x00\xff", "is not JSON"),
    ([], "limits is [], expected a list of at least 1"), ([3], "limits[0] is 3"), ([{}], "limits[0].metric is None"),
    ([{"metric": "joules", "at_most": 1}], "limits[0].metric is 'joules', expected one of"),
    ([{"metric": "energy_j"}], "limits[0]: key 'at_most' is missing"),
    ([{"metric": "energy_j", "at_least": 1}], "key 'at_most' is missing"),
    ([{"metric": "saving", "at_most": 1}], "key 'at_least' is missing"),
    ([{"metric": "energy_j", "at_most": True}], "limits[0].at_most is True"),
    ([{"metric": "energy_j", "at_most": "3"}], "limits[0].at_most is '3'"),
    ([{"metric": "energy_j", "at_most": -1}], "limits[0].at_most is -1"),
    ([{"metric": "saving", "at_least": 20}], "limits[0].at_least is 20, expected a number from"),
    ([dict(GOOD, rail="FAN")], "is about rail 'FAN', and the rails are IN, GPU"),
    ([dict(GOOD, rail="")], "limits[0].rail"), ([dict(GOOD, rail=3)], "limits[0].rail is 3"),
    ([{"metric": "saving", "at_least": 0.1, "rail": "IN"}], "unknown key 'rail'"),
    ([{"metric": "peak_power_w", "at_most": 9.0, "divide_by": 2}], "unknown key 'divide_by'"),
    ([dict(GOOD, command="c")], "limits[0].command is 'c'"), ([dict(GOOD, divide_by=0)], "limits[0].divide_by is 0"),
    ([dict(GOOD, name="a\nb")], "limits[0].name"), ([GOOD, GOOD], "stands there twice"),
    ([dict(GOOD, command="a")], "is about command 'a', and only 'run' was measured"),
    ([{"metric": "saving", "at_least": 0.1}], "is about command 'a', and only 'run' was measured"),
])
def test_limits_that_are_wrong(gate, tmp_path, text, why):
    file = recorded(tmp_path / "run.json", {"run": noisy(3000.0)})
    path = limits(tmp_path, *text) if isinstance(text, list) else str(tmp_path / "limits.json")
    if isinstance(text, str):
        (tmp_path / "limits.json").write_bytes(text.encode("latin-1"))
    done = gate(path, "--recording", file)
    assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1


def test_recordings_and_options_that_are_wrong(gate, tmp_path):
    file = limits(tmp_path, GOOD)
    good = recorded(tmp_path / "run.json", {"run": noisy(3000.0)})
    half = tmp_path / "half.json"
    half.write_bytes(Path(good).read_bytes()[:1000])
    (tmp_path / "empty.json").write_bytes(b"")
    pair = recorded(tmp_path / "pair.json", {"a": noisy(1.0), "b": noisy(1.0)})
    for arguments, why in [
            ((file, "--recording", half), "is not JSON"), ((file, "--recording", tmp_path / "empty.json"), "is empty"),
            ((file, "--recording", tmp_path / "gone.json"), "cannot be read"),
            ((tmp_path / "gone.json", "--recording", good), "cannot be read"),
            ((file, "--recording", good, half), "is not JSON"), ((file, "--recording", good, good), "twice"),
            ((file, "--recording", good, "--keep", "x"), "--keep go with"),
            ((file, "--record", "true", "--keep", file), "limits.json' is named twice"),
            ((file, "--record", "true", "--keep", str(tmp_path) + "/./report.json"), "report.json' is named twice"),
            ((file, "--recording", good, pair), "pair.json': no limit is about its commands (a, b)"),
            ((file,), "required"), ((file, "--compare", "--a", "x"), "come together"),
            ((file, "--record", "true", "--a", "x"), "come together"), ((file, "--record", ""), "--record is empty"),
            ((file, "--record", "a 'b"), "No closing quotation"), ((file, "--record", "true", "--runs", "0"), "0"),
            ((file, "--recording", good, "--ssh", "board"), "go with --record"),
            ((file, "--record", "true", "--ssh", "-oProxyCommand=x"), "--ssh"),
            ((file, "--record", "true", "--ssh=-oProxyCommand=x"), "expected USER@HOST"),
            ((file, "--record", "true", "--source", "sundial"), "there is none of this name")]:
        done = gate(*arguments)
        assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1, (arguments, done)


def test_a_report_that_cannot_be_written_is_said_before_the_measurement(python, tmp_path):
    done = python(GATE, limits(tmp_path, GOOD), "--record", "touch " + shlex.quote(str(tmp_path / "ran")),
                  "--json", tmp_path / "no" / "x.json")
    assert done.returncode == 2 and "cannot be written" in done.stderr and not (tmp_path / "ran").exists()


@pytest.fixture
def board(tmp_path):
    """Options for a board of constant 2.5 W: the replayer behind dance-power's tegrastats source."""
    log = tmp_path / "nano.log"
    log.write_text("RAM 1/2MB CPU [0%@1] GPU@30C PMIC@50C POM_5V_IN 2500/2500 POM_5V_GPU 0/0 POM_5V_CPU 100/100\n" * 9)
    command = [sys.executable, str(REPLAY), "--log", str(log)]
    return ["--source", "tegrastats=" + " ".join(map(shlex.quote, command)), "--interval-ms", "20", "--idle", "0.4",
            "--settle", "0", "--warmup", "0", "--runs", "4", "--most", "40", "--precision", "50", "--total",
            "POM_5V_IN"]


SLEEP = shlex.quote(sys.executable) + " -S -c 'import time; time.sleep(0.25)'"


def test_on_the_board_itself_under_the_replayer(gate, tmp_path, board):
    entries = [{"name": "power", "metric": "average_power_w", "at_most": 2.6},
               {"name": "energy", "metric": "energy_j", "at_most": 0.1}]  # at least 0.25 s at 2.5 W: far above it
    keep = tmp_path / "kept.json"
    done = gate(limits(tmp_path, *entries), "--record", SLEEP, "--keep", keep, *board)
    assert done.returncode == 1, done.stderr
    assert verdicts(done)["power"] == "pass" and verdicts(done)["energy"] == "fail"
    assert done.report["checks"][1]["estimate"] == pytest.approx(2.5)
    again = gate(limits(tmp_path, *entries), "--recording", keep)
    assert verdicts(again) == verdicts(done)


def test_compare_on_the_board_itself(gate, tmp_path, board):
    longer = SLEEP.replace("0.25", "0.9")
    done = gate(limits(tmp_path, {"name": "saving", "metric": "saving", "at_least": 0.2}), "--compare", "--a", longer,
                "--b", SLEEP, *board)
    assert done.returncode == 0, done.stderr
    assert done.report["checks"][-1]["low"] >= 0.2


@pytest.fixture
def far(tmp_path):
    """(environment with a stand-in ssh, its log, options that start dance-power over it)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    (tmp_path / "far").mkdir()
    log = tmp_path / "ssh.log"
    environment = {"PATH": str(folder) + os.pathsep + os.environ["PATH"], "SSH_LOG": str(log),
                   "TMPDIR": str(tmp_path / "far")}
    return environment, log, ["--ssh", "me@board", "--board-command",
                              shlex.quote(sys.executable) + " -m dance_deploy.cli.power"]


def test_over_ssh(gate, tmp_path, board, far):
    environment, log, options = far
    told = tmp_path / "told"
    odd = "it's $HOME; `id` \"x\" *"
    command = SLEEP + " " + shlex.quote(odd)
    script = "import sys, time; time.sleep(0.25); open({!r}, 'w').write(sys.argv[1])".format(str(told))
    command = " ".join(map(shlex.quote, [sys.executable, "-S", "-c", script, odd]))
    done = gate(limits(tmp_path, {"name": "power", "metric": "average_power_w", "at_most": 2.6}), "--record", command,
                "--ssh-option", "Port=2222", *(options + board), env=environment)
    assert done.returncode == 0, done.stderr
    assert told.read_text() == odd                           # no shell on the way touched it
    assert os.listdir(str(tmp_path / "far")) == []          # the board is left as it was
    words = log.read_text().splitlines()
    assert "Port=2222" in words and "BatchMode=yes" in words and words.count("me@board") == 4
    assert done.report["checks"][-1]["recording"] == "me@board"


def test_the_environment_is_the_boards(gate, tmp_path, board, far):
    environment, _, options = far
    tree = write_tree(tmp_path / "board", {
        "var/lib/nvpmodel/status": "pmode:0001", "sys/class/devfreq/57000000.gpu/cur_freq": 614400000,
        "sys/class/thermal/thermal_zone0/type": "CPU-therm", "sys/class/thermal/thermal_zone0/temp": 41500})
    program = tmp_path / "board_power.py"
    program.write_text(
        "from dance_deploy.cli import power\nfrom dance_deploy.power import environment\n"
        "here = environment.snapshot\nenvironment.snapshot = lambda root: here({!r})\npower.main()\n".format(tree))
    options[options.index("--board-command") + 1] = shlex.join([sys.executable, str(program)])
    done = gate(limits(tmp_path, {"metric": "average_power_w", "at_most": 2.6}, expect={"power_mode": "pmode:0001"}),
                "--record", SLEEP, *(options + board), env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = done.report["recordings"][0]["environment"]
    assert found["power mode"]["first"] == "pmode:0001" and found["GPU clock"]["last"] == 614.4
    assert found["temperature CPU-therm"]["most"] == 41.5 and "41.5" in done.markdown


def test_a_rail_that_this_machine_lacks_is_said_before_the_measurement(python, tmp_path, board):
    done = python(GATE, limits(tmp_path, dict(GOOD, rail="FAN")), "--record", "touch " + shlex.quote(
        str(tmp_path / "ran")), *board)
    assert done.returncode == 2 and "is about rail 'FAN'" in done.stderr and not (tmp_path / "ran").exists()


def test_compare_over_ssh(gate, tmp_path, board, far):
    environment, _, options = far
    done = gate(limits(tmp_path, {"name": "power", "command": "b", "metric": "average_power_w", "at_most": 2.6}),
                "--compare", "--a", SLEEP, "--b", SLEEP, *(options + board), env=environment)
    assert done.returncode == 0, done.stderr


def test_a_command_that_fails_over_ssh_fails_the_gate(gate, tmp_path, board, far):
    environment, _, options = far
    done = gate(limits(tmp_path, GOOD), "--record", "sh -c 'sleep 0.1; exit 5'", *(options + board), env=environment)
    assert done.returncode == 1 and "the first with exit code 5" in done.stdout


def test_ssh_errors_are_one_line(gate, tmp_path, board, far):
    environment, _, options = far
    for more, why in [(["--ssh", "nobody@nowhere"], "nobody@nowhere: ssh failed: ssh: Could not resolve hostname"),
                      (["--board-command", "no-such-power"], "is it installed there?"),
                      (["--source", "sundial"], "there is none of this name")]:
        done = gate(limits(tmp_path, GOOD), "--record", "true", *(options + board + more), env=environment)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ") and why in line]
        assert done.returncode == 1 and len(errors) >= 1 and done.stderr.splitlines()[-1] == errors[-1], done.stderr
        assert os.listdir(str(tmp_path / "far")) == []


def test_what_is_given_up_does_not_run_on_over_there(gate, tmp_path, board, far):
    environment, _, options = far
    told = tmp_path / "told"
    script = "import os, time; open({!r}, 'w').write(str(os.getpid())); time.sleep(50)".format(str(told))
    command = " ".join(map(shlex.quote, [sys.executable, "-S", "-c", script]))
    done = gate(limits(tmp_path, GOOD), "--record", command, "--timeout", "8", *(options + board), env=environment)
    assert done.returncode == 1 and "not done after 8 s" in done.stderr
    assert has_ended(int(told.read_text())) and os.listdir(str(tmp_path / "far")) == []


def test_it_is_python_3_6_syntax():
    ast.parse(GATE.read_text(encoding="utf-8"), str(GATE), feature_version=(3, 6))
