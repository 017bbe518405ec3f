"""dance-bench model: forced masks do what they say, peers compute the same, the command measures and refuses."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from tiny_video import write_video

from dance_deploy.bench.agreement import agreement_on
from dance_deploy.bench.forced import force_masks, forced_masks, keep_rates_from_text
from dance_deploy.bench.torch_graph import TorchGraph
from dance_deploy.bench.peers import PEERS, Case
from dance_deploy.bench.ungated import ungated_graph
from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.export.untrained import untrained_checkpoint
from dance_deploy.ops import names
from dance_deploy.runtime.kernels import has_bf16, library_path

needs_library = pytest.mark.skipif(library_path() is None, reason="the op library is not built: run make -C kernels")


def test_keep_rates_are_read():
    assert keep_rates_from_text("frames=0.5,features=0.25") == {"frames": 0.5, "channels": 1.0, "features": 0.25}


@pytest.mark.parametrize("text", ["frames", "frames=", "frames=0", "frames=1.1", "depth=0.5", "frames=nan", "frames=x"])
def test_senseless_keep_rates_are_refused(text):
    with pytest.raises(InputError, match="--force-keep"):
        keep_rates_from_text(text)


@pytest.mark.parametrize("pattern", ["blob", "random"])
def test_forced_masks_keep_the_asked_share(tiny_bundle, pattern):
    gates = open_bundle(tiny_bundle).manifest.gates
    rates = {"frames": 0.5, "channels": 0.3, "features": 0.4}
    for gate, masks in zip(gates, forced_masks(gates, rates, pattern, 0)):
        c, t, h, w = gate.input_size
        assert [m.shape for m in masks] == [(t,), (c,), (h, w)]
        for mask, rate in zip(masks, (0.5, 0.3, 0.4)):
            assert mask.sum() == max(1, round(mask.size * rate))
    again = forced_masks(gates, rates, pattern, 0)
    other = forced_masks(gates, rates, pattern, 1)
    first = forced_masks(gates, rates, pattern, 0)
    assert all(np.array_equal(a, b) for x, y in zip(first, again) for a, b in zip(x, y))
    assert any(not np.array_equal(a, b) for x, y in zip(first, other) for a, b in zip(x, y))


def test_a_blob_is_in_one_piece(tiny_bundle):
    gates = open_bundle(tiny_bundle).manifest.gates
    mask = forced_masks(gates, {"frames": 1.0, "channels": 1.0, "features": 0.3}, "blob", 3)[0].feature_keep
    todo, seen = [tuple(np.argwhere(mask)[0])], set()
    while todo:
        y, x = todo.pop()
        if (y, x) not in seen and 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
            seen.add((y, x))
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    assert len(seen) == mask.sum()


def test_convolutions_read_the_forced_masks_and_the_gates_stay(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    gates = bundle.manifest.gates
    masks = forced_masks(gates, {"frames": 0.5, "channels": 0.5, "features": 0.5}, "random", 0)
    model = onnx.load_model_from_string(force_masks(bundle.read("body.onnx"), masks))
    values = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type.startswith("GatedConv3d")]
    assert convs and sum(n.op_type == "ActivationGate" for n in model.graph.node) == len(gates)
    for node in convs:
        gate = int(node.input[3].split("gate")[1].split(".")[0])
        for name, mask in zip(node.input[3:6], masks[gate]):
            np.testing.assert_array_equal(values[name][0], mask)


@needs_library
def test_a_network_without_gates_is_one_graph_and_computes_the_same(tmp_path):
    bundle_from_checkpoint(untrained_checkpoint("small"), tmp_path / "b")
    bundle = open_bundle(tmp_path / "b")
    graph = onnx.load_model_from_string(ungated_graph(bundle)).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["clip", "logits"]
    ours = {node.op_type for node in graph.node if node.domain == names.DOMAIN}
    assert ours == {names.TO_CHANNELS_LAST, names.GATED_CONV3D_CL, names.GATED_CONV3D_ADD_CL}
    case = Case(1, 1.0, None, "blob", 0, "fp32")
    found, expected = (PEERS[peer](bundle, case)() for peer in ("ungated", "onnxruntime"))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_network_that_is_not_channels_last_has_no_graph_without_gates(tiny_bundle):
    with pytest.raises(InputError, match="controller_kernels.onnx"):
        ungated_graph(open_bundle(tiny_bundle))


def test_torch_peer_equals_onnxruntime(tiny_bundle):
    import onnxruntime

    bundle = open_bundle(tiny_bundle)
    data = bundle.read("dense.onnx")
    clip = np.random.default_rng(0).standard_normal(bundle.manifest.clip.shape).astype(np.float32)
    expected = onnxruntime.InferenceSession(data).run(None, {"clip": clip})[0]
    got = TorchGraph(data)(torch.from_numpy(clip)).numpy()
    assert np.linalg.norm(got - expected) <= 1e-4 * np.linalg.norm(expected)


def bench(*arguments):
    return subprocess.run([sys.executable, "-m", "dance_deploy.cli.bench", "model", *map(str, arguments)],
                          capture_output=True, text=True)


@needs_library
def test_command_measures_and_writes_json(tiny_bundle, tmp_path):
    output = tmp_path / "bench.json"
    done = bench(tiny_bundle, "--against", "onnxruntime,torch", "--rounds", 3, "--runs", 1, "--json", output,
                 "--force-keep", "features=0.5")
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert [p["peer"] for p in found["peers"]] == ["gated", "kept", "onnxruntime", "torch"]
    assert all(len(p["round_ms"]) == 3 and min(p["round_ms"]) > 0 for p in found["peers"])
    assert all(p["peak_mb"] >= p["memory_mb"] * 0.9 > 9 for p in found["peers"])  # a bare interpreter takes more
    assert found["peers"][0]["time_over_gated"]["median"] == 1.0 and 0 < found["macs_share"] < 1
    assert "ONNX Runtime, dense" in done.stdout and "forced to keep" in done.stdout


needs_bf16 = pytest.mark.skipif(library_path() is None or not has_bf16(library_path()),
                                reason="this processor has no AVX512-BF16, or the op library is not built")


@needs_bf16
def test_bfloat16_is_measured_with_its_accuracy(tiny_bundle, tmp_path):
    output, clip = tmp_path / "bench.json", write_video(tmp_path / "moving.mp4", 20)
    done = bench(tiny_bundle, "--against", "onnxruntime,torch", "--rounds", 3, "--runs", 1, "--json", output,
                 "--precision", "bf16", "--videos", clip)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    peers = {p["peer"]: p for p in found["peers"]}
    assert list(peers) == ["gated", "kept", "float32", "onnxruntime", "torch"]
    assert {name for name, peer in peers.items() if "accuracy" in peer} == {"gated", "kept", "torch"}
    assert all(0 < peers[name]["accuracy"]["difference"] < 0.02 for name in ("gated", "kept", "torch"))
    videos = found["videos"]
    assert videos["windows"] == 3 and videos["same_label"] <= 3 and 0 < videos["largest_score_change"] < 0.1
    assert "off float32" in done.stdout and "of 3 windows" in done.stdout


@needs_bf16
def test_the_same_precision_agrees_with_itself(tiny_bundle, tmp_path):
    clip = write_video(tmp_path / "moving.mp4", 20)
    found = agreement_on(tiny_bundle, [clip], 0.5, "fp32", 1)
    assert (found.windows, found.same_label, found.largest_score_change, found.different_mask_entries) == (3, 3, 0, 0)
    assert found.mask_entries == 3 * sum(mask.size for mask in forced_masks(
        open_bundle(tiny_bundle).manifest.gates, dict.fromkeys(("frames", "channels", "features"), 1.0), "blob", 0)
        for mask in mask)


@pytest.mark.parametrize("arguments, said", [
    (["--precision", "fp8"], "fp8"), (["--videos", "x.mp4"], "--precision bf16"),
    (["--against", "tflite"], "tflite"), (["--budget", "0"], "budget"), (["--pattern", "stripes"], "stripes"),
    (["--force-keep", "frames=2"], "--force-keep"), (["--force-keep", "frames=0.5", "--budget", "0.4"], "give one"),
    (["--json", "missing/x.json"], "'missing/x.json' cannot be written")])
def test_bad_arguments_are_one_line(tiny_bundle, arguments, said):
    done = bench(tiny_bundle, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_a_damaged_bundle_is_one_line(own_bundle):
    (own_bundle / "dense.onnx").write_bytes(b"x")
    done = bench(own_bundle)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "dense.onnx" in done.stderr
