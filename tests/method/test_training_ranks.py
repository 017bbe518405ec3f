"""Several processes: how batches are shared out, and that two train as one does."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.errors import InputError, OperationError  # noqa: E402
from dance_deploy.method.checkpoint import load_checkpoint  # noqa: E402
from dance_deploy.method.training.metrics import read_metrics  # noqa: E402
from dance_deploy.method.training.ranks import Ranks, joined  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@given(clips=st.lists(st.integers(), min_size=2, max_size=20), count=st.integers(1, 4))
def test_every_clip_of_a_batch_goes_to_one_process(clips, count):
    parts = [Ranks(rank, count).part(clips) for rank in range(count)]
    assert sorted(x for part in parts for x in part) == sorted(clips)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_that_is_too_small_to_share():
    Ranks(0, 3).check_batch(6)
    with pytest.raises(InputError, match="--batch is 5, too few clips for 3 processes; give at least 6"):
        Ranks(0, 3).check_batch(5)
    with pytest.raises(InputError, match="--batch is 1, too few clips for batch norm; give at least 2"):
        Ranks().check_batch(1)
    Ranks(0, 3).check_clips(3)
    with pytest.raises(InputError, match="2 training clips are too few for 3 processes; start at most 2"):
        Ranks(0, 3).check_clips(2)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_a_process_whose_partner_has_gone_says_so_in_one_line(tiny_videos, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dance_deploy.cli.train", "--data", str(tiny_videos / "absent"), "-o",
               str(tmp_path / "c.pt"), "--clip", "6x20x24"]
    processes = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(
        os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", RANK=str(rank),
        WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))) for rank in range(2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 1]
    assert said[0].startswith("error: ") and "no such file or folder" in said[0] and said[0].count("\n") == 1
    assert said[1].splitlines()[-1] == "error: another process of this run has ended; see what it said"
    assert "Traceback" not in said[1] and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_processes_that_do_not_know_where_to_meet_say_so(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OperationError, match="cannot join each other; start them with torchrun .*MASTER_"):
        with joined(torch.device("cpu")):
            pytest.fail("the work began")


def train(videos, out, processes):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone",
                                          f"--nproc_per_node={processes}"]
    command = [sys.executable, *launcher, "-m", "dance_deploy.cli.train", "--data", str(videos), "-o", str(out),
               "--clip", "6x20x24", "--epochs-dense", "4", "--epochs-ava", "1", "--epochs-aap", "2", "--windows", "2",
               "--static-share", "0.5", "--epochs-static", "1", "--json", "-"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr
    # one process speaks
    return json.loads(done.stdout), read_metrics(out.with_suffix(".train") / "metrics.jsonl")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_train_as_one_does(tiny_videos, tmp_path):
    (one, alone), (two, shared) = (train(tiny_videos, tmp_path / f"{n}.pt", n) for n in (1, 2))
    epochs = [[e for e in events if e["event"] == "epoch"] for events in (alone, shared)]
    assert [(e["phase"], e["epoch"]) for e in epochs[0]] == [(e["phase"], e["epoch"]) for e in epochs[1]]
    # batch norm sees half of the clips in each process, so the losses are near and not equal
    first, last = (abs(epochs[0][i]["loss"] / epochs[1][i]["loss"] - 1) for i in (0, 3))
    assert first < 0.1 and last < 0.25
    # what pruning left is decided alike in all processes, or gradients would not fit together
    assert two["original_macs"] == one["original_macs"] and two["pruned_macs"] <= 0.5 * two["original_macs"]
    assert load_checkpoint(tmp_path / "2.pt").labels == load_checkpoint(tmp_path / "1.pt").labels
