"""The TensorRT plugins on the host, for every generation of headers given, without TensorRT and without a GPU."""
import os
import shutil
import subprocess

import native_kernels
import numpy as np
import pytest
import trt_plugins

from dance_deploy.ops import definition, names
from dance_deploy.runtime.trt import plugin_file

SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"
HEADERS = trt_plugins.tensorrt_headers()
AARCH64 = "aarch64-linux-gnu-g++"


@pytest.fixture(scope="module", params=HEADERS or ["none"])
def headers(request):
    if request.param == "none":
        pytest.skip("no TensorRT headers here (set TENSORRT_ROOT to a folder with include/NvInferRuntime.h)")
    return request.param


@pytest.fixture(scope="module")
def build(headers, tmp_path_factory):
    """build(kernels=, masks=): a Host under the sanitizers, its objects shared."""
    folder = str(tmp_path_factory.mktemp("trt"))
    return lambda **options: trt_plugins.Host(headers, folder, SANITIZE=SANITIZE, CXXFLAGS="-O1", **options)


@pytest.fixture(scope="module")
def host(build):
    """Plugins over kernels that count their calls."""
    return build()


@pytest.fixture(scope="module")
def emulated(build):
    """Plugins over the real CUDA kernels, which a shim runs on the host."""
    return build(kernels="emulated")


def test_all_checks_under_the_sanitizers(host):
    """Attributes, shapes, formats, memory, clones, contexts, captures, saved data: see kernels/trt/tests."""
    done = host.start(env=dict(os.environ, ROUNDS="500"))
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stdout.decode().endswith(": 0 failure(s)\n")


def test_all_checks_on_the_real_kernels(emulated):
    done = emulated.start(env=dict(os.environ, ROUNDS="20"))
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def test_float_masks_with_the_newer_api(headers, build):
    if trt_plugins.version(headers)[:1] == (8,):
        pytest.skip("TensorRT 8 has float masks only")
    done = build(masks="float").start(env=dict(os.environ, ROUNDS="20", DANCE_TRT_FLOAT_MASKS="1"))
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def test_names_are_those_of_the_ops(host):
    lines = host.start("--creators").stdout.decode().splitlines()
    version = names.PLUGIN_ATTRIBUTES["plugin_version"]
    attributes = [names.STRIDES, names.PADS, names.DILATIONS, names.GROUP, names.MIN]
    assert sorted(lines) == sorted(
        " ".join([op, version, *(attributes if op in names.CONVS else [])]) for op in names.GATES + names.CONVS)


def test_the_library_says_what_it_was_built_for(headers, host):
    """The loader reads it off the file, before a process loads what does not suit it."""
    found = plugin_file.built_for(host.library)
    assert found.headers[:2] == trt_plugins.version(headers) and found.interface == (2 if found.headers[0] == 8 else 3)


def test_other_headers_make_other_objects(headers, tmp_path):
    """After an update of TensorRT, `make plugin` mends: packaged headers may be older than the objects."""
    copy, build = str(tmp_path / "include"), str(tmp_path / "build")
    shutil.copytree(headers, copy)

    def compiles():
        done = trt_plugins.make(os.path.join(build, "attributes.o"), copy, build)
        assert done.returncode == 0, done.stdout
        return " -c " in done.stdout

    assert compiles() and not compiles()
    version = os.path.join(copy, "NvInferVersion.h")
    with open(version, "a", encoding="utf-8") as file:
        file.write("// of another release\n")
    os.utime(version, (0, 0))
    assert compiles() and not compiles()


def test_no_tensorrt_library_is_named(host):
    if shutil.which("readelf") is None:
        pytest.skip("no readelf here")
    needed = subprocess.run(["readelf", "-d", host.library], stdout=subprocess.PIPE, encoding="utf-8").stdout
    assert "libc.so" in needed and "nvinfer" not in needed and "tensorrt" not in needed


@pytest.mark.parametrize("pretended", ("7130", "10300"))
def test_a_process_with_another_tensorrt_gets_a_line(headers, host, pretended):
    if trt_plugins.version(headers)[:1] != (8,):
        pytest.skip("from TensorRT 10 on it is TensorRT that loads plugins")
    done = host.start("--creators", env=dict(os.environ, DANCE_TRT_PRETEND=pretended))
    assert done.returncode == 1
    assert b"dance plugins: not registered: the TensorRT of this process is not version 8" in done.stderr


LOAD = """
#include <dlfcn.h>
#include <cstdio>
int main(int, char** libraries) {  // in the order given, as Python does: with local scope
  int (*registered)() = nullptr;
  while (*++libraries) {
    void* library = dlopen(*libraries, RTLD_NOW | RTLD_LOCAL);
    if (!library) return std::fprintf(stderr, "%s\\n", dlerror()), 1;
    if (void* found = dlsym(library, "dance_registered_plugins")) registered = reinterpret_cast<int (*)()>(found);
  }
  std::printf("%d\\n", registered ? registered() : -1);
}
"""


