"""load_weights: every usual file form loads whole; everything else is one line and an untouched model."""
import os
import pickle
import random

import pytest
import torch

from dance_deploy import models
from dance_deploy.errors import InputError, MissingPackageError
from dance_deploy.models import weights


@pytest.fixture
def model():
    return models.build("small", 4, seed=0)


@pytest.fixture
def donor():
    """State dict of another start, batch norm statistics included."""
    state = models.build("small", 4, seed=1).state_dict()
    generator = torch.Generator().manual_seed(2)
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return state


def same(model, state, but=()):
    own = model.state_dict()
    return all(torch.equal(own[name], state[name]) for name in own if name not in but)


def saved(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model": s, "args": "none"},
    lambda s: {"model_state": s},
    lambda s: {"model": {"state_dict": s}},
    lambda s: {"module." + k: v for k, v in s.items()},
    lambda s: {"state_dict": {"module._orig_mod." + k: v for k, v in s.items()}},
    lambda s: {"format": "dance-checkpoint", "labels": ["a"], "graph": {**s, "dance.controller.w": torch.ones(3)},
               "samples": torch.zeros(2, 1, dtype=torch.uint8)},
    lambda s: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
], ids=["bare", "state_dict", "model", "model_state", "nested", "module.", "compiled", "ours", "parameters"])
def test_usual_wrappings_load_completely(tmp_path, model, donor, wrap):
    report = models.load_weights(model, saved(tmp_path, wrap(donor)))
    assert same(model, donor)
    assert set(report.loaded) == set(donor) and report.skipped == () and report.reason == ""


def test_old_file_format_loads(tmp_path, model, donor):
    path = tmp_path / "old.pth"
    torch.save(donor, path, _use_new_zipfile_serialization=False)
    models.load_weights(model, path)
    assert same(model, donor)


def test_half_precision_is_widened_exactly(tmp_path, model, donor):
    half = {k: v.half() if v.is_floating_point() else v for k, v in donor.items()}
    models.load_weights(model, saved(tmp_path, half))
    assert same(model, {k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_counters_of_batch_norm_may_be_missing(tmp_path, model, donor):
    bare = {k: v for k, v in donor.items() if not k.endswith("num_batches_tracked")}
    models.load_weights(model, saved(tmp_path, bare))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in bare.items())


@pytest.mark.parametrize("arch, classifier", [
    ("small", "fc"), ("r3d18", "fc"), ("x3d_s", "blocks.5.proj")])
def test_classifier_of_another_class_count_is_skipped_and_reported(tmp_path, arch, classifier):
    model, donor = models.build(arch, 3, seed=0), models.build(arch, 5, seed=1).state_dict()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    report = models.load_weights(model, saved(tmp_path, donor))
    names = (f"{classifier}.weight", f"{classifier}.bias")
    assert report.skipped == names
    assert same(model, donor, but=names)
    assert all(torch.equal(model.state_dict()[name], start[name]) for name in names)
    assert "5 classes" in str(report) and "model 3" in str(report) and names[0] in str(report)


def test_file_without_classifier_is_loaded_and_reported(tmp_path, model, donor):
    body = {k: v for k, v in donor.items() if not k.startswith("fc.")}
    report = models.load_weights(model, saved(tmp_path, body))
    assert report.skipped == ("fc.weight", "fc.bias") and "no classifier" in report.reason
    assert same(model, donor, but=report.skipped)


def refused(model, path):
    """The line of the refusal, after checking that it is one line, names the file and changed nothing."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        models.load_weights(model, path)
    line = str(caught.value)
    assert "\n" not in line and os.path.basename(str(path)) in line and len(line) < 700
    assert same(model, before)
    return line


def test_other_architecture_is_refused_with_names_and_counts(tmp_path, model):
    other = models.build("x3d_s", 4, seed=0).state_dict()
    line = refused(model, saved(tmp_path, other))
    body = [k for k in model.state_dict() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")]
    assert f"{len(body)} missing" in line and "stem.0.weight" in line
    assert f"{len(other)} unknown" in line and "blocks.0.conv.conv_t.weight" in line
    assert "layer4" not in line, "only the first few names are shown"


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("layer1.0.conv1.0.weight"), ["1 missing", "layer1.0.conv1.0.weight"]),
    (lambda s: s.pop("layer3.0.conv1.1.running_var"), ["1 missing", "running_var"]),
    (lambda s: s.update(extra=torch.ones(1)), ["1 unknown", "extra"]),
    (lambda s: s.pop("fc.bias"), ["1 missing", "fc.bias"]),
    (lambda s: s.update({"fc.weight": torch.ones(4, 64)}), ["fc.weight", "[4, 64]", "[4, 128]"]),
    (lambda s: s.update({"fc.weight": torch.ones(9, 64), "fc.bias": torch.ones(9)}), ["[9, 64]", "[4, 128]"]),
    (lambda s: s.update({"stem.0.weight": torch.ones(16, 1, 3, 3, 3)}), ["[16, 1, 3, 3, 3]", "[16, 3, 3, 3, 3]"]),
    (lambda s: s.update({"stem.0.weight": s["stem.0.weight"].int()}), ["stem.0.weight", "int32"]),
    (lambda s: s.update({"stem.0.weight": s["stem.0.weight"].to_sparse()}), ["stem.0.weight"]),
    (lambda s: s.update({"stem.0.weight": s["stem.0.weight"].to("meta")}), ["stem.0.weight"]),
    (lambda s: s["stem.0.weight"].view(-1)[5].fill_(float("nan")), ["stem.0.weight", "NaN"]),
    (lambda s: s["fc.bias"][1].fill_(float("inf")), ["fc.bias", "infinity"]),
], ids=["missing", "statistics", "unknown", "half-classifier", "classifier-width", "width-and-count", "gray", "integer",
        "sparse", "meta", "nan", "inf"])
def test_what_does_not_fit_is_refused_whole(tmp_path, model, donor, change, words):
    change(donor)
    line = refused(model, saved(tmp_path, donor))
    assert all(word in line for word in words), line


@pytest.mark.parametrize("content, words", [
    ({}, ["none"]), ([torch.ones(2)], ["list"]), (torch.ones(3), ["Tensor"]), ({"epoch": 3, "loss": 0.5}, ["'epoch'"]),
    ({"model": "r3d18"}, ["'model'"]), ({1: torch.ones(1)}, ["1"])])
def test_torch_files_of_other_things_are_refused(tmp_path, model, content, words):
    line = refused(model, saved(tmp_path, content))
    assert all(word in line for word in words), line


class Planted:
    """What a hostile pickle does on loading: it leaves a folder behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [
    lambda content, path: path.write_bytes(pickle.dumps(content)), torch.save], ids=["pickle", "torch.save"])
