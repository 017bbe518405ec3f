"""Engines built, kept and run, on the strict stand-in of each TensorRT generation."""
import json
import os
import sys
import types

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycuda_standin import Driver, Misuse
from trt_machine import silent_log
from trt_standin import plugin_bytes

from dance_deploy.bundle import open_bundle
from dance_deploy.errors import InputError, OperationError
from dance_deploy.ops import names as ops
from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.selftest import golden_from_bundle, run_checks
from dance_deploy.runtime.trt import cuda_graph, records
from dance_deploy.runtime.trt.command import build_bundle_engines

CLIP = np.random.default_rng(5).standard_normal((1, 3, 4, 16, 16)).astype(np.float32)


def built(machine, **options):
    options.setdefault("measure", False)
    return build_bundle_engines(machine.bundle, out=lambda line: None, **options)


def failing_checks(machine):
    with open_runner(machine.bundle, "tensorrt", dense=True) as runner:
        golden = golden_from_bundle(open_bundle(machine.bundle))
        return [check for check in run_checks(runner, golden) if not check.passed]


def engines_in(machine):
    folder = os.path.join(machine.bundle, "engines")
    return {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)}


def test_predictions_are_those_of_the_definition(machine):
    built(machine)
    with open_runner(machine.bundle, "reference", dense=True) as reference:
        expected, dense = reference.infer(CLIP, 0.4), reference.infer_dense(CLIP)
    with open_runner(machine.bundle, "tensorrt", dense=True) as runner:
        found = runner.infer(CLIP, 0.4)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-6)
        np.testing.assert_allclose(runner.infer_dense(CLIP).logits, dense.logits, rtol=1e-6)
        assert found.kept.tolist() == expected.kept.tolist() and found.macs == expected.macs < dense.macs
        assert found.kept.dtype == np.int64 and found.logits.dtype == np.float32
    assert failing_checks(machine) == []


def test_the_stem_never_comes_to_the_host(machine):
    built(machine)
    with open_runner(machine.bundle, "tensorrt") as runner:
        del machine.world.copied_to_host[:]
        for _ in range(3):
            runner.infer(CLIP, 0.4)
        assert machine.world.copied_to_host and (1, 4, 4, 8, 8) not in machine.world.copied_to_host


def test_results_stay_what_they_were_when_the_next_clip_runs(machine):
    built(machine)
    with open_runner(machine.bundle, "tensorrt") as runner:
        first = runner.infer(CLIP, 0.4)
        before = first.logits.copy(), [mask.copy() for layer in first.masks for mask in layer]
        runner.infer(3 * CLIP[:, :, ::-1], 1.0)
        assert np.array_equal(first.logits, before[0])
        assert all(np.array_equal(a, b) for a, b in zip((m for layer in first.masks for m in layer), before[1]))


@pytest.mark.parametrize("new", [False, True], ids=["CUDA 10.2", "CUDA 12"])
def test_a_cuda_graph_computes_the_same(machine, new, monkeypatch):
    monkeypatch.setattr(cuda_graph, "_driver", lambda: Driver(machine.world, new))
    built(machine)
    with open_runner(machine.bundle, "tensorrt", dense=True) as runner:
        expected, dense = runner.infer(CLIP, 0.4), runner.infer_dense(CLIP)
        runner.backend.use_cuda_graphs()
        before = machine.world.launches
        runner.infer(2 * CLIP, 1.0)
        found = runner.infer(CLIP, 0.4)
        assert machine.world.launches == before + 4  # controller and body, twice
        assert np.array_equal(found.logits, expected.logits) and np.array_equal(found.kept, expected.kept)
        assert np.array_equal(runner.infer_dense(CLIP).logits, dense.logits)
        assert len(machine.world.graphs) == 3


def test_a_cuda_graph_that_cannot_be_is_one_line(machine):
    built(machine)
    machine.world.no_graphs = True
    with open_runner(machine.bundle, "tensorrt") as runner:
        with pytest.raises(OperationError, match="CUDA error 900; run without --cuda-graph"):
            runner.backend.use_cuda_graphs()


