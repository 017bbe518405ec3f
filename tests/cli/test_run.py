"""dance-run as a user meets it: what it prints, writes, refuses, and with which exit code."""
import http.server
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from tiny_bundle import LABELS, dense_macs, tiny_fields, tiny_files
from tiny_video import write_video

from dance_deploy.bundle import write_bundle
from dance_deploy.cli import entry
from dance_deploy.cli.run import app
from dance_deploy.runtime import kernels

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEYS = ["source", "start_s", "end_s", "top", "kept", "macs", "macs_dense", "bytes", "bytes_dense", "latency_ms",
        "energy_j", "backend", "precision"]


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "moving.mp4", 40)


@pytest.fixture
def run(capsys):
    """run(*arguments) -> (exit code, stdout, lines of stderr without warnings)."""
    def call(*arguments):
        code = entry.exit_code_of(app, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()
    return call


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_prints_windows_summary_and_table(run, tiny_bundle, clip_file):
    code, out, err = run(tiny_bundle, clip_file)
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert lines[0].startswith("tiny") and "3 classes" in lines[0] and "budget 0.60" in lines[0]
    assert "untrained" in lines[1]
    assert clip_file in lines
    assert len([line for line in lines if " MACs " in line and " ms" in line]) == 40 // 8
    assert any("(5 windows)" in line for line in lines)
    assert any("memory accesses" in line and "(counted)" in line for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["gate.a", "gate.b"]


def test_json_lines_have_the_promised_keys(run, tiny_bundle, clip_file, tmp_path):
    code, out, _ = run(tiny_bundle, clip_file, "--json", tmp_path / "out.json", "--budget", "0.4", "--top", "2")
    assert code == 0 and out
    found = records(tmp_path / "out.json")
    assert len(found) == 5
    for record in found:
        assert list(record) == KEYS
        assert record["source"] == clip_file
        assert record["start_s"] < record["end_s"]
        assert len(record["top"]) == 2 and record["top"][0]["score"] >= record["top"][1]["score"]
        assert {entry["label"] for entry in record["top"]} <= set(LABELS)
        assert [layer["layer"] for layer in record["kept"]] == ["gate.a", "gate.b"]
        assert [record["kept"][0][kind][1] for kind in ("frames", "channels", "features")] == [4, 4, 64]
        assert 0 < record["macs"] < record["macs_dense"] == dense_macs()
        assert record["latency_ms"]["total"] > 0 and set(record["latency_ms"]) == {"controller", "body", "total"}
        assert (record["energy_j"], record["backend"]) == (None, "onnxruntime")
    assert os.listdir(tmp_path) == ["out.json"]


def test_dense_keeps_all(run, tiny_bundle, clip_file, tmp_path):
    code, out, _ = run(tiny_bundle, clip_file, "--dense", "--json", tmp_path / "out.json")
    assert code == 0 and "kept on average" not in out
    for record in records(tmp_path / "out.json"):
        assert record["macs"] == record["macs_dense"] == dense_macs()
        assert all(layer[kind][0] == layer[kind][1] for layer in record["kept"]
                   for kind in ("frames", "channels", "features"))


def has_bf16():
    path = kernels.library_path()
    return path is not None and kernels.has_bf16(path)


@pytest.mark.skipif(not has_bf16(), reason="this processor has no AVX512-BF16, or the kernels are not built")
def test_bfloat16_is_asked_for_and_its_accuracy_told(run, tiny_bundle, clip_file, tmp_path):
    code, out, err = run(tiny_bundle, clip_file, "--precision", "bf16", "--json", tmp_path / "out.json")
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert "dance kernels, bfloat16" in lines[0]
    told = next(line for line in lines if line.startswith("bfloat16 against float32"))
    assert 0 < float(told.split("by up to ")[1].split(" %")[0]) < 2 and "same best label" in told
    assert {record["precision"] for record in records(tmp_path / "out.json")} == {"bf16"}
    run(tiny_bundle, clip_file, "--json", tmp_path / "float.json")
    assert {record["precision"] for record in records(tmp_path / "float.json")} == {"fp32"}
    scores = [[r["top"][0]["score"] for r in records(tmp_path / name)] for name in ("out.json", "float.json")]
    assert scores[0] != scores[1]    # it was really computed otherwise
    assert run(tiny_bundle, "--self-test", "--precision", "bf16")[0] == 0


@pytest.mark.parametrize("arguments, said", [
    (["--precision", "fp8"], "--precision fp8: the backend 'onnxruntime' offers fp32 and bf16"),
    (["--precision", "bf16", "--backend", "reference"], "--precision bf16: the backend 'reference' offers fp32"),
    (["--precision", "bf16", "--dense"], "--dense")])
def test_a_precision_that_is_not_there_is_one_line(run, tiny_bundle, clip_file, arguments, said):
    code, _, err = run(tiny_bundle, clip_file, *arguments)
    assert code == 2 and len(err) == 1 and said in err[0], err


@pytest.mark.parametrize("path, said", [(None, "make -C kernels"), ("a library", "no AVX512-BF16")])
def test_a_machine_without_bfloat16_says_so(run, tiny_bundle, clip_file, monkeypatch, path, said):
    if path is not None:
        if kernels.library_path() is None:
            pytest.skip("the kernels are not built")
        monkeypatch.setattr(kernels, "has_bf16", lambda path: False)
    else:
        monkeypatch.setattr(kernels, "library_path", lambda: None)
    code, _, err = run(tiny_bundle, clip_file, "--precision", "bf16")
    assert code == 2 and said in err[-1] and err[-1].count("--precision bf16") == 1, err


def test_backends_tell_the_same_story(run, tiny_bundle, clip_file, tmp_path):
    found = []
    for backend in ("onnxruntime", "reference"):
        run(tiny_bundle, clip_file, "--backend", backend, "--json", tmp_path / backend)
        found.append([(r["start_s"], r["kept"], r["macs"], r["top"][0]["label"]) for r in records(tmp_path / backend)])
    assert found[0] == found[1]


def test_json_to_stdout_is_json_only(run, tiny_bundle, clip_file):
    code, out, _ = run(tiny_bundle, clip_file, "--json", "-")
    assert code == 0
    assert [list(json.loads(line)) for line in out.splitlines()] == [KEYS] * 5


def test_folders_and_files_in_the_order_given(run, tiny_bundle, clip_file, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("b.mp4", "a.mp4"):
        write_video(tmp_path / "videos" / name, 8)
    run(tiny_bundle, clip_file, tmp_path / "videos", "--limit", "1", "--json", tmp_path / "out.json")
    assert [os.path.basename(record["source"]) for record in records(tmp_path / "out.json")] == [
        "moving.mp4", "a.mp4", "b.mp4"]


def test_a_bad_input_among_good_ones(run, tiny_bundle, clip_file, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(open(write_video(tmp_path / "whole.mp4", 400), "rb").read()[:-4000])
    code, out, err = run(tiny_bundle, tmp_path / "text.mp4", clip_file, tmp_path / "empty", tmp_path / "absent.mp4",
                         cut, "--json", tmp_path / "out.json")
    assert code == 2
    assert len(err) == 4 and all(line.startswith("error: ") for line in err)
    for name in ("text.mp4", "empty", "absent.mp4", "cut.mp4"):
        assert len([line for line in err if name in line]) == 1
    assert {record["source"] for record in records(tmp_path / "out.json")} == {clip_file}


def test_a_damaged_video_leaves_no_lines(run, tiny_bundle, clip_file, tmp_path):
    """An AVI whose end is missing gives windows first and shows its damage later: its lines go again."""
    whole = write_video(tmp_path / "whole.avi", 400)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(open(whole, "rb").read()[:os.path.getsize(whole) // 2])
    code, out, err = run(tiny_bundle, cut, clip_file, "--json", tmp_path / "out.json")
    assert code == 2 and len(err) == 1 and "cut.avi" in err[0]
    assert [record["source"] for record in records(tmp_path / "out.json")] == [clip_file] * 5


def test_only_bad_inputs_leave_no_file(run, tiny_bundle, tmp_path):
    (tmp_path / "old.json").write_text("earlier result")
    code, _, err = run(tiny_bundle, tmp_path / "absent.mp4", "--json", tmp_path / "old.json")
    assert code == 2 and len(err) == 1
    assert (tmp_path / "old.json").read_text() == "earlier result"
    assert os.listdir(tmp_path) == ["old.json"]


@pytest.mark.parametrize("arguments, why", [
    (["--budget", "0"], "budget is 0.0"),
    (["--budget", "nan"], "budget is nan"),
    (["--budget", "1.2"], "budget is 1.2"),
    (["--budget", "half"], "--budget"),
    (["--budget", "0.5", "--dense"], "give one of the two"),
    (["--backend", "cuda"], "there are: onnxruntime, reference"),
    (["--top", "0"], "--top"),
    (["--threads", "100000"], "--threads"),
    (["--json", ""], "--json"),
    (["--hop", "0"], "--hop"),
    (["--surprise"], "--surprise"),
    (["--self-test"], "name no INPUT"),
    (["--json", "/absent/folder/out.json"], "--json '/absent/folder/out.json' cannot be written"),
    (["--json", "."], "--json '.' cannot be written")])
def test_wrong_usage_is_one_line(run, tiny_bundle, clip_file, arguments, why):
    code, out, err = run(tiny_bundle, clip_file, *arguments)
    assert code == 2
    assert len(err) == 1 and err[0].startswith("error: ") and why in err[0]
    assert out == ""


@pytest.mark.parametrize("arguments, why", [
    ([], "BUNDLE"), (["absent"], "no INPUT"), (["absent", "x.mp4"], "'absent'")])
def test_missing_arguments(run, arguments, why):
    code, out, err = run(*arguments)
    assert (code, len(err), out) == (2, 1, "") and why in err[0]


def test_a_damaged_bundle_is_named(run, own_bundle, clip_file):
    data = bytearray((own_bundle / "body.onnx").read_bytes())
    data[100] ^= 1
    (own_bundle / "body.onnx").write_bytes(bytes(data))
    code, out, err = run(own_bundle, clip_file)
    assert (code, len(err), out) == (2, 1, "") and "body.onnx is damaged" in err[0]


def test_self_test_passes_and_fails(run, tiny_bundle, tmp_path):
    code, out, _ = run(tiny_bundle, "--self-test")
    assert code == 0 and out.count("PASS") == 6 and "FAIL" not in out
    other = write_bundle(tmp_path / "other", tiny_fields(),
                         {**tiny_files(seed=4), "golden.npz": tiny_files()["golden.npz"]})
    code, out, _ = run(other.path, "--self-test")
    assert code == 1 and "FAIL" in out


@pytest.mark.parametrize("arguments", [["--dense"], ["--budget", "0.5"], ["--json", "-"], ["--power", "auto"]])
def test_self_test_says_what_it_would_ignore(run, tiny_bundle, arguments):
    code, out, err = run(tiny_bundle, "--self-test", *arguments)
    assert (code, len(err), out) == (2, 1, "") and "do not go with it" in err[0]


@pytest.mark.parametrize("how", [["--self-test"], ["clip.mp4"]], ids=" ".join)
@pytest.mark.parametrize("arguments, said", [
    (["--dense"], "--dense"), (["--backend", "reference"], "--backend reference runs without them"),
    (["--backend", "tensorrt"], "--backend tensorrt runs without them"), (["--backend", "rknn"], "'rknn'")])
def test_costs_of_kernels_that_do_not_run(run, tiny_bundle, how, arguments, said):
    code, out, err = run(tiny_bundle, *how, "--built-in-costs", *arguments)
    assert (code, len(err), out) == (2, 1, "") and said in err[0]


def test_what_is_read_is_not_replaced(run, tiny_bundle, clip_file, tmp_path):
    with open(clip_file, "rb") as stream:
        before = stream.read()
    page, same = tmp_path / "p.html", os.path.join(str(tmp_path), ".", "p.html")
    for outputs, said in ((["--json", clip_file], "is an INPUT and would be replaced"),
                          (["--report", page, "--json", same], "the same file"),
                          (["--json", os.path.join(tiny_bundle, "manifest.json")], "lies in the bundle")):
        code, out, err = run(tiny_bundle, clip_file, *outputs)
        assert (code, out, len(err)) == (2, "", 1) and said in err[0]
    code, out, err = run(tiny_bundle, os.path.dirname(clip_file), "--json", clip_file)    # an input as part of a folder
    assert (code, out, len(err)) == (2, "", 1) and "is an INPUT and would be replaced" in err[0]
    with open(clip_file, "rb") as stream:
        assert stream.read() == before and not list(tmp_path.iterdir())


def test_a_folder_below_that_cannot_be_read_is_said(run, tiny_bundle, clip_file, tmp_path, monkeypatch):
    (tmp_path / "videos" / "locked").mkdir(parents=True)
    real = os.scandir

    def scandir(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    code, _, err = run(tiny_bundle, clip_file, tmp_path / "videos")
    assert code == 2 and len(err) == 1 and "locked' cannot be read: Permission denied" in err[0]


def test_output_that_cannot_show_unicode(python, tiny_bundle, clip_file):
    done = python("-m", "dance_deploy.cli.run", tiny_bundle, clip_file, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "##" in done.stdout and done.stdout.isascii()


def test_a_reader_that_leaves_is_no_error(tiny_bundle, clip_file):
    command = "'{}' -m dance_deploy.cli.run '{}' '{}' --hop 1 --json - | head -1".format(
        sys.executable, tiny_bundle, clip_file)
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert b"Traceback" not in done.stderr and b"Broken" not in done.stderr


def test_json_to_a_pipe_leaves_the_pipe(run, tiny_bundle, clip_file, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run(tiny_bundle, clip_file, "--json", pipe)[0] == 0
        assert len(os.read(reader, 1 << 16).splitlines()) == 5
    finally:
        os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_full_disk_is_one_line_and_leaves_no_file(tiny_bundle, clip_file, tmp_path):
    command = "ulimit -f 1; trap '' XFSZ; '{}' -m dance_deploy.cli.run '{}' '{}' '{}' --hop 1 --json '{}' -q".format(
        sys.executable, tiny_bundle, clip_file, clip_file, tmp_path / "out.json")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="utf-8", timeout=60)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert done.returncode == 1 and len(errors) == 1 and "could not be written: File too large" in errors[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(tiny_bundle, clip_file):
    command = [sys.executable, "-m", "dance_deploy.cli.run", tiny_bundle, clip_file]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: output cannot be written")
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_is_like_none(tiny_bundle, clip_file):
    for options in ("", "--json -"):
        command = "'{}' -m dance_deploy.cli.run '{}' '{}' {} >&-".format(
            sys.executable, tiny_bundle, clip_file, options)
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
        assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_its_like_are_one_line_and_leave_no_file(tiny_bundle, tmp_path, number):
    long = write_video(tmp_path / "long.mp4", 3000)
    process = subprocess.Popen(
        [sys.executable, "-m", "dance_deploy.cli.run", tiny_bundle, long, "--hop", "1", "--backend", "reference",
         "--json", str(tmp_path / "out.json")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8")
    for line in process.stdout:
        if " MACs " in line:
            break
    process.send_signal(number)
    start = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert process.returncode == 1
    assert err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert os.listdir(tmp_path) == ["long.mp4"]


def test_progress_goes_to_a_terminal_only(tiny_bundle, clip_file):
    """stderr is a terminal and stdout is none: one line that is overwritten, and removed at the end."""
    master, slave = pty.openpty()
    done = subprocess.run([sys.executable, "-m", "dance_deploy.cli.run", tiny_bundle, clip_file, "--hop", "1", "--json",
                           "-"], cwd=ROOT, stdout=subprocess.PIPE, stderr=slave, timeout=60)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    assert "\r" in shown and "moving.mp4: 1 windows" in shown and shown.endswith("\r")
    assert b"\r" not in done.stdout


@pytest.fixture
def stalling_stream(tmp_path_factory):
    """Address of a stream that sends some seconds of video and then nothing, without ending."""
    path = write_video(tmp_path_factory.mktemp("stream") / "live.ts", 200)
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with open(path, "rb") as stream:
                self.wfile.write(stream.read())
            self.wfile.flush()
            stop.wait(60)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http://127.0.0.1:{}/live.ts".format(server.server_port)
    stop.set()
    server.shutdown()
    server.server_close()


def test_ctrl_c_ends_a_live_stream_well(tiny_bundle, tmp_path, stalling_stream):
    """It has no other end: what came until then is kept and summed up, even while the decoder waits for more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dance_deploy.cli.run", tiny_bundle, stalling_stream, "--json",
         str(tmp_path / "out.json")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if " MACs " in line:
            break
    time.sleep(0.5)
    grown = records(tmp_path / "out.json")  # lines are there while the stream still runs
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert " window" in out and "kept on average" in out and "Traceback" not in err
    assert 1 <= len(grown) <= len(records(tmp_path / "out.json"))
    assert records(tmp_path / "out.json")[0]["source"] == stalling_stream