def test_code_in_a_file_is_never_run(tmp_path, model, write):
    trace, path = tmp_path / "was_run", tmp_path / "evil.pth"
    write({"fc.weight": Planted(str(trace))}, path)
    refused(model, path)
    assert not trace.exists()


def test_files_that_are_no_weights_are_refused(tmp_path, model):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("hello\nworld\n" * 50)
    (tmp_path / "zip.pth").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "folder.pth").mkdir()
    assert "empty" in refused(model, tmp_path / "empty.pth")
    assert "No such file" in refused(model, tmp_path / "absent.pth")
    for name in ("text.pth", "zip.pth", "folder.pth"):
        assert "weights_only" not in refused(model, tmp_path / name)  # torch says how to load unsafe ones


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, model, donor, zipped):
    whole = tmp_path / "whole.pth"
    torch.save({k: v for k, v in donor.items()}, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    draw = random.Random(4)
    for length in [1, 2, 7, 64, 4096, len(data) // 2, len(data) - 1] + [draw.randrange(len(data)) for _ in range(8)]:
        (tmp_path / "cut.pth").write_bytes(data[:length])
        refused(model, tmp_path / "cut.pth")


def test_safetensors(tmp_path, model, donor):
    safetensors = pytest.importorskip("safetensors.torch", reason="the optional package safetensors is not installed")
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(donor, path)
    models.load_weights(model, path)
    assert same(model, donor)
    data = path.read_bytes()
    for length in (1, 8, 500, len(data) - 1):
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        refused(model, tmp_path / "cut.safetensors")


def test_safetensors_names_the_missing_package(tmp_path, model, monkeypatch):
    (tmp_path / "weights.safetensors").write_bytes(b"12345678")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingPackageError, match="safetensors"):
        models.load_weights(model, tmp_path / "weights.safetensors")


def test_prefix_of_the_gates_is_the_one_that_surgery_uses():
    surgery = pytest.importorskip("dance_deploy.method.surgery")
    assert weights.GATE_PREFIX == surgery.PREFIX + "."


def test_classifier_is_the_last_linear_layer_if_any():
    assert weights.classifier_names(torch.nn.Conv3d(1, 1, 1)) == ()
    assert weights.classifier_names(models.build("c3d", 3)) == ("fc8.weight", "fc8.bias")
    assert weights.classifier_names(torch.nn.Linear(2, 3)) == ("weight", "bias")
    assert weights.classifier_names(torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False))) == ("0.weight",)
