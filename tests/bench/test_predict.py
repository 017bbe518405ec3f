"""Predictions: what is counted is cost.py's, rooflines agree with figures worked out apart, nothing is made up."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from predict_nets import manifest_of, nano_rows  # noqa: E402

from dance_deploy import profiles  # noqa: E402
from dance_deploy.bench.forced import forced_masks  # noqa: E402
from dance_deploy.bench.predict import winograd  # noqa: E402
from dance_deploy.bench.predict.prediction import (  # noqa: E402
    Keep, keep_for_budget, keep_of_masks, keep_of_rates, predict, share_at,
)
from dance_deploy.bench.predict.tiles import executed_macs  # noqa: E402
from dance_deploy.cli import bench, entry  # noqa: E402
from dance_deploy.cost import ConvCost  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.geometry import Conv3dGeometry  # noqa: E402
from dance_deploy.manifest import Gate  # noqa: E402
from dance_deploy.ops.names import KINDS  # noqa: E402
from dance_deploy.runtime.backends import LayerMasks  # noqa: E402
from dance_deploy.runtime.costs import CostCounter  # noqa: E402

NANO = profiles.load("jetson-nano")
ALL = dict.fromkeys(KINDS, 1.0)
CLIP_112 = (1, 3, 16, 112, 112)


@pytest.fixture(scope="module")
def nets():
    return {"r3d18": manifest_of("r3d18"), "c3d": manifest_of("c3d"),
            "r2plus1d18": manifest_of("r2plus1d18", CLIP_112), "x3d_s": manifest_of("x3d_s", CLIP_112)}


def keep(**rates):
    return keep_of_rates({**ALL, **rates})


# Worked out apart for the Nano in FP32 (16x112x112, batch 1, ms, half of the channels), under the same rules: padding
# costs nothing, each operand moves once. What the manifest does not list is not in ours: C3D's pools (4.0 ms), X3D's
# pools, squeeze-and-excitation and residual operands; R(2+1)D's table leaves the second half of the stem ungated.
@pytest.mark.parametrize("arch, dense, half, within", [
    ("r3d18", 304.5, 157.9, 0.001), ("c3d", 291.3, 155.8, 0.03), ("r2plus1d18", 325.6, 166.0, 0.012),
    ("x3d_s", 14.1, 9.3, 0.1)])
def test_rooflines_agree_with_a_derivation_apart(nets, arch, dense, half, within):
    times = predict(nets[arch], NANO, keep(channels=0.5)).times_ms
    assert times["roofline_dense"] == pytest.approx(dense, rel=within)
    assert times["roofline_pruned"] == pytest.approx(half, rel=within)


def test_c3d_agrees_once_its_pools_are_added(nets):
    channels_in_out = ((64, (16, 112, 112), (16, 56, 56)), (128, (16, 56, 56), (8, 28, 28)),
                       (256, (8, 28, 28), (4, 14, 14)), (512, (4, 14, 14), (2, 7, 7)))
    pools_ms = sum(4e3 * c * (math.prod(a) + math.prod(b)) / 25.6e9 for c, a, b in channels_in_out)
    times = predict(nets["c3d"], NANO, keep(channels=0.5)).times_ms
    assert times["roofline_dense"] + pools_ms == pytest.approx(291.3, rel=0.002)
    assert times["roofline_pruned"] + pools_ms == pytest.approx(155.8, rel=0.002)


@pytest.mark.parametrize("rates, name, wanted", [
    ({}, "conv3d", 460), ({}, "best_dense", 243), ({}, "ours_dense", 229), ({}, "gated_direct", 506),
    ({"frames": 0.5}, "gated_direct", 275), ({"channels": 0.5}, "gated_direct", 279),
    ({"features": 0.5}, "gated_direct", 307), ({"frames": 0.5}, "gated", 141), ({"channels": 0.5}, "gated", 142)])
def test_estimates_agree_with_a_derivation_apart(nets, rates, name, wanted):
    """R3D-18, FP32; 6 % for pools and additions, which are not in ours, and other mask draws."""
    assert predict(nets["r3d18"], NANO, keep(**rates)).times_ms[name] == pytest.approx(wanted, rel=0.06)


@pytest.mark.parametrize("pattern, rates, wanted", [
    ("blob", {}, (1.02, 1.01, 1.02, 1.09, 1.19, 1.44, 1.60)),
    ("blob", {"frames": 0.5}, (1.02, 1.02, 1.04, 1.16, 1.26, 1.44, 1.60)),
    ("random", {"features": 0.5}, (1.07, 1.30, 1.36, 1.76, 1.92, 2.8, 3.1)),
    ("random", {"features": 0.25}, (1.11, 1.43, 1.57, 2.54, 2.94, 5.4, 5.9))])
def test_what_tiles_waste_agrees_with_a_derivation_apart(pattern, rates, wanted):
    """R3D-18's 3x3x3 layers from 56x56 to 7x7, executed over needed MACs, mean of six mask draws."""
    sizes = ((64, 64, (16, 56, 56), 1), (64, 128, (16, 56, 56), 2), (128, 128, (8, 28, 28), 1),
             (128, 256, (8, 28, 28), 2), (256, 256, (4, 14, 14), 1), (256, 512, (4, 14, 14), 2),
             (512, 512, (2, 7, 7), 1))
    for (c, m, size, stride), waste in zip(sizes, wanted, strict=True):
        conv = Conv3dGeometry("conv", c, m, size, (3, 3, 3), (stride,) * 3, (1,) * 6)
        gate = Gate("gate", (c, *size), (conv,))
        draws = [forced_masks((gate,), {**ALL, **rates}, pattern, seed)[0] for seed in range(6)]
        ratios = [executed_macs(conv, masks, rows=32, channel_group=4) / ConvCost(conv).gated(*masks).macs
                  for masks in draws]
        assert np.mean(ratios) == pytest.approx(waste, rel=0.04)


