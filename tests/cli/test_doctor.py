"""dance-doctor: truthful about this machine, replayable on captured trees, strict with bundles."""
import json
import os

import pytest

from dance_deploy import jetson, machine
from dance_deploy.cli import doctor, entry
from dance_deploy.machine import INFO, MISSING, OK, OPTIONAL


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = entry.exit_code_of(doctor.app, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()
    return call


def plant(root, files):
    """Write {path: content} below `root`; returns it as str."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return str(root)


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_this_machine_can_run_the_default_path(run):
    code, out, err = run()
    assert (code, err) == (0, [])
    for word in ("Python", "processor", "numpy", "onnxruntime", "op library", "dance-run works here"):
        assert word in out


def test_json_has_every_finding(run, tiny_bundle):
    code, out, _ = run(tiny_bundle, "--json")
    found = json.loads(out)
    assert code == 0 and found["works"] is True and found["bundle_error"] is None
    assert {finding["state"] for finding in found["findings"]} <= {OK, INFO, OPTIONAL, MISSING}
    assert found["bundle"]["model"] == "tiny" and found["bundle"]["gates"] == 2


def test_describes_a_good_bundle(run, own_bundle):
    (own_bundle / "notes\n.txt").write_text("x")
    code, out, _ = run(own_bundle)
    assert code == 0
    assert "tiny, 3 classes, untrained" in out and "every hash right" in out
    assert "notes\\n.txt  (never read)" in out


@pytest.mark.parametrize("damage, why", [("cut", "dense.onnx is"), ("missing", "golden.npz is missing")])
def test_a_bad_bundle_is_exit_code_2(run, own_bundle, damage, why):
    if damage == "cut":
        (own_bundle / "dense.onnx").write_bytes((own_bundle / "dense.onnx").read_bytes()[:-1])
    else:
        (own_bundle / "golden.npz").unlink()
    for arguments in ((own_bundle,), (own_bundle, "--json")):
        code, out, err = run(*arguments)
        assert (code, len(err)) == (2, 1) and why in err[0]
    assert why in json.loads(out)["bundle_error"]


def test_a_name_that_the_terminal_cannot_show(python, own_bundle):
    place = own_bundle.rename(own_bundle.parent / "b\u00fcndel")
    done = python("-m", "dance_deploy.cli.doctor", place, env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout.isascii() and "b\\xfcndel" in done.stdout and "Traceback" not in done.stderr


def test_what_is_needed_and_lacking_is_exit_code_1(run, monkeypatch):
    """A machine without onnxruntime and without a decoder."""
    absent = ("onnxruntime", "av", "cv2")
    really = doctor.importlib.import_module

    def import_module(name):
        if name in absent:
            raise ImportError("No module named " + name)
        return really(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    monkeypatch.setattr(doctor, "_spec", lambda name: name not in absent + ("tensorrt", "pycuda"))
    code, out, _ = run()
    assert code == 1
    assert "dance-run does not work here yet: onnxruntime, video decoder missing" in out
    assert "-> pip install onnxruntime" in out and "-> pip install av" in out


@pytest.mark.parametrize("present, state", [
    (("tensorrt", "pycuda"), OPTIONAL), (("tensorrt",), MISSING), ((), MISSING)])
def test_where_engines_run_onnxruntime_may_lack(monkeypatch, present, state):
    """A Jetson Nano: there is no ONNX Runtime for its Python."""
    really = doctor.importlib.import_module

    def import_module(name):
        if name == "onnxruntime":
            raise ImportError("No module named onnxruntime")
        return really(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    monkeypatch.setattr(doctor, "_spec", lambda name: name in present)
    found = by_name(doctor.package_findings())["onnxruntime"]
    assert found.state == state and ("--backend tensorrt" in found.detail) == (state == OPTIONAL)


def test_a_package_for_another_machine_is_told_apart(monkeypatch):
    def import_module(name):
        raise ImportError("wrong ELF class")

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert "installed, but does not import: wrong ELF class" in by_name(doctor.package_findings())["numpy"].detail


def test_one_decoder_is_enough(monkeypatch):
    really = doctor.importlib.import_module

    def import_module(name):
        if name == "av":
            raise ImportError("no av")
        return really(name)

    pytest.importorskip("cv2")
    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert by_name(doctor.package_findings())["cv2"].state == OK
    assert not any(finding.state == MISSING for finding in doctor.package_findings())


def test_a_jetson_nano(tmp_path):
    root = plant(tmp_path, {
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\nmore",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nFeatures\t: fp asimd evtstrm aes\n",
        "proc/meminfo": "MemTotal:        4059212 kB\nMemAvailable:    3100000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "102000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1479000\n",
        "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
        "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU\n",
        "usr/bin/tegrastats": "",
    })
    board, system, power = (by_name(findings(root)) for findings in (
        jetson.board_findings, machine.system_findings, machine.power_findings))
    assert board["model"].detail == "NVIDIA Jetson Nano Developer Kit"
    assert board["L4T release"].detail.startswith("R32 (release), REVISION: 7.1")
    assert "Ubuntu 18.04.6 LTS" in system["OS"].detail
    assert "ARMv8" in system["processor"].detail and system["processor"].detail.endswith("asimd")
    assert system["memory"].detail.startswith("3.9 GiB")
    assert system["clocks"].detail == "governor schedutil, 102 of 1479 MHz" and system["clocks"].mend
    assert power["INA3221"].detail == "POM_5V_IN, POM_5V_GPU" and power["INA3221"].state == OK
    assert power["tegrastats"].mend == "sudo chmod a+x " + os.path.join(root, "usr/bin/tegrastats")
    assert "any source" not in power


def test_an_orin_and_a_laptop(tmp_path):
    orin = plant(tmp_path / "orin", {"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_label": "VDD_IN\n",
                                     "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in2_label": "NC\n"})
    assert by_name(machine.power_findings(orin))["INA3221"].detail == "VDD_IN"
    laptop = plant(tmp_path / "laptop", {
        "sys/class/powercap/intel-rapl:0/energy_uj": "1", "sys/class/power_supply/AC/type": "Mains\n",
        "sys/class/power_supply/BAT0/type": "Battery\n", "sys/class/power_supply/BAT0/power_now": "1",
        "sys/class/power_supply/BAT1/type": "Battery\n", "proc/driver/nvidia/version": "NVRM version: 550.54\nGCC"})
    found = [(finding.name, finding.state) for finding in machine.power_findings(laptop)]
    assert found == [("RAPL", OK), ("NVML", OK), ("battery", OK), ("battery", OPTIONAL)]


def test_counters_for_root_only_come_with_the_command(tmp_path, monkeypatch):
    root = plant(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": "1"})
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)  # the tests themselves may run as root
    found = by_name(machine.power_findings(root))
    assert found["RAPL"].state == OPTIONAL and found["RAPL"].mend.startswith("sudo chmod a+r")
    assert "any source" in found


def test_a_machine_that_tells_nothing(tmp_path):
    assert jetson.board_findings(str(tmp_path)) == []
    assert [finding.name for finding in machine.power_findings(str(tmp_path))] == ["any source"]
    assert "unknown" in by_name(machine.system_findings(str(tmp_path)))["processor"].detail


@pytest.mark.parametrize("broken", [b"\xff\xfe\0\0", b"x" * 3000000, b""])
def test_odd_bytes_in_proc_are_no_crash(tmp_path, broken):
    for path in ("proc/cpuinfo", "proc/meminfo", "etc/os-release", "proc/device-tree/model", "etc/nv_tegra_release",
                 "proc/device-tree/compatible", "proc/swaps", "var/lib/nvpmodel/status", "etc/nvpmodel.conf",
                 "usr/local/cuda/version.txt", "sys/class/devfreq/57000000.gpu/cur_freq",
                 "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(broken)
    for findings in (machine.system_findings, jetson.board_findings, machine.power_findings):
        for finding in findings(str(tmp_path)):
            assert finding.detail.isprintable(), finding.name