def test_other_backends_have_no_cuda_graphs(machine):
    with open_runner(machine.bundle, "reference") as runner:
        with pytest.raises(InputError, match="for the backend 'tensorrt'"):
            runner.backend.use_cuda_graphs()


def test_only_what_is_asked_for_is_loaded(machine):
    built(machine)
    with open_runner(machine.bundle, "tensorrt", gated=False, dense=True) as runner:
        alone = sum(len(region) for region in machine.world.regions.values())
        runner.infer_dense(CLIP)
    with open_runner(machine.bundle, "tensorrt", dense=True):
        assert sum(len(region) for region in machine.world.regions.values()) > 2 * alone


def test_limits_and_precision_reach_the_builder(machine):
    built(machine, workspace_mib=300)
    for _, config, _ in machine.world.builds:
        limit = config.max_workspace_size if machine.generation == "8.2" else config._limits["WORKSPACE"]
        assert limit == 300 << 20
        assert not {"TF32", "FP16"} & config._flags
    del machine.world.builds[:]
    built(machine, precision="tf32")
    assert all("TF32" in config._flags for _, config, _ in machine.world.builds)


def test_the_timing_cache_is_kept_and_used_again(machine):
    record = built(machine)
    kept = records.read_timing_cache(machine.bundle, record.target)
    if machine.generation == "rtx":
        assert kept == b""  # there it does nothing
        return
    assert kept
    first = machine.world.builds[0][1]._cache
    del machine.world.builds[:]
    built(machine)
    assert machine.world.builds[0][1]._cache is not first and machine.world.builds[0][1]._cache._data


def test_a_timing_cache_of_something_else_is_no_obstacle(machine):
    record = built(machine)
    path = os.path.join(machine.bundle, "engines", record.target.key + ".timing")
    with open(path, "wb") as stream:
        stream.write(b"cache of another device")
    built(machine)
    assert failing_checks(machine) == []


# ---- half precision -------------------------------------------------------------------------------------------------

def test_half_precision_passes_its_own_limits(machine):
    record = built(machine, precision="fp16")
    assert record.precision == "fp16" and not any(record.pinned.values())
    assert failing_checks(machine) == []
    with open_runner(machine.bundle, "tensorrt") as runner, open_runner(machine.bundle, "reference") as reference:
        assert runner.backend.precision == "fp16"
        found, exact = runner.infer(CLIP, 1.0).logits, reference.infer(CLIP, 1.0).logits
        assert not np.array_equal(found, exact)  # it is half precision
        np.testing.assert_allclose(found, exact, rtol=2e-2, atol=2e-2)


def test_counts_and_thresholds_stay_exact_in_half_precision(machine):
    built(machine, precision="fp16")
    with open_runner(machine.bundle, "tensorrt") as runner:
        result = runner.infer(CLIP, 0.3)
        assert result.kept.tolist() == [[int(m.sum()) for m in layer] for layer in result.masks]
    halves = {node.op_type for model, _, _ in machine.world.builds for node in model.graph.node
              if any(name.endswith("/half") for name in node.output) and node.op_type != "Cast"}
    assert halves <= {"Conv", "GatedConv3d", "GatedConv3dAdd", "Relu", "MaxPool", "Add"}
    for model, config, layers in machine.world.builds:
        if "FP16" in config._flags and any(i.name == "budget" for i in model.graph.input):
            assert all(layer.precision is not None for layer in layers.values()
                       if layer.name not in ("", "stem") and layer.type.name == "ELEMENTWISE")


@pytest.mark.parametrize("factor", [6e4, 1e7], ids=["activations", "weights too"])
@pytest.mark.parametrize("generation", ["8.2", "8.6", "10", "11"])
def test_a_layer_that_overflows_is_pinned_and_no_other(make_machine, generation, factor):
    machine = make_machine(generation)

    def change(weights):  # fine in float32, infinite in half precision, and made good behind
        weights["block.b.w"] *= factor
        weights["head.w"] /= factor
    machine.write_bundle(change)
    record = built(machine, precision="fp16")
    assert record.pinned["body"] == ("block.b",) and "controller" not in record.pinned
    assert record.pinned["dense"][0] == "b.linear" and "a.linear" not in record.pinned["dense"]
    assert failing_checks(machine) == []
    machine.world.settled()