GEOMETRIES = st.builds(
    lambda c, m, size, kernel, stride, pad, dilation: Conv3dGeometry(
        "conv", c, m, tuple(max(s, d * (k - 1) + 1) for s, k, d in zip(size, kernel, dilation)), kernel, stride,
        pad + pad, dilation),
    st.integers(1, 9), st.integers(1, 5), st.tuples(*[st.integers(1, 7)] * 3), st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3), st.tuples(*[st.integers(0, 2)] * 3), st.tuples(*[st.integers(1, 2)] * 3))


@given(GEOMETRIES, st.integers(0, 99), st.sampled_from([1, 4, 32]), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_tiles_execute_what_is_needed_and_more_rows_execute_more(conv, seed, rows, rate):
    rng = np.random.default_rng(seed)
    masks = LayerMasks(*[rng.random(shape) < rate for shape in (
        conv.in_size[0], conv.in_channels, conv.in_size[1:])])
    needed = ConvCost(conv).gated(*masks).macs
    assert executed_macs(conv, masks, rows=1, channel_group=1) == needed  # nothing skips together: nothing is wasted
    assert executed_macs(conv, masks, rows=rows, channel_group=4) >= needed


def test_counted_parts_are_the_runtimes(nets):
    manifest = nets["r3d18"]
    half = keep(frames=0.5, channels=0.75, features=0.5)
    counter = CostCounter(manifest)
    exact = counter.gated(half.masks(manifest.gates))
    prediction = predict(manifest, NANO, half)
    assert sum(layer.macs for layer in prediction.layers) == exact.macs
    assert sum(layer.bytes for layer in prediction.layers) == exact.bytes
    assert sum(layer.macs_dense for layer in prediction.layers[:-1]) == counter.dense.macs
    assert prediction.macs_share == exact.macs / counter.dense.macs
    sixteen = predict(manifest, NANO, half, precision="fp16")
    assert [2 * layer.bytes for layer in sixteen.layers] == [layer.bytes for layer in prediction.layers]
    assert sixteen.times_ms["roofline_dense"] == pytest.approx(prediction.times_ms["roofline_dense"] / 2)


def test_a_roofline_is_never_above_an_estimate_without_winograd(nets):
    for manifest in nets.values():
        for layer in predict(manifest, NANO, keep(features=0.5)).layers:
            assert layer.roofline_ms < layer.direct_ms and layer.roofline_dense_ms < layer.conv3d_ms
            assert layer.best_dense_ms <= layer.conv3d_ms


def test_budget_is_met_from_below_and_nearly_used(nets):
    manifest = nets["r3d18"]
    for kinds in (("frames",), ("channels",), ("features",), KINDS):
        chosen = keep_for_budget(manifest, 0.5, Keep(ALL, kinds))
        assert 0.44 < share_at(manifest, chosen) <= 0.5
        assert all(chosen.rates[kind] == 1.0 for kind in KINDS if kind not in kinds)
    assert keep_for_budget(manifest, 1.0, Keep(ALL, ("frames",))).rates == ALL


def test_break_even_is_where_gating_stops_paying(nets):
    manifest = nets["x3d_s"]
    prediction = predict(manifest, NANO, keep(channels=0.5))
    never = [gate for gate in prediction.gates if gate.break_even is None]
    assert never and len(never) < len(prediction.gates)
    gate = next(g for g in prediction.gates if g.break_even not in (None, 1.0))

    def gain(rate):
        at = predict(manifest, NANO, keep(channels=rate))
        own = [layer for layer in at.layers if layer.name in gate.layers]
        paid = next(g.ms for g in at.gates if g.name == gate.name)
        return sum(layer.dense_ms - layer.ours_ms for layer in own) - paid

    assert gain(gate.break_even) >= 0 > gain(min(1.0, gate.break_even + 0.06))


def test_gating_where_it_pays_is_no_slower_than_either_way(nets):
    for manifest in nets.values():
        times = predict(manifest, NANO, keep(channels=0.5)).times_ms
        controller = predict(manifest, NANO, keep()).layers[-1].ours_ms
        assert times["gated_where_it_pays"] <= min(times["gated"], times["ours_dense"] + controller) + 1e-9


def test_masks_of_a_clip_are_taken_as_they_are(nets):
    manifest = nets["r3d18"]
    masks = forced_masks(manifest.gates, {**ALL, "features": 0.3}, "random", 7)
    recorded = keep_of_masks(masks)
    assert recorded.kinds == ("features",)
    assert share_at(manifest, recorded) == CostCounter(manifest).gated(masks).macs / CostCounter(manifest).dense.macs


def test_winograd_skips_dead_tiles_frames_and_channels():
    conv = ConvCost(Conv3dGeometry("conv", 8, 8, (4, 14, 14), (3, 3, 3), (1, 1, 1), (1,) * 6))
    whole = LayerMasks(np.ones(4, bool), np.ones(8, bool), np.ones((14, 14), bool))
    frame_taps, tiles, products = 10, 16, 36  # F(4x4, 3x3) on 14x14: four tiles an axis
    assert winograd.cost(conv, whole, "fp32", 4).macs == products * tiles * frame_taps * 8 * 8
    corner = np.zeros((14, 14), bool)
    corner[0, 0] = True  # in the patch of one tile of sixteen
    one = winograd.cost(conv, whole._replace(feature_keep=corner), "fp32", 4)
    assert one.macs * tiles == winograd.cost(conv, whole, "fp32", 4).macs
    half = whole._replace(frame_keep=np.array([True, False, True, False]), channel_keep=np.arange(8) < 4)
    assert winograd.cost(conv, half, "fp32", 4).macs == products * tiles * 5 * 4 * 8


def test_energy_is_time_times_the_profiles_power(nets):
    prediction = predict(nets["c3d"], NANO, keep())
    assert prediction.energy_j(1000.0) == (5.17, 10.0)
    assert predict(nets["c3d"], NANO, keep(), mode=1).energy_j(1000.0) == (5.0, 5.0)  # the budget is below that load
    assert predict(nets["c3d"], profiles.load("jetson-tx2"), keep()).energy_j(1000.0) == (1.69, None)


@pytest.mark.parametrize("profile, precision, why", [
    ("cpu", "fp32", "states no peak rates"), ("snapdragon-8gen1", "fp16", "has no fp16 rate"),
    ("jetson-agx-orin", "fp16", "FP16 outside tensor cores"), ("x86-cpu", "fp16", "has no fp16 rate")])
def test_what_a_profile_does_not_state_is_refused(nets, profile, precision, why):
    with pytest.raises(InputError, match=why):
        predict(nets["c3d"], profiles.load(profile), keep(), precision=precision)


def test_no_estimate_where_the_shares_were_not_derived(nets):
    prediction = predict(nets["c3d"], profiles.load("jetson-agx-orin"), keep(frames=0.5))
    assert prediction.assumptions is None and set(prediction.times_ms) == {
        "roofline_dense", "roofline_pruned", "roofline_gated"}


def test_the_page_for_the_nano_repeats_what_is_predicted(nets):
    page = (Path(__file__).resolve().parents[2] / "docs" / "jetson.md").read_text(encoding="utf-8").splitlines()
    missing = [row for row in nano_rows() if row not in page]
    assert not missing, "docs/jetson.md: replace the rows of the table by\n" + "\n".join(nano_rows())
    manifest = nets["r3d18"]
    for share, name, dense in ((0.72, "roofline_gated", "roofline_dense"), (0.68, "gated_direct", "ours_dense_direct")):
        keep = keep_for_budget(manifest, share, Keep(ALL, ("features",)))
        times = predict(manifest, NANO, keep).times_ms
        assert times[dense] / times[name] == pytest.approx(1.37, rel=0.01)  # the paper's figure, at the share it takes


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = entry.exit_code_of(bench.app, ["predict", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()
    return call


def test_command_prints_writes_and_draws(run, tiny_bundle, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, err = run(tiny_bundle, "--profile", "nano", "--keep", "features=0.0001", "--plot", tmp_path / "none.png")
    assert (code, err) == (0, []) and (tmp_path / "none.png").is_file()  # layers of which nothing is kept
    code, out, err = run(tiny_bundle, "--profile", "nano", "--keep", "channels=0.5", "--json", tmp_path / "p.json",
                         "--plot", tmp_path / "p.png")
    assert (code, err) == (0, [])
    assert out.startswith("PREDICTED, not measured: tiny on jetson-nano, MAXN, fp32") and "pays below" in out
    tree = json.loads((tmp_path / "p.json").read_text())
    assert tree["predicted"] is True and tree["measured"] is False and tree["layers"] and tree["assumptions"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_command_takes_the_golden_masks_and_a_device_without_an_estimate(run, tiny_bundle):
    code, out, err = run(tiny_bundle, "--profile", "agx-orin", "--golden", "--mode", "2")
    assert (code, err) == (0, []) and "golden clip" in out and "MODE_30W" in out and "no estimate" in out


@pytest.mark.parametrize("arguments, why", [
    (["--profile", "nano2"], "there are: "), (["--profile", "nano", "--mode", "5"], "knows 0 (MAXN), 1 (5W)"),
    (["--profile", "nano", "--precision", "int8"], "--precision: 'int8'"),
    (["--profile", "nano", "--by", "h"], "--by: 'h'"),
    (["--profile", "nano", "--by", ","], "--by names nothing"), (["--profile", "nano", "--budget", "0"], "budget is 0"),
    (["--profile", "nano", "--keep", "frames=2"], "--keep 'frames=2'"), (["--profile", "cpu"], "states no peak rates"),
    (["--profile", "nano", "--keep", "frames=1", "--golden"], "exclude each other"), ([], "--profile"),
    (["--profile", "nano", "--pattern", "x"], "--pattern: 'x'")])
def test_bad_input_is_one_line(run, tiny_bundle, arguments, why):
    code, out, err = run(tiny_bundle, *arguments)
    assert (code, len(err), out) == (2, 1, "") and why in err[0]


def test_a_place_that_cannot_be_written_is_one_line(run, tiny_bundle):
    for option in ("--json", "--plot"):
        code, out, err = run(tiny_bundle, "--profile", "nano", option, Path("/proc/none/p.json"))
        assert (code, len(err), out) == (2, 1, "") and f"{option} '/proc/none/p.json' cannot be written" in err[0]


@given(st.integers(14, 30), st.integers(14, 30), st.integers(0, 2), st.sampled_from([2, 4]), st.integers(0, 999),
       st.sampled_from([0.0, 0.02, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_live_tiles_are_those_whose_patch_holds_a_kept_feature(h, w, pad, outputs, seed, rate):
    conv = Conv3dGeometry("conv", 1, 1, (1, h, w), (1, 3, 3), (1, 1, 1), (0, pad, pad, 0, pad, pad))
    features = np.random.default_rng(seed).random((h, w)) < rate
    padded = np.pad(features, pad + outputs)  # room for the tiles that reach over the end
    live = sum(bool(padded[i + outputs:i + 2 * outputs + 2, j + outputs:j + 2 * outputs + 2].any())
               for i in range(0, conv.out_size[1], outputs) for j in range(0, conv.out_size[2], outputs))
    assert winograd.live_tiles(conv, features, outputs) == live


def test_an_older_python_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(bench.sys, "version_info", (3, 8, 10, "final", 0))
    assert entry.exit_code_of(bench.app, ["predict", "bundle", "--profile", "jetson-nano"]) == 2
    assert capsys.readouterr().err.startswith("error: dance-bench needs Python 3.10 or newer, this is 3.8")
