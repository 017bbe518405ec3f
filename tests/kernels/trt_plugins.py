"""The TensorRT plugins built for the host and driven by kernels/trt/tests, for the tests of this folder.

TENSORRT_ROOT names the folders (several: separated by ':') that hold include/NvInferRuntime.h. CUDA's headers are taken
from CUDA_ROOT, /usr/local/cuda, or the package nvidia-cuda-runtime-cu12.
"""
import glob
import os
import re
import shutil
import subprocess
import sysconfig

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRT = os.path.join(ROOT, "kernels", "trt")
TYPES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16", np.dtype(bool): "bool"}


def tensorrt_headers():
    """Folders of TensorRT's headers: those that TENSORRT_ROOT names, or a package's."""
    roots = [root for root in os.environ.get("TENSORRT_ROOT", "").split(":") if root]
    packaged = glob.glob("/usr/include/*/NvInferRuntime.h") + glob.glob("/usr/include/NvInferRuntime.h")
    return [os.path.join(root, "include") for root in roots] or [os.path.dirname(header) for header in packaged]


def version(headers):
    """(major, minor), as the headers say themselves."""
    with open(os.path.join(headers, "NvInferVersion.h"), encoding="utf-8") as file:
        text = file.read()
    found = [re.search(r"#define (?:NV_TENSORRT|TRT)_%s(?:_ENTERPRISE|_RTX)? +(\d+)" % part, text)
             for part in ("MAJOR", "MINOR")]
    return tuple(int(match.group(1)) for match in found)


def cuda_root():
    """Folder with include/cuda_runtime_api.h; skips the test where there is none."""
    packages = sysconfig.get_paths()["purelib"]
    for place in (os.environ.get("CUDA_ROOT"), "/usr/local/cuda", os.path.join(packages, "nvidia", "cuda_runtime")):
        if place and os.path.exists(os.path.join(place, "include", "cuda_runtime_api.h")):
            return place
    pytest.skip("no CUDA headers here (set CUDA_ROOT, or pip install nvidia-cuda-runtime-cu12)")


def make(target, headers, build, **variables):
    """Run make in kernels/trt; variables: NAME=value of the Makefile. Returns the finished process, output captured."""
    compiler = variables.get("CXX", os.environ.get("CXX", "g++"))
    for tool in ("make", compiler):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    variables.update(BUILD=build, CUDA_ROOT=cuda_root(), TENSORRT_INCLUDE=headers)
    return subprocess.run(["make", "-C", TRT, "--no-print-directory", "-j2", target,
                           *(f"{name}={value}" for name, value in variables.items())],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=900)


class Host:
    """A host build: the plugin library and the program that drives it.

    kernels: "counting" or "emulated", masks: "bool" or "float", see the Makefile; both may share a build folder.
    """

    def __init__(self, headers, build, kernels="counting", masks="bool", **variables):
        done = make("host", headers, build, KERNELS=kernels, MASKS=masks, **variables)
        assert done.returncode == 0, done.stdout[-3000:]
        self.library = os.path.join(build, f"libdance_trt_{kernels}-{masks}.so")
        self.program = os.path.join(build, "check_plugins")

    def start(self, *arguments, **options):
        """Run the program on the library; options of subprocess.run."""
        return subprocess.run([self.program, self.library, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=900, **options)

    def call(self, op, inputs, outputs, **attributes):
        """One call of a plugin, through all its life. outputs: (shape, dtype) each; returns arrays."""
        head = [f"op {op}"]
        head += [f"attribute {name} {'f' if isinstance(value, float) else 'i'} {numbers(value)}"
                 for name, value in attributes.items()]
        head += [f"input {TYPES[array.dtype]} {numbers(array.shape)}" for array in inputs]
        head += [f"output {TYPES[np.dtype(dtype)]} {numbers(shape)}" for shape, dtype in outputs]
        data = "\n".join([*head, "data", ""]).encode() + b"".join(np.ascontiguousarray(a).tobytes() for a in inputs)
        done = self.start("--run", input=data)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        arrays, at = [], 0
        for shape, dtype in outputs:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(done.stdout, dtype, count, at).reshape(shape))
            at += count * np.dtype(dtype).itemsize
        assert at == len(done.stdout)
        return arrays


def numbers(value):
    """Numbers as the program reads them."""
    return " ".join(repr(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