def test_a_nan_in_float32_is_an_error(make_machine):
    machine = make_machine("10")
    machine.world.damage = lambda name, value: value * np.nan if name == "sum" else value
    with pytest.raises(OperationError, match="layer 'block.a' gives a NaN"):
        built(machine, precision="fp16")
    machine.world.settled()


# ---- dense or gated -------------------------------------------------------------------------------------------------

def costs(slow_gate):
    """A clock on which the gate with this X is slower than its plain convolutions."""
    def cost(model):
        ops = [node.op_type for node in model.graph.node]
        if "GlobalAveragePool" in ops:
            return 5.0
        slow = any(i.name == slow_gate for i in model.graph.input)
        return (3.0 if slow else 1.0) if "ActivationGate" in ops else 2.0
    return cost


def test_gates_that_do_not_pay_are_left_out(machine):
    machine.world.cost_ms = costs("sum")
    record = built(machine, measure=True)
    assert record.timings == {"gate.a": (1.0, 2.0), "gate.b": (3.0, 2.0)}
    assert record.dense_gates == ("gate.b",)
    with open_runner(machine.bundle, "tensorrt") as runner, open_runner(machine.bundle, "reference") as reference:
        found, gated = runner.infer(CLIP, 0.4), reference.infer(CLIP, 0.4)
        assert [mask.all() for mask in found.masks[1]] == [True] * 3
        assert all(np.array_equal(a, b) for a, b in zip(found.masks[0], gated.masks[0]))
        assert not all(mask.all() for mask in gated.masks[1])
        assert found.macs > gated.macs and found.kept[1].tolist() == [4, 6, 64]
    assert failing_checks(machine) == []


def test_a_gate_that_is_left_out_is_in_no_engine(make_machine):
    machine = make_machine("10")
    machine.world.cost_ms = costs("stem")
    built(machine, measure=True)
    last = machine.world.builds[-1][0]
    assert [node.op_type for node in last.graph.node].count("ActivationGate") == 1
    assert [node.op_type for node in last.graph.node].count("Conv") == 2
    machine.world.settled()


def test_where_all_gates_pay_all_stay(machine):
    machine.world.cost_ms = costs(None)
    record = built(machine, measure=True)
    assert record.dense_gates == () and set(record.timings) == {"gate.a", "gate.b"}
    assert "golden" not in record.files


def test_without_the_plugin_nothing_is_measured_and_nothing_skipped(make_machine):
    machine = make_machine("11")
    machine.plugin.unlink()
    with pytest.raises(InputError, match="make plugin"):
        built(machine)
    record = built(machine, measure=True, with_plugin=False)
    assert record.target.plugin is None and record.timings == {}
    assert failing_checks(machine) == []
    with open_runner(machine.bundle, "tensorrt") as runner:
        assert "nothing skipped" in runner.backend.description
    machine.world.settled()


# ---- what can be wrong ----------------------------------------------------------------------------------------------

def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_engines_that_compute_nonsense_are_not_written(machine):
    built(machine)
    before = engines_in(machine)
    machine.world.damage = lambda name, value: value + 1 if name == "logits" and value.size == 3 else value
    # both engines are wrong by the same: only the golden clip knows
    with pytest.raises(OperationError, match="gated body: logits.*nothing was written"):
        built(machine)
    assert engines_in(machine) == before


def test_engines_that_went_wrong_since_are_refused_when_loaded(machine):
    built(machine)
    machine.world.damage = lambda name, value: -value if name == "stem" else value
    with pytest.raises(OperationError, match="controller: first layer.*dance-export .* --engine") as caught:
        open_runner(machine.bundle, "tensorrt")
    one_line(caught)


@pytest.mark.parametrize("damage", [lambda value: -value, lambda value: value * np.nan], ids=["wrong", "NaN"])
def test_a_dense_engine_alone_is_checked_too(machine, damage):
    """--dense loads neither controller nor body."""
    built(machine)
    machine.world.damage = lambda name, value: damage(value) if name == "logits" else value
    with pytest.raises(OperationError, match="dense network: logits.*dance-export .* --engine") as caught:
        open_runner(machine.bundle, "tensorrt", gated=False, dense=True)
    one_line(caught)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_dense_engine_is_held_against_what_it_gave_when_it_was_built(make_machine, precision):
    machine = make_machine("10")
    record = built(machine, precision=precision)
    with open_runner(machine.bundle, "tensorrt", gated=False, dense=True) as runner:
        golden = golden_from_bundle(open_bundle(machine.bundle))
        assert runner.backend.run_dense(golden.clip).ravel().tolist() == list(record.dense_logits)
    machine.world.settled()


