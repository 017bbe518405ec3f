"""dance-bench kernels: layers, masks and ratios are what they are called; the command measures and refuses."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dance_deploy.bench import command, kernel_peers
from dance_deploy.bench.keep_cases import DENSE, KeepCase, keep_cases, masks_of
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, way
from dance_deploy.bench.kernels import Settings, break_even, result_of
from dance_deploy.bench.kernels_text import plot_results, text_from_results
from dance_deploy.bench.layers import NAMED, Layer, chosen_layers, layers_of
from dance_deploy.cli import bench as bench_cli
from dance_deploy.cli.entry import exit_code_of
from dance_deploy.cost import ConvCost
from dance_deploy.errors import InputError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.method.surgery import gate_model
from dance_deploy.models import ARCHITECTURES, build
from dance_deploy.runtime.kernels import library_path

needs_library = pytest.mark.skipif(library_path() is None, reason="the op library is not built: run make -C kernels")
TINY = Conv3dGeometry("tiny", 3, 5, (4, 6, 7), (3, 3, 3), (1, 2, 1), (1, 1, 0, 1, 1, 2))
DEPTHWISE = Conv3dGeometry("depthwise", 6, 6, (2, 5, 4), (1, 3, 3), (1, 1, 1), (0, 1, 1) * 2, group=6)


def test_layers_of_an_architecture_are_all_its_convolutions():
    layers = layers_of("r3d18")
    macs = sum(layer.times * ConvCost(layer.geometry).dense().macs for layer in layers)
    spec = ARCHITECTURES["r3d18"].clip
    plan = gate_model(build("r3d18", 2, seed=0), spec.shape).plan
    assert sum(layer.times for layer in layers) == len(plan.geometries) == 20
    assert macs == plan.dense_macs - plan.linear.macs
    shapes = {layer.geometry._replace(name="") for layer in layers}
    assert {geometry._replace(name="") for geometry in NAMED.values()} <= shapes
    assert len(shapes) == len(layers)


def test_layers_are_chosen_by_name():
    assert [layer.label for layer in chosen_layers([], ["L3", "stem"])] == ["stem", "L3"]
    assert all(layer.label.startswith("layer2.") for layer in chosen_layers(["small"], ["layer2"]))
    for architectures, names, said in ((["vgg"], [], "vgg"), ([], ["L9"], "L9"), ([], ["L"], "'L'")):
        with pytest.raises(InputError, match=said):
            chosen_layers(architectures, names)


@pytest.mark.parametrize("geometry", (TINY, DEPTHWISE, Conv3dGeometry("point", 1, 1, (1, 1, 1), (1, 1, 1))))
def test_masks_keep_what_their_case_says(geometry):
    t, c, hw = geometry.in_size[0], geometry.in_channels, geometry.in_size[1] * geometry.in_size[2]
    for case in keep_cases(geometry):
        frame, channel, feature = masks_of(case, geometry, 3)
        rates = {"frames": (case.rate, 1, 1), "channels": (1, case.rate, 1), "blob": (1, 1, case.rate),
                 "random": (1, 1, case.rate), "products": (case.rate ** (1 / 3),) * 3, "dense": (1, 1, 1)}[case.kind]
        for mask, size, rate in zip((frame, channel, feature), (t, c, hw), rates):
            assert mask.sum() == max(1, round(size * rate))
        again = masks_of(case, geometry, 3)
        assert all(np.array_equal(a, b) for a, b in zip(again, (frame, channel, feature)))


def test_break_even_lies_where_gate_and_convolution_take_the_dense_time():
    ideal = [(0.75, 7.5), (0.5, 5.0), (0.25, 2.5)]
    assert break_even(ideal, 10.0, 2.0) == pytest.approx(0.8)
    assert break_even(ideal, 10.0, 0.0) == 1.0                       # the dense time itself, at no cost
    assert break_even([(0.5, 11.0), (0.25, 9.0)], 10.0, 0.0) == pytest.approx(0.375)    # only the second line dips
    assert break_even([(0.5, 9.5), (0.25, 9.0)], 10.0, 2.0) is None


def text_of(results):
    return text_from_results(results, Settings(threads=1, rounds=2, runs=1, seed=0), "a machine")


def test_ratios_are_formed_within_a_round():
    """A machine of half the speed in the second round changes no ratio."""
    case = KeepCase("frames", 0.5)
    share = ConvCost(TINY).gated(*masks_of(case, TINY, 0)).macs / ConvCost(TINY).dense().macs
    rounds = {way(AUTOMATIC, DENSE): [2.0, 4.0], way(DIRECT, DENSE): [6.0, 12.0], way(AUTOMATIC, case): [3.0, 6.0],
              GATE: [0.1, 0.2], "onnxruntime": [4.0, 8.0], "torch": [5.0, 10.0]}
    layer = Layer("tiny", 1, TINY)
    variants = {DENSE: "winograd 4x4", case: "direct"}
    result = result_of(layer, [DENSE, case], variants, rounds, seed=0)
    assert result.best_peer == "onnxruntime" and result.over_best == (0.5, 0.5, 0.5)
    assert result.direct_over["torch"] == pytest.approx((1.2,) * 3)
    found, = result.cases
    assert found.over_dense == (1.5, 1.5, 1.5) and not result.never_slower
    assert found.over_ideal == pytest.approx((0.5 / share,) * 3)     # of the direct variant, which it takes
    same = result_of(layer, [DENSE, case], {DENSE: "direct", case: "direct"}, rounds, seed=0)
    assert same.cases[0].over_ideal == pytest.approx((1.5 / share,) * 3)
    assert found.direct_over_ideal is None and "Direct kernel alone" not in text_of([result])
    rounds[way(DIRECT, case)] = [4.5, 9.0]
    mixed = result_of(layer, [DENSE, case], {DENSE: "winograd 4x4", case: "mixed 2x2"}, rounds, seed=0)
    assert mixed.cases[0].over_ideal == pytest.approx((1.5 / share,) * 3)
    assert mixed.cases[0].direct_over_ideal == pytest.approx((0.75 / share,) * 3)
    assert "Direct kernel alone" in text_of([mixed]) and f"{0.75 / share:.2f}" in text_of([mixed]).splitlines()[-1]


@needs_library
@pytest.mark.parametrize("geometry", (TINY, DEPTHWISE))
def test_peers_compute_the_same(geometry):
    import torch

    threads = torch.get_num_threads()
    try:
        ours = kernel_peers.Ours(geometry, 1, 0, time.perf_counter)
        assert ours.ms(kernel_peers.dense_way("dance")) > 0 and ours.ms(GATE) > 0
        expected = ours.output(kernel_peers.dense_way("dance"))
        for peer in (kernel_peers.OnnxRuntime, kernel_peers.Torch):
            other = peer(geometry, 1, 0, time.perf_counter)
            assert other.ms("dense") > 0
            error = np.linalg.norm(other.output("dense") - expected)
            assert error <= 1e-5 * np.linalg.norm(expected)
    finally:
        torch.set_num_threads(threads)


@needs_library
def test_costs_that_do_not_serve_are_worth_one_warning(tmp_path, monkeypatch, caplog):
    """However many sessions a layer takes."""
    (tmp_path / "costs.json").write_text("none")
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path / "costs.json"))
    logging.getLogger("dance_deploy").propagate = True
    kernel_peers.costs_entry.cache_clear()
    try:
        for _ in range(2):
            kernel_peers.Ours(TINY, 1, 0, time.perf_counter)
    finally:
        kernel_peers.costs_entry.cache_clear()
    assert len(caplog.records) == 1 and "costs.json" in caplog.text


def bench(*arguments):
    return subprocess.run([sys.executable, "-m", "dance_deploy.cli.bench", "kernels", *map(str, arguments)],
                          capture_output=True, text=True)


@needs_library
def test_command_measures_writes_json_and_draws(tmp_path):
    output, picture = tmp_path / "kernels.json", tmp_path / "kernels.png"
    pytest.importorskip("matplotlib")
    done = bench("--arch", "small", "--layers", "layer4.0.conv2.0", "--rounds", 3, "--runs", 1, "--json", output,
                 "--plot", picture)
    assert done.returncode == 0, done.stderr
    layer, = json.loads(output.read_text())["layers"]
    assert layer["layer"] == "layer4.0.conv2.0" and layer["best_peer"] == "onnxruntime"
    assert {c["kind"] for c in layer["cases"]} == {"frames", "channels", "blob", "random", "products"}
    assert all(c["ms"] > 0 and 0 < c["kept_macs"] <= 1 for c in layer["cases"])
    assert all(len(times) == 3 for times in layer["round_ms"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "layer4.0.conv2.0" in done.stdout and "break-even" in done.stdout


@pytest.mark.parametrize("arguments, said", [
    (["--against", "tflite"], "tflite"), (["--arch", "vgg"], "vgg"), (["--layers", "L9"], "L9"),
    (["--cpu-time", "--threads", "2"], "--cpu-time"), (["--plot", "."], "--plot '.' cannot be written"),
    (["--json", "missing/x.json"], "--json 'missing/x.json' cannot be written"),
    (["--json", "x.png", "--plot", "./x.png"], "--json and --plot name the same file")])
def test_bad_arguments_are_one_line(arguments, said):
    done = bench(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


@pytest.mark.parametrize("arguments", [["kernels"], ["kernels", "--backend", "cuda"],
                                       ["predict", "bundle", "--profile", "jetson-nano"]], ids=" ".join)
def test_a_picture_that_cannot_be_drawn_is_known_before_the_work(arguments, tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(command, "chosen_layers", lambda *_: pytest.fail("the work began"))
    assert exit_code_of(bench_cli.app, [*arguments, "--plot", str(tmp_path / "p.png")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "--plot needs the package 'matplotlib'" in err
    assert "pip install 'dance-deploy[report]'" in err and list(tmp_path.iterdir()) == []


def test_a_plot_without_dense_peers(tmp_path):
    pytest.importorskip("matplotlib")
    case = KeepCase("blob", 0.5)
    rounds = {way(AUTOMATIC, DENSE): [2.0], way(DIRECT, DENSE): [2.0], way(AUTOMATIC, case): [1.0], GATE: [0.1]}
    result = result_of(Layer("tiny", 2, TINY), [DENSE, case], dict.fromkeys((DENSE, case), "direct"), rounds, seed=0)
    assert result.best_peer is None and result.break_even["blob"] is not None
    plot_results([result], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


@needs_library
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="no list of child processes")
def test_ctrl_c_in_a_terminal_is_one_line():
    """The terminal tells every process of the foreground group; the peers' are not to speak of it."""
    bench = subprocess.Popen([sys.executable, "-m", "dance_deploy.cli.bench", "kernels", "--against", "onnxruntime"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    peers, end_s = Path(f"/proc/{bench.pid}/task/{bench.pid}/children"), time.monotonic() + 60
    while not peers.read_text() and time.monotonic() < end_s:
        time.sleep(0.02)
    os.killpg(bench.pid, signal.SIGINT)
    _, err = bench.communicate(timeout=60)
    assert (bench.returncode, err) == (1, "interrupted\n")
