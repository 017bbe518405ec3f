"""dance-train as a user meets it: exit codes, one line for what is wrong, the table, going on after a kill."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("typer")
pytest.importorskip("av")

from dance_deploy.cli import train, train_text  # noqa: E402
from dance_deploy.cli.entry import exit_code_of  # noqa: E402
from dance_deploy.data import open_dataset  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint  # noqa: E402
from dance_deploy.method.checkpoint import load_checkpoint  # noqa: E402
from dance_deploy.method.training.metrics import read_metrics  # noqa: E402
from dance_deploy.runtime.runner import open_runner  # noqa: E402

TINY = ["--clip", "6x20x24", "--clip-stride", "1", "--threads", "1", "--batch", "8", "--windows", "1"]
ONE_EPOCH = ["--epochs-dense", "1", "--epochs-ava", "0", "--epochs-aap", "1"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Folder of the rendered data set: 8 classes, 4 clips each of 8 frames of 32x32."""
    folder = tmp_path_factory.mktemp("videos") / "rendered"
    open_dataset("rendered", render_dir=folder, clips_per_class=4, size=(32, 32), frames=8)
    return str(folder)


@pytest.fixture
def run(capfd):
    """run(arguments...) -> exit code, stdout, stderr"""
    threads = torch.get_num_threads()

    def start(*arguments):
        code = exit_code_of(train.app, [str(a) for a in arguments])
        return (code, *capfd.readouterr())
    yield start
    torch.set_num_threads(threads)


def test_train_writes_a_checkpoint_and_a_table(run, videos, tmp_path):
    code, out, err = run("--data", videos, "-o", tmp_path / "c.pt", "--json", tmp_path / "c.json", *TINY, *ONE_EPOCH)
    assert code == 0, err
    assert load_checkpoint(tmp_path / "c.pt").clip.size == (20, 24)
    assert "test: 8 clips" in out and "<- default" in out and "c.pt is complete" in out
    assert "clips: train 16" in err and "AAP 1/1: loss" in err and "not mirrored" in err
    scores = json.loads((tmp_path / "c.json").read_text())["scores"]["test"]
    assert [g["budget"] for g in scores["gated"]] == [1.0, 0.8, 0.6, 0.5, 0.4, 0.3] and scores["dense"]["clips"] == 8


def test_gates_that_nobody_trained_keep_everything(run, videos, tmp_path):
    code, _, err = run("--data", videos, "-o", tmp_path / "c.pt", "--static-share", "0.5", "--epochs-static", "1",
                       *TINY, "--epochs-dense", "1", "--epochs-ava", "0", "--epochs-aap", "0")
    assert code == 0, err
    assert "keep everything at every budget" in err
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    assert checkpoint.default_budget == 1.0 and [budget for budget, _ in checkpoint.reached] == [1.0]
    bundle_from_checkpoint(checkpoint, tmp_path / "b")  # its parity checks must not miss what they look for
    with open_runner(tmp_path / "b") as runner:
        clip = np.random.default_rng(0).standard_normal(runner.manifest.clip.shape).astype(np.float32)
        for budget in (None, 0.2):
            np.testing.assert_array_equal(runner.infer(clip, budget).kept, runner.costs.all_kept)


def test_json_on_stdout_is_all_there_is(run, videos, tmp_path):
    code, out, _ = run("--data", videos, "-o", tmp_path / "c.pt", "--json", "-", "--target-macs", "0.45", *TINY,
                       *ONE_EPOCH)
    assert code == 0
    assert 0.45 in [g["budget"] for g in json.loads(out)["scores"]["val"]["gated"]]


@pytest.mark.parametrize("arguments,said", [
    (["--arch", "r9d"], "'r9d' is unknown"), (["--target-macs", "1.5"], "--target-macs is 1.5"),
    (["--kinds", "frames,sound"], "--kinds"), (["--clip", "16x16"], "--clip is '16x16'"),
    (["--resume", "--restart"], "exclude each other"), (["--init", "absent.pt"], "--init absent.pt: no such file"),
    (["--epochs-dense", "-3"], "--epochs-dense is -3"), (["--batch", "0"], "--batch is 0"),
    (["--data", "absent"], "absent: no such file or folder"), (["--device", "tpu"], "--device is 'tpu'"),
    (["--lr", "fast"], "--lr"), (["--lr", "-1"], "--lr is -1.0"),
    (["--json", "absent/c.json"], "--json 'absent/c.json'"), (["-o", "."], "is a folder"),
    (["--clip-stride", "0"], "stride"), (["--clip-stride", "4097"], "stride must be 1 to 4096"),
    (["--windows", "9" * 30], "--windows is 999"), (["--epochs-aap", "9" * 30], "--epochs-aap is 999"),
    (["--clip", "5000x24x30"], "frames must be 1 to 4096"),
    (["--static-by", "magnitude"], "--static-by says how --static-share prunes"),
    (["--epochs-static", "3"], "add --static-share"), (["--json", "./c.pt"], "--json and -o name the same file"),
    (["-o", "x" * 300 + ".pt"], "File name too long"),
    (["--render-clips", "3"], "--render-clips is for --data rendered")])