def test_no_engines_yet(machine):
    with pytest.raises(InputError, match="holds no engines yet.*dance-export .* --engine") as caught:
        open_runner(machine.bundle, "tensorrt")
    one_line(caught)


@pytest.mark.parametrize("what", ["device", "version", "plugin"])
def test_engines_for_something_else_are_refused_and_rebuilt_on_request(make_machine, what, monkeypatch):
    machine = make_machine("8.6")
    built(machine)
    if what == "device":
        machine.world.device, machine.world.capability = "Orin", (8, 7)
    elif what == "version":
        machine.trt.__version__ = "8.5.2.2"
    else:
        machine.plugin.write_bytes(plugin_bytes("8.6", b"newer"))
    with pytest.raises(InputError, match="does not match.*--engine") as caught:
        open_runner(machine.bundle, "tensorrt")
    assert {"device": "Orin (compute capability 8.7)", "version": "TensorRT 8.5.2.2", "plugin": "plugin "}[
        what] in one_line(caught)
    built(machine)
    assert failing_checks(machine) == []
    assert len([name for name in engines_in(machine) if name.endswith(".json")]) == 2  # both are kept
    machine.world.settled()


def test_a_plugin_that_is_gone_is_named(machine):
    built(machine)
    machine.plugin.unlink()
    with pytest.raises(InputError, match="make plugin"):
        open_runner(machine.bundle, "tensorrt")


def test_a_plugin_that_does_not_load_is_one_line(machine):
    machine.plugin.write_bytes(b"no library at all")
    with pytest.raises(OperationError, match="does not load into TensorRT.*make plugin") as caught:
        built(machine)
    one_line(caught)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty", "link"])
def test_a_damaged_engine_never_reaches_tensorrt(make_machine, damage):
    machine = make_machine("8.2")
    built(machine)
    path = os.path.join(machine.bundle, "engines", next(n for n in engines_in(machine) if ".body." in n))
    data = open(path, "rb").read()
    if damage == "gone":
        os.unlink(path)
    elif damage == "link":
        os.rename(path, path + ".moved")
        os.symlink(path + ".moved", path)
    else:
        changed = {"flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "cut": data[:-1], "empty": b""}[damage]
        open(path, "wb").write(changed)
    with pytest.raises(InputError, match="(is damaged|is missing); build it anew: dance-export .* --engine") as caught:
        open_runner(machine.bundle, "tensorrt")
    one_line(caught)
    with open_runner(machine.bundle, "reference"):  # the bundle itself is as good as before
        pass
    machine.world.settled()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "dance-engines", "version": 99}', "\xff", "null"])
def test_a_damaged_record_is_one_line(make_machine, text):
    machine = make_machine("8.2")
    record = built(machine)
    path = os.path.join(machine.bundle, "engines", record.target.key + ".json")
    open(path, "w", encoding="latin-1").write(text)
    with pytest.raises(InputError, match="build the engines anew: dance-export .* --engine") as caught:
        open_runner(machine.bundle, "tensorrt")
    one_line(caught)


def test_engines_of_an_older_export_are_refused(machine):
    built(machine)
    record = records.read_record(machine.bundle, next(
        name[:-5] for name in engines_in(machine) if name.endswith(".json")))
    older = record._replace(sources=dict(record.sources, **{"body.onnx": "0" * 64}))
    records.write_record(machine.bundle, older, {})
    with pytest.raises(InputError, match="older export"):
        open_runner(machine.bundle, "tensorrt")


def test_too_little_memory_is_said_before_anything_is_built(machine):
    machine.world.memory_bytes = 600 << 20
    with pytest.raises(OperationError, match="too little memory.*MiB are free.*multi-user.target") as caught:
        built(machine)
    one_line(caught)
    assert machine.world.builds == []


