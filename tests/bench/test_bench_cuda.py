"""dance-bench kernels --backend cuda without a GPU: the real kernels on the host, a strict stand-in for torch.cuda."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import cuda_standin
import numpy as np
import pytest

from dance_deploy.bench import command, cuda_gpu, cuda_kernels
from dance_deploy.bench.cuda_library import CudaLibrary
from dance_deploy.bench.cuda_peers import CudnnConv2d, CudnnConv3d, Ours
from dance_deploy.bench.keep_cases import DENSE, keep_cases
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, way
from dance_deploy.bench.kernels import CUDA, CUDA_RIVALS, Settings
from dance_deploy.bench.kernels_text import text_from_results
from dance_deploy.bench.layers import Layer
from dance_deploy.cli import bench, entry
from dance_deploy.errors import InputError, OperationError
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.runtime import kernels

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
TINY = Conv3dGeometry("tiny", 3, 5, (4, 6, 7), (3, 3, 3), (1, 2, 1), (1, 1, 0, 1, 1, 2))
STRIDED = Conv3dGeometry("strided", 4, 6, (5, 6, 7), (3, 3, 3), (2, 2, 2), (1,) * 6)
DILATED = Conv3dGeometry("dilated", 4, 6, (6, 6, 7), (2, 3, 3), (1, 1, 1), (1, 2, 2) * 2, dilations=(3, 2, 2))
DEPTHWISE = Conv3dGeometry("depthwise", 6, 6, (2, 5, 4), (1, 3, 3), (1, 1, 1), (0, 1, 1) * 2, group=6)
WINOGRAD = Conv3dGeometry("winograd", 16, 32, (2, 14, 14), (3, 3, 3), (1, 1, 1), (1,) * 6)
QUICK = Settings(threads=1, rounds=3, runs=1, seed=0, clock=CUDA)


@pytest.fixture(scope="module")
def library():
    """The kernels for the host, without sanitizers: it is loaded into this process."""
    for tool in ("make", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to compile the CUDA kernels for the host")
    folder = ROOT / "kernels" / "build" / "cuda_host"
    command = ["make", "-C", str(ROOT / "kernels" / "cuda"), "host_library", f"BUILD={folder}", "SANITIZE="]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    if "_Float16" in done.stdout:
        pytest.skip("needs a g++ with _Float16")
    assert done.returncode == 0, done.stdout[-3000:]
    return str(folder / "libdance_cuda_host.so")


@pytest.fixture
def world():
    costs = {f"gated_conv3d_f32_{rows}x64": 2.0 for rows in (32, 64, 128)}
    return cuda_standin.World({**costs, "gated_conv3d_f32_winograd4": 1.0, "gated_conv3d_f32_depthwise": 3.0,
                               "gate": 0.25, "conv3d": 4.0, "conv2d": 2.5, "peak": 0.5})


@pytest.fixture
def gpu(library, world, monkeypatch):
    return cuda_standin.gpu_on_host(library, world, monkeypatch)


def measured(gpu, geometry, against=CUDA_RIVALS):
    result, = cuda_kernels.bench_cuda_kernels(gpu, [Layer(geometry.name, 1, geometry)], against, QUICK)
    return result


@pytest.mark.parametrize("geometry", [TINY, STRIDED, DILATED, DEPTHWISE, WINOGRAD], ids=lambda g: g.name)
def test_all_peers_compute_the_same_and_what_is_pruned_is_checked(gpu, geometry):
    result = measured(gpu, geometry)
    assert {c.case for c in result.cases} == set(keep_cases(geometry)[1:])
    assert all(len(times) == QUICK.rounds for times in result.round_ms.values())
    rivals = [peer(gpu, geometry, 0).output("dense") for peer in (CudnnConv3d, CudnnConv2d)]
    ours = Ours(gpu, geometry, 0)
    for what in (way(AUTOMATIC, DENSE), way(DIRECT, DENSE)):
        for other in rivals:
            np.testing.assert_allclose(ours.output(what), other, rtol=1e-4, atol=1e-4)


def test_times_are_the_devices_and_of_one_launch(gpu, world):
    """By the stand-in's clock: what a launch costs, however often the host has done it before."""
    result = measured(gpu, WINOGRAD)
    assert result.dense_variant == "winograd4" and result.dense_ms == 1.0 and result.ms(GATE) == 0.25
    assert result.ms(way(DIRECT, DENSE)) == 2.0 and result.ms("cudnn") == 4.0 and result.ms("cudnn2d") == 3 * 2.5
    assert result.best_peer == "cudnn" and result.over_best.median == 0.25
    assert result.direct_over["cudnn2d"].median == pytest.approx(2 / 7.5)
    assert all(case.over_dense.median == 1.0 for case in result.cases)  # the stand-in's clock knows no masks


def test_a_geometry_that_the_direct_kernel_does_not_serve(gpu):
    result = measured(gpu, DEPTHWISE, ["cudnn"])
    assert result.dense_variant == "depthwise" and result.ms(way(DIRECT, DENSE)) == result.dense_ms == 3.0


def test_the_peak_is_of_launched_fmas(gpu, world):
    peak = cuda_kernels.fma_peak(gpu)
    assert peak == 1000 * 2 * cuda_kernels.PEAK_BLOCKS / 0.5
    result = measured(gpu, TINY)
    assert cuda_kernels.share_of_peak(result, peak) == result.macs / 2.0 / peak
    assert "tiny " in cuda_kernels.lines_of_peak([result], peak)[1]


