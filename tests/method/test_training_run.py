"""Whole runs on a tiny data set: what is written, going on after an interruption, and what stops a run."""
import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from training_helpers import TINY_CLIP, Recorder  # noqa: E402

from dance_deploy.errors import InputError, OperationError  # noqa: E402
from dance_deploy.method.checkpoint import load_checkpoint, model_from_checkpoint  # noqa: E402
from dance_deploy.method.training.loop import Diverged  # noqa: E402
from dance_deploy.method.training.metrics import read_metrics  # noqa: E402
from dance_deploy.method.training.settings import TrainSettings  # noqa: E402
from dance_deploy.method.training.state import load_state, run_lock, work_folder  # noqa: E402
from dance_deploy.models import build  # noqa: E402

SHORT = TrainSettings(epochs_dense=2, epochs_ava=1, epochs_aap=2, batch=6, windows=1, flip=False, eval_windows=2,
                      eval_every=1, budgets=(1.0, 0.5))


def same_metrics(one, other):
    strip = [[{k: v for k, v in event.items() if k != "seconds"} for event in read_metrics(folder / "metrics.jsonl")]
             for folder in (one, other)]
    return strip[0] == strip[1]


def same_checkpoint(one, other):
    a, b = load_checkpoint(one), load_checkpoint(other)
    return (all(torch.equal(t, b.graph[name]) for name, t in a.graph.items()) and torch.equal(a.samples, b.samples)
            and a.reached == b.reached and a.results == b.results)


def test_a_run_leaves_checkpoint_metrics_and_pictures(finished):
    folder = work_folder(finished.checkpoint)
    assert sorted(p.name for p in folder.iterdir()) == [
        "dense.pt", "history.png", "lock", "magnitudes.png", "metrics.jsonl", "results.json", "state.pt"]
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("history.png", "magnitudes.png"))
    events = read_metrics(folder / "metrics.jsonl")
    assert [(e["phase"], e["epoch"]) for e in events if e["event"] == "epoch"] == [
        ("dense", 1), ("dense", 2), ("ava", 1), ("aap", 1), ("aap", 2)]
    assert [e["stage"] for e in events if e["event"] == "magnitudes"] == ["dense", "ava", "aap"]
    results = json.loads((folder / "results.json").read_text())
    assert set(results["scores"]) == {"val", "test"} and results["settings"]["seed"] == 0
    assert load_state(folder / "state.pt").finished


def test_the_checkpoint_is_complete(finished):
    checkpoint = load_checkpoint(finished.checkpoint)
    assert checkpoint.labels[0] == "clockwise" and len(checkpoint.labels) == 8 and checkpoint.clip == TINY_CLIP
    assert checkpoint.kinds == ("frames", "features") and checkpoint.default_budget == 0.5
    assert checkpoint.samples.shape == (4, 6, 20, 24, 3) and checkpoint.samples.dtype == torch.uint8
    assert len({clip.numpy().tobytes() for clip in checkpoint.samples}) == 4
    assert [asked for asked, _ in checkpoint.reached] == [1.0, 0.5]
    model = model_from_checkpoint(checkpoint)
    map_points = model.controller.asked.tolist()
    assert map_points[0] == 0.0 and map_points[-1] == 1.0 and map_points == sorted(map_points)


def test_no_budget_below_those_that_training_drew_is_fed(finished):
    """Thresholds of lower ones are an extrapolation that ruins the answers."""
    controller = model_from_checkpoint(load_checkpoint(finished.checkpoint)).controller
    assert controller.fed_budget(torch.tensor([0.0, 0.01, 0.1])).tolist() == pytest.approx([SHORT.lowest_budget] * 3)
    calibration = [e for e in read_metrics(finished.folder / "metrics.jsonl") if e["event"] == "calibration"][-1]
    assert calibration["fed_grid"][0] == SHORT.lowest_budget and min(calibration["fed"]) >= SHORT.lowest_budget


def test_budget_1_costs_the_dense_network_and_the_controller(finished):
    for scores in finished.scores:
        full = scores.at(1.0)
        assert 1.0 < full.share < 1.05 and full.kept == [[1.0, 1.0, 1.0]] * 8
        assert scores.dense.windows == full.windows == 2 * full.clips


def test_the_same_seed_gives_the_same_checkpoint_and_another_one_does_not(finished, run, tmp_path):
    run(tmp_path / "c.pt")
    assert same_checkpoint(finished.checkpoint, tmp_path / "c.pt")
    assert same_metrics(work_folder(finished.checkpoint), work_folder(tmp_path / "c.pt"))
    run(tmp_path / "d.pt", dataclasses.replace(SHORT, seed=1, epochs_dense=1, epochs_ava=0, epochs_aap=0))
    assert not torch.equal(load_checkpoint(tmp_path / "d.pt").graph["fc.weight"],
                           load_checkpoint(finished.checkpoint).graph["fc.weight"])


class Stopping(Recorder):
    """Interrupts at the n-th step, epoch or line."""

    def __init__(self, what, after):
        super().__init__()
        self.what, self.left = what, after

    def count(self, what):
        if what == self.what:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def step(self, part):
        self.count("step")

    def epoch(self, shown):
        self.count("epoch")

    def say(self, line):
        self.count("line")

    def phase(self, name, epochs, done):
        super().phase(name, epochs, done)
        self.count(name)


