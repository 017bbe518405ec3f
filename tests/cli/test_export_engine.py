"""dance-export BUNDLE --engine and dance-run --backend tensorrt, as commands, on the stand-in."""
import json
import os

import pytest
import trt_machine
import trt_standin

from dance_deploy.cli import doctor, entry, export, run


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = trt_machine.Machine("8.2", tmp_path, monkeypatch)
    made.write_bundle()
    yield made
    made.world.settled()


@pytest.fixture
def call(capsys):
    def called(app, *arguments):
        code = entry.exit_code_of(app, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err
    return called


def test_engines_are_built_shown_and_used(machine, call):
    machine.world.cost_ms = lambda model: 1.0 if any(n.op_type == "ActivationGate" for n in model.graph.node) else 2.0
    code, out, err = call(export.app, machine.bundle, "--engine")
    assert (code, err) == (0, "")  # no terminal, no progress
    assert "TensorRT 8.2.1.8" in out and "checked with the golden clip" in out
    assert "gate.a" in out and "gated    1.000 ms, dense    2.000 ms" in out and "left dense" not in out
    code, out, err = call(run.app, machine.bundle, "--self-test", "--backend", "tensorrt")
    assert (code, err) == (0, "") and "all 6 checks passed" in out and "NVIDIA Tegra X1, fp32" in out
    code, out, err = call(run.app, machine.bundle, "--self-test", "--backend", "tensorrt", "--cuda-graph")
    assert (code, err) == (0, "") and "all 6 checks passed" in out and machine.world.launches == 10
    machine.world.no_graphs = True
    code, out, err = call(run.app, machine.bundle, "--self-test", "--backend", "tensorrt", "--cuda-graph")
    assert code == 1 and len(err.splitlines()) == 1 and "--cuda-graph" in err


def test_precision_and_gates_left_out_pass_the_self_test(machine, call):
    assert call(export.app, machine.bundle, "--engine", "--precision", "fp16")[0] == 0  # all cost the same: all dense
    code, out, _ = call(run.app, machine.bundle, "--self-test", "--backend", "tensorrt")
    assert code == 0 and "all 6 checks passed" in out


@pytest.mark.parametrize("arguments, what", [
    (["{bundle}"], "add -o BUNDLE, or --engine"),
    (["{bundle}", "--precision", "fp16"], "add --engine"),
    (["no-such-bundle", "--engine"], "is no bundle"),
    (["{bundle}", "--engine", "--precision", "int4"], "there are: fp32, tf32, fp16"),
    (["{bundle}", "--engine", "--workspace-mib", "0"], "workspace-mib"),
    (["model.pt", "-o", "{bundle}", "--engine"], "add --profile jetson-nano"),  # known before anything is exported
    (["small", "--untrained", "-o", "new", "--engine", "--profile", "x86-cpu"], "add --profile jetson-nano"),
])
def test_wrong_usage_is_one_line(machine, call, arguments, what):
    code, out, err = call(export.app, *[a.format(bundle=machine.bundle) for a in arguments])
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and what in err
    assert not os.path.exists(os.path.join(machine.bundle, "engines"))


def test_a_folder_that_is_no_bundle(machine, call, tmp_path):
    (tmp_path / "other").mkdir()
    code, _, err = call(export.app, tmp_path / "other", "--engine")
    assert code == 2 and "manifest.json is missing" in err


def test_an_export_takes_old_engines_away(machine, call):
    assert call(export.app, machine.bundle, "--engine", "--no-measure")[0] == 0
    machine.write_bundle()
    assert not os.path.exists(os.path.join(machine.bundle, "engines"))


def test_doctor_knows_engines_and_what_lacks(machine, call):
    assert call(export.app, machine.bundle, "--engine", "--no-measure")[0] == 0
    code, out, _ = call(doctor.app, machine.bundle, "--json")
    tree = json.loads(out)
    found = {finding["name"]: finding for finding in tree["findings"] if finding["section"] in ("tensorrt", "engines")}
    assert code == 0 and tree["bundle"]["unlisted"] == []
    assert {name: found[name]["state"] for name in ("TensorRT", "GPU", "plugin", "this machine")} == dict.fromkeys(
        ("TensorRT", "GPU", "plugin", "this machine"), "ok")
    assert "NVIDIA Tegra X1" in found["engines"]["detail"]

    (machine.plugin).unlink()
    body = next(name for name in os.listdir(os.path.join(machine.bundle, "engines")) if ".body." in name)
    tree = json.loads(call(doctor.app, machine.bundle, "--json")[1])
    found = {finding["name"]: finding for finding in tree["findings"]}
    assert (found["plugin"]["state"], found["plugin"]["mend"]) == ("optional", "make plugin")
    assert found["this machine"]["state"] == "optional" and "plugin" in found["this machine"]["detail"]

    machine.plugin.write_bytes(trt_standin.plugin_bytes("8.2"))
    with open(os.path.join(machine.bundle, "engines", body), "ab") as stream:
        stream.write(b"x")
    open(os.path.join(machine.bundle, "engines", "left.over"), "w").close()
    tree = json.loads(call(doctor.app, machine.bundle, "--json")[1])
    found = {finding["name"]: finding for finding in tree["findings"]}
    assert "is damaged" in found["this machine"]["detail"] and "--engine" in found["this machine"]["mend"]
    assert "left.over" in found["stray file"]["detail"]


@pytest.mark.parametrize("lack, name, said", [
    ("memory", "memory", "too little memory to build engines: 600 MiB are free"),
    ("opset", "graphs", "opset 17, TensorRT 8.2.1.8 reads up to 13"),
    ("layout", "graphs", "channels last")])
def test_doctor_knows_what_would_stop_a_build(machine, call, lack, name, said):
    if lack == "memory":
        machine.world.memory_bytes = 600 << 20
    elif lack == "opset":
        machine.generation = "10"
        machine.write_bundle()
    else:
        machine.write_bundle(profile="cpu")
    tree = json.loads(call(doctor.app, machine.bundle, "--json")[1])
    found = {finding["name"]: finding for finding in tree["findings"] if finding["section"] == "engines"}
    assert found[name]["state"] == "optional" and said in found[name]["detail"] and found[name]["mend"]
    assert "--engine" in found["this machine"]["mend"]
    code, _, err = call(export.app, machine.bundle, "--engine")  # and so it does
    assert code in (1, 2) and len(err.splitlines()) == 1 and said in err


def test_doctor_without_a_gpu(machine, call):
    machine.world.gpus = 0
    tree = json.loads(call(doctor.app, "--json")[1])
    found = {finding["name"]: finding for finding in tree["findings"]}
    assert found["GPU"]["state"] == "optional" and "onnxruntime" in found["GPU"]["mend"]
    assert found["TensorRT"]["state"] == "ok" and "not tried" in found["plugin"]["detail"]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_on_terminals_only(terminal):
    import io

    from dance_deploy.runtime.trt.progress import Progress
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    with Progress(stream) as progress:
        progress.step("building body.onnx (fp32)")
        progress.phase("Timing graph nodes", 2, 11)
        progress._draw() if terminal else None
    assert ("Timing graph nodes 3/11" in stream.getvalue()) == terminal
    assert ("building" in stream.getvalue()) == terminal and not stream.getvalue().endswith("3/11")


def test_the_board_needs_neither_torch_nor_onnx(python, tmp_path):
    """Everything that --engine imports, in an interpreter where the workshop's packages cannot be imported."""
    code = ("import sys\n"
            "for name in ('torch', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
            "from dance_deploy.cli import entry, export\n"
            "sys.exit(entry.exit_code_of(export.app, [sys.argv[1], '--engine']))\n")
    (tmp_path / "b").mkdir()
    done = python("-c", code, tmp_path / "b")
    assert done.returncode == 2 and "manifest.json" in done.stderr and "Traceback" not in done.stderr