@pytest.mark.parametrize("profile, limit_mib", [("jetson-nano", 512), ("jetson-agx-orin", 1024), ("own", 1024)])
def test_the_workspace_follows_the_boards_memory(make_machine, profile, limit_mib, tmp_path):
    """A Nano's profile says 4 GB, whatever the machine that builds has."""
    machine = make_machine("8.6")
    machine.world.memory_bytes = 8 << 30
    machine.write_bundle(profile=profile)
    from dance_deploy.runtime.trt import memory
    bundle = open_bundle(machine.bundle)

    class Device:
        @staticmethod
        def memory():
            return 7 << 30, 8 << 30
    found = memory.workspace_bytes(bundle.manifest, 7 << 30, None, memory.board_bytes(profile, Device))
    assert found == limit_mib << 20
    little = memory.needed_bytes(bundle.manifest) + (100 << 20)
    assert memory.workspace_bytes(bundle.manifest, little, None, 8 << 30) == 100 << 20


def test_on_a_board_the_memory_is_everybodys(tmp_path):
    """A Jetson's GPU has no memory of its own, and CUDA counts the page cache as used: the kernel knows better."""
    from dance_deploy.runtime.trt import memory
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4058136 kB\nMemFree: 100000 kB\nMemAvailable: 3000000 kB\n")

    class Nano:
        @staticmethod
        def memory():
            return 100 << 20, 4058136 << 10

    class Card:
        @staticmethod
        def memory():
            return 2 << 30, 2 << 30
    assert memory.free_bytes(Nano, str(tmp_path)) == 3000000 << 10
    assert memory.free_bytes(Card, str(tmp_path)) == 2 << 30
    assert memory.free_bytes(Card, str(tmp_path / "nowhere")) == 2 << 30


def test_memory_that_runs_out_while_loading_is_one_line(machine):
    built(machine)
    machine.world.memory_bytes = 3000
    with pytest.raises(OperationError, match="device memory is full"):
        open_runner(machine.bundle, "tensorrt")


def test_a_build_that_tensorrt_refuses_leaves_the_old_engines(machine):
    built(machine)
    before = engines_in(machine)
    machine.world.fail_build = "Error Code 10: could not find any implementation\nfor node block.a"
    with pytest.raises(OperationError, match="could not find any implementation for node block.a") as caught:
        built(machine)
    one_line(caught)
    assert engines_in(machine) == before


def test_a_bundle_for_newer_tensorrt_is_refused_by_an_old_one(make_machine):
    machine = make_machine("8.2")
    machine.generation = "10"
    machine.write_bundle()
    with pytest.raises(InputError, match="opset 17, TensorRT 8.2.1.8 reads up to 13.*--profile jetson-nano"):
        built(machine)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("generation, other", [("8.4", "10"), ("8.6", "10"), ("10", "8.6"), ("11", "8.2")])
def test_engines_follow_the_tensorrt_that_is_there(make_machine, generation, other, precision):
    """A bundle for an Orin runs with JetPack 5's TensorRT and with JetPack 6's: masks are turned on the board."""
    machine = make_machine(generation)
    machine.generation = other
    machine.write_bundle()
    machine.world.cost_ms = costs("sum")
    record = built(machine, measure=True, precision=precision)
    assert record.dense_gates == ("gate.b",)
    wanted = onnx.TensorProto.FLOAT if generation.startswith("8") else onnx.TensorProto.BOOL
    bodies = [model for model, _, _ in machine.world.builds if any(n.op_type in ops.GATES for n in model.graph.node)]
    masks = [o for model in bodies for o in model.graph.output if o.name.endswith("_keep")]
    assert masks and {o.type.tensor_type.elem_type for o in masks} == {wanted}
    assert not generation.startswith("8") or not any(model.functions for model in bodies)
    assert failing_checks(machine) == []
    machine.world.settled()