@pytest.mark.parametrize("what,after", [("step", 1), ("step", 5), ("epoch", 2), ("ava", 1), ("step", 14), ("line", 1)])
def test_interrupted_and_resumed_is_as_never_interrupted(finished, run, tmp_path, what, after):
    """In the first step, in a later epoch, after one, between phases, among gates, while measuring."""
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        run(out, reporter=Stopping(what, after))
    assert not out.exists() and not load_state(work_folder(out) / "state.pt").finished
    with pytest.raises(InputError, match=r"--resume .*--restart"):
        run(out)
    run(out, going_on="resume")
    assert same_checkpoint(finished.checkpoint, out)
    assert same_metrics(work_folder(finished.checkpoint), work_folder(out))


def test_a_torn_line_of_metrics_is_forgotten(finished, run, tmp_path):
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        run(out, reporter=Stopping("epoch", 3))
    with open(work_folder(out) / "metrics.jsonl", "ab") as stream:
        stream.write(b'{"event": "epoch", "phase": "aap", "epo')
    run(out, going_on="resume")
    assert same_metrics(work_folder(finished.checkpoint), work_folder(out))


def test_resume_starts_where_there_is_nothing_and_repeats_nothing_that_is_finished(finished, run, tmp_path):
    short = dataclasses.replace(SHORT, epochs_dense=1, epochs_ava=0, epochs_aap=0)
    recorder = Recorder()
    run(tmp_path / "c.pt", short, recorder, going_on="resume")
    assert recorder.epochs
    before = load_checkpoint(tmp_path / "c.pt").graph["fc.weight"]
    again = Recorder()
    run(tmp_path / "c.pt", short, again, going_on="resume")
    assert not again.epochs and torch.equal(load_checkpoint(tmp_path / "c.pt").graph["fc.weight"], before)


def test_resuming_with_other_options_names_them(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.pt", reporter=Stopping("epoch", 1))
    with pytest.raises(InputError, match=r"--seed 0, now 3"):
        run(tmp_path / "c.pt", dataclasses.replace(SHORT, seed=3), going_on="resume")
    run(tmp_path / "c.pt", dataclasses.replace(SHORT, seed=3, epochs_dense=0, epochs_ava=0, epochs_aap=0),
        going_on="restart")
    assert (tmp_path / "c.pt").exists()


def test_a_finished_checkpoint_stays_until_the_next_is_complete(run, tmp_path):
    out = tmp_path / "c.pt"
    out.write_bytes(b"the one before")
    with pytest.raises(KeyboardInterrupt):
        run(out, reporter=Stopping("line", 1))
    assert out.read_bytes() == b"the one before"


def test_a_loss_that_is_no_number_stops_and_names_the_step(run, tmp_path):
    settings = dataclasses.replace(SHORT, lr_dense=1e30, grad_norm=1e30)
    with pytest.raises(Diverged, match=r"dense phase, epoch \d, step \d+ of 6: the (loss|gradient) is .*--restart"):
        run(tmp_path / "c.pt", settings)
    state = load_state(work_folder(tmp_path / "c.pt") / "state.pt")
    assert all(torch.isfinite(t).all() for t in state.model.values()) and not (tmp_path / "c.pt").exists()


def test_damaged_state_is_one_line(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.pt", reporter=Stopping("epoch", 1))
    path = work_folder(tmp_path / "c.pt") / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"state\.pt"):
        run(tmp_path / "c.pt", going_on="resume")


def test_init_starts_from_weights_and_refuses_others(run, tmp_path):
    network = build("small", 8, seed=5)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    none = dataclasses.replace(SHORT, epochs_dense=0, epochs_ava=0, epochs_aap=0)
    run(tmp_path / "c.pt", none, init=tmp_path / "w.pt")
    graph = load_checkpoint(tmp_path / "c.pt").graph
    assert all(torch.equal(tensor, graph[name]) for name, tensor in network.state_dict().items())
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "w.pt")
    recorder = Recorder()
    with pytest.raises(InputError, match=r"w\.pt"):
        run(tmp_path / "d.pt", none, init=tmp_path / "w.pt", reporter=recorder)
    assert "decoding" not in recorder.long
    # a run that never began is in nobody's way
    run(tmp_path / "d.pt", none, reporter=recorder)
    assert recorder.long[0] == "decoding"


def test_what_a_killed_run_left_half_written_is_removed(run, tmp_path):
    folder = work_folder(tmp_path / "c.pt")
    folder.mkdir()
    leftovers = [tmp_path / ".c.pt.12345678", folder / ".state.pt.0a1b2c3d", folder / ".history.png.deadbeef"]
    others = [tmp_path / ".c.pt.mine", tmp_path / ".d.pt.12345678"]
    for path in leftovers + others:
        path.write_bytes(b"half")
    run(tmp_path / "c.pt", dataclasses.replace(SHORT, epochs_dense=0, epochs_ava=0, epochs_aap=0))
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in others)


def test_two_runs_do_not_share_a_folder(run, tmp_path):
    folder = work_folder(tmp_path / "c.pt")
    folder.mkdir()
    with run_lock(folder), pytest.raises(OperationError, match="another dance-train"):
        run(tmp_path / "c.pt")


@pytest.mark.parametrize("place", ["a folder", "below a file"])
def test_output_that_cannot_be_written_is_known_before_training(run, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    recorder = Recorder()
    with pytest.raises(InputError, match="-o"):
        run(tmp_path / "folder" if place == "a folder" else tmp_path / "file" / "c.pt", reporter=recorder)
    assert not recorder.phases


def test_kinds_that_are_not_pruned_are_all_kept(run, tmp_path):
    settings = dataclasses.replace(SHORT, kinds=("features",), epochs_dense=1, epochs_ava=0, epochs_aap=1)
    outcome = run(tmp_path / "c.pt", settings)
    assert all(frames == channels == 1.0 for frames, channels, _ in outcome.last.at(0.5).kept)
