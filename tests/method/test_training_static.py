"""Static pruning as a phase of a run, pruned and half-precision weights of a user's own, and the comparisons."""
import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from training_helpers import Recorder  # noqa: E402

from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.method.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint  # noqa: E402
from dance_deploy.method.training.metrics import read_metrics  # noqa: E402
from dance_deploy.method.training.settings import TrainSettings  # noqa: E402
from dance_deploy.method.training.state import work_folder  # noqa: E402

SHORT = TrainSettings(epochs_dense=1, epochs_static=2, epochs_ava=0, epochs_aap=1, batch=6, windows=1, flip=False,
                      eval_windows=1, eval_every=1, budgets=(1.0, 0.5), static_share=0.5)
NOTHING = dataclasses.replace(SHORT, epochs_dense=0, epochs_aap=0, static_share=None)


def graph(path):
    return load_checkpoint(path).graph


class Stop(Recorder):
    """Interrupts after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def step(self, part):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_the_checkpoint_holds_the_narrow_network_and_the_report_both_counts(finished):
    checkpoint = load_checkpoint(finished.checkpoint)
    model = model_from_checkpoint(checkpoint)
    assert model.plan.dense_macs == finished.pruned_macs <= 0.5 * finished.original_macs
    assert checkpoint.channels and all(
        model.graph.get_submodule(name).out_channels == width for name, width in checkpoint.channels.items())
    test = finished.last
    assert test.static.clips == test.dense.clips and finished.as_dict()["scores"]["test"]["static"]["share"] == 1.0
    # shares of budgets are those of the network that runs, so budget 1 is its own dense cost
    assert 1.0 < test.at(1.0).share < 1.1
    events = read_metrics(finished.folder / "metrics.jsonl")
    assert [e["phase"] for e in events if e["event"] == "epoch"] == ["dense", "static", "static", "aap"]


@pytest.mark.parametrize("steps", [4, 8, 11])
def test_interrupted_while_pruned_and_resumed(finished, run, tmp_path, steps):
    """In the first epoch after pruning, in a later one, and among the gates."""
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        run(out, reporter=Stop(steps))
    run(out, going_on="resume")
    assert all(torch.equal(t, graph(out)[name]) for name, t in graph(finished.checkpoint).items())
    assert load_checkpoint(out).channels == load_checkpoint(finished.checkpoint).channels


def test_a_pruned_checkpoint_is_exported_and_verified(finished, tmp_path):
    pytest.importorskip("onnxruntime")
    from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
    bundle = bundle_from_checkpoint(load_checkpoint(finished.checkpoint), tmp_path / "bundle")
    widths = load_checkpoint(finished.checkpoint).channels
    convs = {conv.name: conv for gate in bundle.manifest.gates for conv in gate.convs}
    assert {name: convs[name].out_channels for name in widths} == widths


@pytest.mark.parametrize("half", [False, True])
def test_pruned_weights_of_another_tool_are_gated_as_they_are(finished, run, tmp_path, half):
    weights = {name: t.half() if half and t.is_floating_point() else t
               for name, t in graph(finished.checkpoint).items() if not name.startswith("dance.")}
    torch.save({"state_dict": weights}, tmp_path / "mine.pth")
    recorder = Recorder()
    outcome = run(tmp_path / "c.pt", dataclasses.replace(NOTHING, epochs_aap=1), recorder, init=tmp_path / "mine.pth")
    assert any("fewer channels in 4 layers" in line for line in recorder.lines)
    assert outcome.original_macs == outcome.pruned_macs == finished.pruned_macs
    assert load_checkpoint(tmp_path / "c.pt").channels == load_checkpoint(finished.checkpoint).channels


def test_a_checkpoint_as_a_start_and_the_labels_that_differ(finished, run, tmp_path):
    run(tmp_path / "same.pt", NOTHING, init=finished.checkpoint)
    assert torch.equal(graph(tmp_path / "same.pt")["fc.weight"], graph(finished.checkpoint)["fc.weight"])
    other = load_checkpoint(finished.checkpoint)
    other.labels[2] = "somersault"
    save_checkpoint(tmp_path / "other.pt", other)
    recorder = Recorder()
    run(tmp_path / "c.pt", NOTHING, recorder, init=tmp_path / "other.pt")
    line = next(line for line in recorder.lines if "not loaded" in line)
    assert "only there: 'somersault'" in line and "only in the data: 'down'" in line
    mine = graph(tmp_path / "c.pt")
    assert not torch.equal(mine["fc.weight"], other.graph["fc.weight"])
    assert torch.equal(mine["stem.0.weight"], other.graph["stem.0.weight"])


def test_the_dense_network_is_kept_for_other_settings(finished, run, tmp_path):
    dense = work_folder(finished.checkpoint) / "dense.pt"
    run(tmp_path / "c.pt", dataclasses.replace(SHORT, epochs_dense=0), init=dense)
    assert all(torch.equal(t, graph(tmp_path / "c.pt")[name]) for name, t in graph(finished.checkpoint).items())


def test_the_dense_network_of_other_labels_keeps_its_classifier_to_itself(finished, run, tmp_path):
    """As many classes in another order: shapes alone do not tell."""
    dense = torch.load(work_folder(finished.checkpoint) / "dense.pt", weights_only=True)
    dense["labels"].reverse()
    torch.save(dense, tmp_path / "dense.pt")
    recorder = Recorder()
    run(tmp_path / "c.pt", NOTHING, recorder, init=tmp_path / "dense.pt")
    assert any("not loaded (other labels; the same ones in another order)" in line for line in recorder.lines)
    assert any("the classifier starts untrained, and with --epochs-dense 0" in line for line in recorder.lines)
    assert not torch.equal(graph(tmp_path / "c.pt")["fc.weight"], dense["state_dict"]["fc.weight"])


def test_the_state_of_a_run_is_a_start_too(finished, run, tmp_path):
    """What is kept of a run that diverged."""
    recorder = Recorder()
    run(tmp_path / "c.pt", NOTHING, recorder, init=work_folder(finished.checkpoint) / "state.pt")
    assert torch.equal(graph(tmp_path / "c.pt")["fc.weight"], graph(finished.checkpoint)["fc.weight"])
    assert not any("untrained" in line for line in recorder.lines)


def test_a_start_that_holds_more_than_weights_is_called_so(run, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(InputError, match="whole.pt': not a weight file that can be read safely.*more than tensors"):
        run(tmp_path / "c.pt", NOTHING, init=tmp_path / "whole.pt")


def test_a_share_that_cannot_be_reached_is_said_before_training(run, tmp_path):
    with pytest.raises(InputError, match="--static-share 0.01 is not possible here"):
        run(tmp_path / "c.pt", dataclasses.replace(SHORT, static_share=0.01))
    run(tmp_path / "c.pt", NOTHING)  # said before anything was trained: no unfinished run is in the way


def test_constant_thresholds_do_not_see_the_clip(run, tmp_path):
    run(tmp_path / "c.pt", dataclasses.replace(SHORT, static_share=None, thresholds_from="budget"))
    controller = model_from_checkpoint(load_checkpoint(tmp_path / "c.pt")).controller
    tau = controller(torch.rand(3, 16, 6, 10, 12), torch.full((3,), 0.4))
    torch.testing.assert_close(tau, tau[:1].expand_as(tau))
    assert tau.max() > 0


def test_random_masks_keep_as_many_and_are_no_checkpoint(run, tmp_path):
    recorder = Recorder()
    outcome = run(tmp_path / "c.pt", dataclasses.replace(SHORT, static_share=None, random_masks=True), recorder)
    assert not (tmp_path / "c.pt").exists() and any("no checkpoint is written" in line for line in recorder.lines)
    assert 0.1 < outcome.last.at(0.5).share < 1.0