def test_a_channels_last_bundle_is_for_cpus(machine):
    def change(files):
        model = onnx.load_from_string(files["body.onnx"])
        next(node for node in model.graph.node if node.op_type == ops.GATED_CONV3D_ADD).op_type += "Cl"
        files["body.onnx"] = model.SerializeToString()
    for changes in (dict(profile="cpu"), dict(profile="a user's own", edit=change)):
        machine.write_bundle(**changes)
        with pytest.raises(InputError, match="channels last.*dance-export CKPT --profile jetson-nano") as caught:
            built(machine)
        one_line(caught)
        assert machine.world.builds == []


@pytest.mark.parametrize("generation, built_for, said", [
    ("11", "10", "built for TensorRT 10.3.0, and TensorRT 11.1.0.106 is installed"),
    ("10", "8.6", "built for TensorRT 8.6.0, and TensorRT 10.3.0 is installed"),
    ("8.2", "10", "built for TensorRT 10.3.0, and TensorRT 8.2.1.8 is installed"),
    ("rtx", "10", "built for TensorRT 10.3.0, and TensorRT-RTX 1.7.1.116 is installed"),
    ("rtx", "8.6", "built for TensorRT 8.6.0, and TensorRT-RTX 1.7.1.116 is installed"),
])
def test_a_plugin_of_another_generation_is_never_loaded(make_machine, generation, built_for, said):
    """After an update: TensorRT itself might end the process instead of saying so."""
    machine = make_machine(generation)
    machine.plugin.write_bytes(plugin_bytes(built_for))
    with pytest.raises(OperationError, match=said + "; build it anew: make plugin$") as caught:
        built(machine)
    one_line(caught)
    machine.plugin.write_bytes(plugin_bytes(generation))
    built(machine)
    machine.world.settled()


@pytest.mark.parametrize("content", [b"", b"plugin", b"IPluginV3, TensorRT 11.1.", b"IPluginV9, TensorRT 11.1.0\0"])
def test_a_library_that_is_no_plugin_of_ours(make_machine, content):
    machine = make_machine("11")
    machine.plugin.write_bytes(content)
    with pytest.raises(OperationError, match="does not load into .*no plugin library.*make plugin") as caught:
        built(machine)
    one_line(caught)
    machine.world.settled()


def test_no_gpu(machine):
    machine.world.gpus = 0
    with pytest.raises(OperationError, match="CUDA does not start.*onnxruntime") as caught:
        built(machine)
    one_line(caught)


def test_rtx_without_a_name_that_its_parser_opens(make_machine, tmp_path, monkeypatch):
    """The process would end inside the parser: said before."""
    machine = make_machine("rtx")
    package = types.ModuleType("tensorrt_rtx_libs")
    package.__file__ = str(tmp_path / "libs" / "__init__.py")
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "libtensorrt_rtx.so.1").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_libs", package)
    with pytest.raises(OperationError, match="run: ln -s libtensorrt_rtx.so.1 .*/libs/libtensorrt_rtx.so") as caught:
        built(machine)
    one_line(caught)
    (tmp_path / "libs" / "libtensorrt_rtx.so").symlink_to("libtensorrt_rtx.so.1")
    built(machine)
    machine.world.settled()