def test_wrong_usage_is_one_line_and_exit_code_2(run, videos, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("--data", videos, "-o", "c.pt", *TINY, *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_the_data_is_not_replaced(run, videos, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n")
    code, _, err = run("--data", tmp_path / "list.csv", "-o", tmp_path / "list.csv", *TINY)
    assert code == 2 and "is the list of the data" in err and (tmp_path / "list.csv").read_text() == "path,label\n"


@pytest.mark.parametrize("label, fits", [("می\u200cدود", True), ("jump\u00a0rope", True), ("a\u202eb", False)])
def test_class_names_that_no_bundle_holds_are_known_before_training(run, videos, tmp_path, monkeypatch, label, fits):
    def begun(*_):
        raise InputError("training began")

    monkeypatch.setattr("dance_deploy.method.training.command.train", begun)
    clips = [os.path.join(root, name) for root, _, names in os.walk(videos) for name in names if name.endswith(".mp4")]
    lines = [f"{clip},{name}" for clip, name in zip(clips, ["other", label] * 3)]
    (tmp_path / "data.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    code, _, err = run("--data", tmp_path / "data.csv", "-o", tmp_path / "c.pt", *TINY)
    assert code == 2 and ("training began" if fits else "a bundle cannot hold it, so rename it") in err


def test_one_class_alone_is_refused(run, videos, tmp_path):
    clips = [os.path.join(root, name) for root, _, names in os.walk(videos) for name in names if name.endswith(".mp4")]
    lines = [f"{clip},a,{split}" for clip, split in zip(clips, ("train", "val", "test"))]
    (tmp_path / "one.csv").write_text("\n".join(["path,label,split", *lines]))
    code, out, err = run("--data", tmp_path / "one.csv", "-o", tmp_path / "c.pt", *TINY)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "one class only, 'a'" in err


def test_options_that_are_missing(run):
    code, _, err = run("-o", "c.pt")
    assert code == 2 and "--data" in err


def test_weights_of_another_network(run, videos, tmp_path):
    torch.save({"x.weight": torch.zeros(2)}, tmp_path / "w.pt")
    code, _, err = run("--data", videos, "-o", tmp_path / "c.pt", "--init", tmp_path / "w.pt", *TINY)
    assert code == 2 and "w.pt" in err and "Traceback" not in err


def test_loss_that_is_no_number_is_exit_code_1(run, videos, tmp_path):
    code, _, err = run("--data", videos, "-o", tmp_path / "c.pt", "--lr", "1e30", *TINY, *ONE_EPOCH)
    last = err.strip().splitlines()[-1]
    assert code == 1 and last.startswith("error: dense phase, epoch 1") and "step" in last


def command(*arguments):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(os.environ, PYTHONPATH=root, PYTHONDONTWRITEBYTECODE="1")
    return subprocess.Popen([sys.executable, "-m", "dance_deploy.cli.train", *map(str, arguments)], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(process, folder, count):
    """Until metrics.jsonl has that many epochs."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists():
            if sum(e["event"] == "epoch" for e in read_metrics(folder / "metrics.jsonl")) >= count:
                return
        time.sleep(0.02)
    pytest.fail(f"no {count} epochs: {process.communicate(timeout=5)}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_process_goes_on_with_resume(run, videos, tmp_path, how):
    arguments = ["--data", videos, "-o", tmp_path / "c.pt", *TINY, "--epochs-dense", "20", "--epochs-ava", "0",
                 "--epochs-aap", "0"]
    process = command(*arguments)
    wait_for_epoch(process, tmp_path / "c.train", 2)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 1 and "Traceback" not in err
        assert err.strip().splitlines()[-1].startswith("interrupted; go on with the same command and --resume")
    assert not (tmp_path / "c.pt").exists()
    code, _, err = run(*arguments)
    assert code == 2 and "--resume" in err and "--restart" in err
    code, _, err = run(*arguments, "--resume")
    assert code == 0 and "of them done" in err
    epochs = [e["epoch"] for e in read_metrics(tmp_path / "c.train" / "metrics.jsonl") if e["event"] == "epoch"]
    assert epochs == list(range(1, 21))


def test_bars_draw_on_a_terminal(capsys):
    with train_text.BarReporter() as bars:
        callback = bars.progress("decoding")
        callback(1, 2)
        bars.phase("aap", 2, 0)
        bars.step(0.5)
        bars.epoch({"loss": 1.0, "accuracy": 0.5, "share": 0.4, "val_top1": 1.0, "val_share": 0.41})
        bars.say("[a line] with brackets")
    shown = capsys.readouterr()
    assert shown.out == "" and "[a line] with brackets" in shown.err