def test_tables_say_what_was_measured(gpu):
    text = text_from_results([measured(gpu, TINY)], QUICK, gpu.describe())
    first = text.splitlines()[0]
    assert first.startswith("float32 without TF32 and tensor cores, one clip") and "events" in first
    assert "Orin, 2 multiprocessors" in first and "thread" not in first
    assert "cuDNN 3D" in text and "cuDNN 2D x kT" in text and "break-even" in text


def test_a_kernel_that_computes_something_else_stops_the_run(gpu, monkeypatch):
    right = CudaLibrary.conv

    def wrong(self, conv, tensors, workspace, workspace_bytes, stream):
        right(self, conv, [*tensors[:3], tensors[3], tensors[3], *tensors[5:]], workspace, workspace_bytes, stream)
    square = TINY._replace(in_channels=4)  # as many channels as frames: the wrong mask has the right size
    monkeypatch.setattr(CudaLibrary, "conv", wrong)
    with pytest.raises(OperationError, match="layer 'tiny': our kernel keeping .* of frames computes another result"):
        measured(gpu, square)


# ---- mistakes that the stand-in must notice -------------------------------------------------------------------------

def test_the_standin_notices(gpu, world):
    layer = Ours(gpu, TINY, 0)
    event = gpu.torch.cuda.Event
    with pytest.raises(cuda_standin.Misuse, match="not both recorded"):
        start, end = event(enable_timing=True), event(enable_timing=True)
        start.record()
        end.record()
        start.elapsed_time(end)  # not waited for
    with pytest.raises(cuda_standin.Misuse, match="another stream"):
        world.launch("conv", lambda: None, 0x99)
    with pytest.raises(cuda_standin.Misuse, match="nothing was captured"):
        gpu.captured(lambda: None)()
    with pytest.raises(cuda_standin.Misuse, match="while a graph is captured"):
        gpu.captured(lambda: gpu.ms(layer.calls[DIRECT]))


# ---- what is not there: one line, exit code 2 -----------------------------------------------------------------------

def lacking(monkeypatch, torch_module, path="/nowhere/libdance_cuda.so"):
    monkeypatch.setitem(sys.modules, "torch", torch_module)
    monkeypatch.setattr(kernels, "expected_cuda_path", lambda: path)
    with pytest.raises(InputError) as caught:
        cuda_gpu.open_gpu()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


def test_what_lacks_is_named_with_what_mends_it(world, monkeypatch):
    assert "torch is not installed; run: pip install torch" in lacking(monkeypatch, None)
    torch = cuda_standin.torch_of(world, (5, 3))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    assert lacking(monkeypatch, torch).endswith("not built; run: make -C kernels/cuda library ARCH=sm_53")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "needs nvcc, which is not on the PATH" in lacking(monkeypatch, torch)
    torch.cuda.is_available = lambda: False
    assert "sees none here: look with nvidia-smi; without a GPU: dance-bench predict" in lacking(monkeypatch, torch)
    torch.version = types.SimpleNamespace(cuda=None)
    assert "built without CUDA" in lacking(monkeypatch, torch)


def test_a_library_that_does_not_load_is_one_line(world, monkeypatch, tmp_path):
    (tmp_path / "libdance_cuda.so").write_bytes(b"not a library")
    monkeypatch.setitem(sys.modules, "torch", cuda_standin.torch_of(world))
    with pytest.raises(OperationError, match="does not load.*make -C kernels/cuda library"):
        cuda_gpu.open_gpu(str(tmp_path / "libdance_cuda.so"))


def test_tf32_is_off_and_the_fastest_algorithm_is_looked_for(library, world, monkeypatch):
    torch = cuda_standin.torch_of(world)
    monkeypatch.setitem(sys.modules, "torch", torch)
    cuda_gpu.open_gpu(library)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.benchmark


def test_the_command_writes_everything(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cuda_gpu, "open_gpu", lambda: gpu)
    monkeypatch.setattr(command, "chosen_layers", lambda architectures, names: [Layer("tiny", 1, TINY)])
    file = tmp_path / "cuda.json"
    arguments = ["--backend", "cuda", "--rounds", "3", "--runs", "1", "--json", str(file)]
    code = entry.exit_code_of(bench.app, ["kernels", *arguments])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "") and "FP32 FMA peak" in out and "cuDNN 3D" in out
    tree = json.loads(file.read_text())
    assert tree["clock"] == CUDA and tree["fma_peak_macs_per_ms"] > 0 and set(tree["direct_share_of_peak"]) == {"tiny"}
    layer, = tree["layers"]
    assert layer["best_peer"] == "cudnn" and {c["kind"] for c in layer["cases"]} >= {"frames", "channels", "blob"}


@pytest.mark.parametrize("arguments, said", [
    (["--backend", "tpu"], "choose from cpu, cuda"), (["--backend", "cuda", "--threads", "2"], "--threads"),
    (["--backend", "cuda", "--cpu-time"], "--cpu-time"), (["--backend", "cuda", "--against", "torch"], "cudnn2d"),
    (["--against", "cudnn"], "choose from onnxruntime"), (["--backend", "cuda", "--layers", "L9"], "L9")])
def test_bad_arguments_are_one_line(arguments, said, capsys):
    assert entry.exit_code_of(bench.app, ["kernels", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err, err


def test_a_machine_without_a_gpu_is_one_line(capsys):
    import torch
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    assert entry.exit_code_of(bench.app, ["kernels", "--backend", "cuda"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "dance-bench predict" in err