def test_a_tensorrt_that_does_not_start_is_one_line(machine):
    def broken(logger):
        logger.log(1, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    machine.trt.Builder = broken
    with pytest.raises(OperationError, match="does not start: CUDA initialization failure with error: 35"):
        built(machine)


@pytest.mark.parametrize("version", ["12.0.0", "9.3.0", "7.1.3", "unknown"])
def test_a_tensorrt_that_we_do_not_work_with_is_named(make_machine, version):
    machine = make_machine("11")
    machine.trt.__version__ = version
    with pytest.raises(OperationError, match="TensorRT {} is installed, .* works with 8, 10 and 11; ".format(version)):
        built(machine)


def test_a_symbolic_link_as_engines_folder_is_refused(machine, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", os.path.join(machine.bundle, "engines"))
    with pytest.raises(InputError, match="symbolic link"):
        built(machine)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_graph_with_open_axes_is_refused(make_machine):
    machine = make_machine("8.6")

    def change(files):
        model = onnx.load_from_string(files["dense.onnx"])
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        files["dense.onnx"] = model.SerializeToString()
    machine.write_bundle(edit=change)
    with pytest.raises(OperationError, match="dense.onnx: input 'clip' has the open shape .*fixed shapes"):
        built(machine)
    machine.world.settled()


def test_other_tensors_than_the_graph_declares_are_an_error(make_machine):
    """A parser that errs in silence, as RTX's does with strides by reference."""
    machine = make_machine("10")
    files = open_bundle(machine.bundle)
    model = onnx.load_from_string(files.read("dense.onnx"))
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3
    machine.trt.OnnxParser.parse = wrong_shape(machine.trt.OnnxParser.parse)
    with pytest.raises(OperationError, match="the graph declares"):
        built(machine)
    machine.world.settled()


def wrong_shape(parse):
    def parsed(self, model):
        done = parse(self, model)
        object.__setattr__(self._network._outputs[0], "shape", (1, 99))
        return done
    return parsed


# ---- the stand-in itself --------------------------------------------------------------------------------------------

def test_the_standin_refuses_what_the_real_one_does(machine):
    trt, world = machine.trt, machine.world
    config = None
    device = machine.cuda.Device(0)
    context = device.retain_primary_context()
    context.push()
    log = silent_log(trt)
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    with pytest.raises(AttributeError):
        config.no_such_attribute  # noqa: B018
    if machine.generation in ("8.2", "11", "rtx"):
        with pytest.raises(AttributeError):
            trt.BuilderFlag.FP16 if machine.generation != "8.2" else trt.MemoryPoolType  # noqa: B018
    elif machine.generation != "10":
        with pytest.raises(Misuse):
            config.max_workspace_size = 1
    with pytest.raises((AttributeError, Misuse)):
        builder.build_engine(None, config)
    stream = machine.cuda.Stream()
    memory = machine.cuda.mem_alloc(8)
    with pytest.raises(Misuse, match="page-locked"):
        machine.cuda.memcpy_htod_async(memory, np.zeros(2, np.float32), stream)
    host = machine.cuda.pagelocked_empty((2,), np.float32)
    machine.cuda.memcpy_dtoh_async(host, memory, stream)
    memory.free()
    with pytest.raises(Misuse, match="no device memory"):
        stream.synchronize()
    with pytest.raises(Misuse, match="twice"):
        memory.free()
    kept = host
    del host
    context.pop()
    assert world.violations == ["the context went before page-locked memory"] and kept is not None
    del world.violations[:]


# ---- records --------------------------------------------------------------------------------------------------------

def paths_in(tree, path=()):
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from paths_in(value, path + (key,))


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
                 st.just("../../etc/passwd"), st.just(["x"] * 3), st.just({"x": 1}))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_record_is_read_or_refused_in_one_line(record_tree, data):
    folder, tree = record_tree
    tree = json.loads(json.dumps(tree))
    path = data.draw(st.sampled_from(list(paths_in(tree))[1:]))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if data.draw(st.booleans()) and isinstance(parent, dict):
        del parent[path[-1]]
    else:
        parent[path[-1]] = data.draw(JUNK)
    (folder / "engines" / "key.json").write_text(json.dumps(tree))
    try:
        record = records.read_record(str(folder), "key")
    except InputError as error:
        assert "\n" not in str(error) and "--engine" in str(error)
    else:
        for what in record.files:
            name = record.file_name(what)
            assert os.path.basename(name) == name and not name.startswith(".")


@pytest.fixture(scope="module")
def record_tree(tmp_path_factory):
    """A folder with engines/, and the tree of a good record."""
    from dance_deploy.manifest import FileEntry
    from dance_deploy.runtime.trt.target import Target
    folder = tmp_path_factory.mktemp("records")
    entry = FileEntry("a" * 64, 12)
    record = records.Record(Target("NVIDIA Tegra X1", (5, 3), "tensorrt", "8.2.1.8", "b" * 64), {"body.onnx": "c" * 64},
                            "fp16", {"body": ("layer",)}, ("gate.a",), {"gate.a": records.Timing(1.0, 2.0)},
                            (0.5, -1.25), {what: entry for what in records.GRAPHS + (records.GOLDEN,)})
    records.write_record(str(folder), record, {})
    name = record.target.key + ".json"
    assert records.read_record(str(folder), record.target.key) == record
    return folder, json.loads((folder / "engines" / name).read_text())