def test_registers_with_a_tensorrt_8_that_python_loaded(headers, host, tmp_path):
    """The symbols of a library loaded with local scope are found by the library's name only."""
    if trt_plugins.version(headers)[:1] != (8,):
        pytest.skip("from TensorRT 10 on it is TensorRT that loads plugins")
    fake, program, source = tmp_path / "libnvinfer.so.8", str(tmp_path / "load"), tmp_path / "load.cc"
    source.write_text(LOAD, encoding="ascii")
    flags = SANITIZE.split()
    node = os.path.join(os.path.dirname(host.program), "tests", "node_v2.o")
    subprocess.run(["g++", *flags, "-shared", "-Wl,-soname,libnvinfer.so.8", "-o", str(fake), node], check=True)
    subprocess.run(["g++", *flags, "-o", program, str(source), "-ldl"], check=True)

    def load(*libraries, folder="/nowhere"):
        done = subprocess.run([program, *map(str, libraries)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", env=dict(os.environ, LD_LIBRARY_PATH=str(folder),
                                                         ASAN_OPTIONS="detect_odr_violation=0"))  # the copy below
        assert done.returncode == 0, done.stderr
        return int(done.stdout), done.stderr

    assert load(fake, host.library) == (len(names.GATES + names.CONVS), "")
    assert load(host.library, fake, folder=tmp_path) == (len(names.GATES + names.CONVS), "")
    count, line = load(host.library)
    assert count == -1 and line == "dance plugins: not registered: no TensorRT 8 in this process, none to load\n"
    copy = shutil.copy(host.library, tmp_path / "copy.so")
    count, line = load(fake, host.library, copy)
    assert count == len(names.GATES + names.CONVS) and "a plugin of the same name is registered already" in line


def random_conv(seed, channels_last, dtype):
    """op, inputs in the op's layout, attributes, and the case as definition.reference takes it."""
    rng = np.random.default_rng(seed)
    group, per_group, m_per_group = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, strides, dilations = rng.integers(1, 4, 3), rng.integers(1, 3, 3), rng.integers(1, 3, 3)
    pads = rng.integers(0, 3, 6)
    sizes = [max(int(rng.integers(1, 8)), int(d * (k - 1) + 1 - p - q))
             for k, d, p, q in zip(kernel, dilations, pads[:3], pads[3:])]
    x_shape = (int(rng.integers(1, 3)), group * per_group, *sizes)
    attributes = dict(strides=strides.tolist(), pads=pads.tolist(), dilations=dilations.tolist(), group=group)
    x = rng.standard_normal(x_shape).astype(dtype)
    w = rng.standard_normal((group * m_per_group, per_group, *kernel)).astype(dtype)
    b = rng.standard_normal(len(w)).astype(dtype)
    n, c, t, h, wide = x_shape
    masks = [rng.random(shape) < rng.choice([0.0, 0.5, 1.0]) for shape in ((n, t), (n, c), (n, h, wide))]
    minimum = float(rng.choice([0.0, names.MIN_DEFAULT]))
    y = definition.gated_conv3d(x, w, b, *masks, **attributes)
    z = rng.standard_normal(y.shape).astype(dtype) if seed % 2 else None
    op = names.GATED_CONV3D if z is None else names.GATED_CONV3D_ADD
    poisoned = np.where(masks[0][:, None, :, None, None] & masks[1][:, :, None, None, None]
                        & masks[2][:, None, None], x, dtype(np.nan))
    lay = native_kernels.to_layout
    inputs = [lay(poisoned, channels_last), w, b, *masks] + ([] if z is None else [lay(z, channels_last)])
    reference = definition.reference(x, w, b, *masks, z=z, minimum=minimum, **attributes)
    out_shape = lay(y, channels_last).shape
    op = names.CHANNELS_LAST[op] if channels_last else op
    return op, inputs, out_shape, {**attributes, "min": minimum}, reference


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("seed", range(6))
def test_convolutions_agree_with_the_definition(headers, emulated, seed, dtype, channels_last):
    op, inputs, out_shape, attributes, reference = random_conv(seed, channels_last, dtype)
    if trt_plugins.version(headers)[:1] == (8,):
        inputs[3:6] = [mask.astype(np.float32) for mask in inputs[3:6]]
    y, = emulated.call(op, inputs, [(out_shape, dtype)], **attributes)
    y = np.transpose(y, (0, 4, 1, 2, 3)) if channels_last else y
    assert definition.check_output(y, reference, with_norm=False) == []


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("seed", range(4))
def test_gates_agree_with_the_definition(headers, emulated, seed, dtype, channels_last):
    rng = np.random.default_rng(seed)
    n, c, t, h, w = shape = tuple(int(s) for s in rng.integers(1, 7, 5))
    x = (rng.standard_normal(shape) * rng.gamma(1.0, 1.0, (n, c, t, 1, 1))).astype(dtype)
    tau = rng.choice([0.0, 0.5, 1.0, 1.3], (n, 3)).astype(np.float32)
    mask = np.float32 if trt_plugins.version(headers)[:1] == (8,) else bool
    op = names.ACTIVATION_GATE_CL if channels_last else names.ACTIVATION_GATE
    masks = emulated.call(op, [native_kernels.to_layout(x, channels_last), tau],
                          [((n, t), mask), ((n, c), mask), ((n, h, w), mask)])
    assert all(set(np.unique(m)) <= {0, 1} for m in masks)
    assert definition.check_masks(x, tau, definition.GateMasks(*(m.astype(bool) for m in masks))) == []


def test_cross_compiles_for_the_board(headers, tmp_path):
    done = trt_plugins.make("objects", headers, str(tmp_path), CXX=AARCH64)
    assert done.returncode == 0, done.stdout[-3000:]


def test_missing_headers_are_one_line(tmp_path):
    done = trt_plugins.make("plugin", str(tmp_path / "include"), str(tmp_path))
    assert done.returncode != 0
    assert f"no NvInferRuntime.h in '{tmp_path}/include'" in done.stdout and "TENSORRT_ROOT=" in done.stdout
    assert not os.listdir(tmp_path)
