"""The checkpoint file: round trip, and one line for whatever else may lie there."""
import os
import pickle
import stat

import pytest

torch = pytest.importorskip("torch")

from dance_deploy.errors import InputError, OperationError  # noqa: E402
from dance_deploy.geometry import ClipSpec  # noqa: E402
from dance_deploy.method.checkpoint import (  # noqa: E402
    Checkpoint,
    _save_to,
    load_checkpoint,
    model_from_checkpoint,
    save_atomically,
    save_checkpoint,
)
from dance_deploy.method.surgery import gate_model  # noqa: E402
from dance_deploy.models import build  # noqa: E402

CLIP = ClipSpec(4, 2, (20, 24), (16, 20), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def checkpoint():
    model = gate_model(build("small", 3, seed=1), CLIP.shape, ("features",))
    model.controller.calibrate([0.0, 0.5, 1.0], [0.2, 0.4, 1.0])
    samples = torch.arange(2 * 4 * 16 * 20 * 3).remainder(256).to(torch.uint8).view(2, 4, 16, 20, 3)
    return Checkpoint("small", ["a", "b", "c"], CLIP, model.graph.state_dict(), samples, ("features",), 0.4,
                      [[1.0, 1.0], [0.5, 0.48]], True, {"test top1": 0.9})


@pytest.fixture
def written(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    return tmp_path / "c.pt"


def test_round_trip(written, checkpoint):
    back = load_checkpoint(written)
    for name in ("arch", "labels", "clip", "kinds", "default_budget", "reached", "trained", "results"):
        assert getattr(back, name) == getattr(checkpoint, name), name
    assert torch.equal(back.samples, checkpoint.samples)
    model = model_from_checkpoint(back)
    assert not model.training and model.controller.fed.tolist() == pytest.approx([0.2, 0.4, 1.0])
    assert all(torch.equal(tensor, checkpoint.graph[name]) for name, tensor in model.graph.state_dict().items())


def test_others_may_read_what_was_written(written):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(written.stat().st_mode) == 0o666 & ~mask


def _flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


@pytest.mark.parametrize("damage", [
    "empty", "half", "flipped head", "flipped weight", "text", "pickle", "other tensors", "missing"])
def test_damage_is_one_line(written, damage):
    data = written.read_bytes()
    if damage == "pickle":
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(written.parent / "ran"),)
        written.write_bytes(pickle.dumps(Evil(), protocol=2))
    elif damage == "other tensors":
        torch.save({"weight": torch.zeros(2)}, written)
    elif damage == "missing":
        written.unlink()
    else:
        written.write_bytes({"empty": b"", "half": data[:len(data) // 2], "flipped head": b"XX" + data[2:],
                             "flipped weight": _flipped(data, len(data) // 2),
                             "text": b"not a checkpoint\n"}[damage])
    with pytest.raises(InputError, match=r"c\.pt") as caught:
        load_checkpoint(written)
    assert "\n" not in str(caught.value) and not (written.parent / "ran").exists()


@pytest.mark.parametrize("change,said", [
    ({"version": 99}, "version 99"), ({"samples": torch.zeros(1)}, "sample clips"), ({"kinds": ["sound"]}, "sound"),
    ({"labels": []}, "labels"), ({"clip": {"frames": 4}}, "incomplete"), ({"graph": None}, None),
    ({"arch": ["small"]}, "architecture's name"), ({"graph": [1]}, "dict of weights"), ({"graph": {"w": 5}}, "'w'"),
    ({"graph": {"w": torch.tensor([1.0, float("nan")])}}, "'w'.*finite"), ({"default_budget": float("nan")}, "nan"),
    ({"default_budget": "0.5"}, "default budget"), ({"reached": [[0.5, float("nan")]]}, "measured budgets"),
    ({"clip": {**CLIP._asdict(), "mean": [0.4, 0.4]}}, "mean")])
def test_wrong_fields_are_one_line(written, change, said):
    value = torch.load(written, weights_only=True)
    torch.save({**value, **change} if said else {k: v for k, v in value.items() if k not in change}, written)
    with pytest.raises(InputError, match=said or "incomplete"):
        load_checkpoint(written)


def test_weights_of_another_architecture(checkpoint):
    other = Checkpoint(**{**vars(checkpoint), "labels": ["a", "b"]})
    with pytest.raises(InputError, match="does not fit architecture 'small'"):
        model_from_checkpoint(other)


def test_weights_of_another_type_are_not_cast(checkpoint):
    graph = {name: t.half() if name == "fc.weight" else t for name, t in checkpoint.graph.items()}
    with pytest.raises(InputError, match="'fc.weight' is torch.float16, expected torch.float32"):
        model_from_checkpoint(Checkpoint(**{**vars(checkpoint), "graph": graph}))


def test_failed_save_leaves_what_was_there(written):
    before = written.read_bytes()
    with pytest.raises(TypeError):
        save_atomically(written, {"x": (i for i in ())})  # a generator cannot be stored
    assert written.read_bytes() == before and [p.name for p in written.parent.iterdir()] == ["c.pt"]


def test_full_disk_is_one_line(written):
    resource = pytest.importorskip("resource")
    before = written.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))  # Python turns the signal into an OSError
    try:
        with pytest.raises(OperationError, match=r"c\.pt: cannot write"):
            save_atomically(written, {"x": torch.zeros(100000), "y": torch.zeros(100000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written.read_bytes() == before and [p.name for p in written.parent.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_what_stops_the_saving_is_what_is_raised(stopped):
    """torch's writer fails once more while it unwinds, and would hide it."""
    class Stream:
        writes = 0

        def write(self, data):
            self.writes += 1
            if self.writes == 4:
                raise stopped
            return len(data)

    with pytest.raises(stopped):
        _save_to(Stream(), {"x": torch.zeros(100000), "y": torch.zeros(100000)})


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationError, match="cannot write"):
        save_atomically(tmp_path / "file" / "c.pt", {})
