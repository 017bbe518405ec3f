"""The CUDA kernels compile for the Jetson Nano within its limits, and get no worse than the committed table."""
import importlib.util
import json
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
DOCS = os.path.join(ROOT, "docs", "benchmarks")
SLACK = 0.02    # of the ceilings: a compiler's luck, not a regression


def load():
    path = os.path.join(ROOT, "kernels", "cuda", "compile_table.py")
    spec = importlib.util.spec_from_file_location("compile_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compile_table = load()


@pytest.fixture(scope="module")
def committed():
    with open(os.path.join(DOCS, "cuda-compile.json")) as file:
        return json.load(file)


@pytest.fixture(scope="module")
def compiled():
    if compile_table.pip_toolkit() is None:
        pytest.skip("needs nvidia-cuda-nvrtc-cu12, nvidia-cuda-nvcc-cu12 and nvidia-cuda-runtime-cu12, 12.9")
    return compile_table.collect((53,))["53"]


def test_the_page_is_the_table(committed):
    with open(os.path.join(DOCS, "cuda-compile.md")) as file:
        assert file.read() == compile_table.markdown(committed)


def test_the_table_holds_every_kernel(committed):
    for kernels in committed.values():
        assert set(kernels) == set(compile_table.threads_of())


def test_nothing_committed_is_beyond_the_nano(committed):
    broken = {name: compile_table.broken_limits(figures) for name, figures in committed["53"].items()}
    assert {name: what for name, what in broken.items() if what} == {}


def test_what_compiles_now_is_within_the_nano(compiled):
    broken = {name: compile_table.broken_limits(figures) for name, figures in compiled.items()}
    assert {name: what for name, what in broken.items() if what} == {}


def test_inner_loops_are_no_worse_than_committed(compiled, committed):
    worse = []
    for name, figures in compiled.items():
        before, now = committed["53"][name]["loop"], figures["loop"]
        assert (before is None) == (now is None), name
        for key in ("fma_share", "peak_share"):
            if now and now[key] < before[key] - SLACK:
                worse.append(f"{name}: {key} {now[key]}, committed {before[key]}")
    assert worse == [], "mend it, or if it is worth it: python kernels/cuda/compile_table.py --write"


def test_no_kernel_takes_more_registers_than_costs_a_resident_block(compiled, committed):
    lost = {name: (figures["nano_blocks"], committed["53"][name]["nano_blocks"]) for name, figures in compiled.items()
            if figures["nano_blocks"] < committed["53"][name]["nano_blocks"]}
    assert lost == {}


def test_a_spill_and_a_block_too_large_are_reported():
    figures = {"registers": 255, "threads": 256, "shared_bytes": 50000, "spill_bytes": 4, "stack_bytes": 0}
    assert len(compile_table.broken_limits(figures)) == 3


def test_nvcc_of_this_machine_builds_the_host_side_too(tmp_path):
    """What a plugin links: the library with its launches, in C++14, warnings of the host compiler on."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    listed = subprocess.run(["nvcc", "--list-gpu-code"], stdout=subprocess.PIPE).stdout.decode()
    source = os.path.join(ROOT, "kernels", "cuda", "dance_cuda.cu")
    # one architecture and no optimisation of device code: the host side is what is checked
    command = ["nvcc", "-std=c++14", "-Xcicc", "-O0", "-Xptxas", "-O0", "-arch=" + re.findall(r"sm_\d+", listed)[0],
               "-Xcompiler", "-Wall,-Wextra,-Werror,-Wno-unused-function", "-c", source, "-o", str(tmp_path / "k.o")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()[-3000:]


def test_clang_compiles_for_the_nano_as_well(tmp_path):
    """Another compiler, with the headers of CUDA 11.8: nothing spills, no block is too large."""
    toolkit, clang = os.environ.get("CUDA_118_ROOT"), os.environ.get("CLANG", "clang++")
    if toolkit is None or shutil.which(clang) is None:
        pytest.skip("needs clang 14 to 19 (CLANG) and CUDA_118_ROOT, a folder with include, nvvm and bin/ptxas of 11.8")
    kernels, ptx = os.path.join(ROOT, "kernels", "cuda"), str(tmp_path / "k.ptx")
    command = [clang, "-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=sm_53", f"--cuda-path={toolkit}", "-O3",
               "-std=c++14", "-S", "-Wall", "-Werror", "-Wno-unknown-cuda-version", "-Wno-unused-function",
               os.path.join(kernels, "dance_cuda.cu"), "-o", ptx]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    command = [os.path.join(toolkit, "bin", "ptxas"), "-arch=sm_53", "-v", ptx, "-o", str(tmp_path / "k.cubin")]
    said = compile_table.parse_ptxas(compile_table.run(command))
    threads = compile_table.threads_of()
    assert set(said) == set(threads)
    broken = {name: compile_table.broken_limits(dict(figures, threads=threads[name])) for name, figures in said.items()}
    assert {name: what for name, what in broken.items() if what} == {}
