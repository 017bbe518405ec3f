"""Where the compiled libraries are: `python -m dance_deploy.runtime.kernels` prints the op library's path."""
import ctypes
import os
import sys

LIBRARY_NAME = "libdance_ort.so"
HOW_TO_BUILD = "run: make -C kernels"
PLUGIN_NAME = "libdance_trt.so"
CUDA_NAME = "libdance_cuda.so"
BUILD_CUDA = "make -C kernels/cuda library ARCH={}"  # of the device, such as sm_87; needs nvcc
_LONGEST_REFUSAL = 500
BUILD_PLUGIN = "make plugin"  # on the machine that runs it: needs nvcc and TensorRT's headers


def expected_path():
    """Absolute path at which the build leaves the library, whether it is there or not."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", LIBRARY_NAME)


def library_path():
    """Absolute path of the op library, for `SessionOptions.register_custom_ops_library`; None where it is not built."""
    path = expected_path()
    return path if os.path.isfile(path) else None


def variant_used(path, precision):
    """Name of the kernels by which the op library at `path` computes sessions of a precision here: an instruction set
    for "fp32" ("avx512"), a variant of bfloat16 for "bf16"; None where it cannot."""
    if precision == "bf16":
        return bf16_variant(path)
    try:
        used = ctypes.CDLL(path).dance_isa_used
    except (OSError, AttributeError):  # not loadable, or older than this
        return None
    used.restype = ctypes.c_char_p
    return used().decode()


def isa_refused(path):
    """Why the op library at `path` refuses every session here, in words: the environment variable DANCE_ISA names
    kernels that cannot be had; else None."""
    try:
        refused = ctypes.CDLL(path).dance_isa_refused
    except (OSError, AttributeError):  # not loadable, or older than this
        return None
    why = ctypes.create_string_buffer(_LONGEST_REFUSAL)
    return why.value.decode("utf-8", "replace") if refused(why, ctypes.c_int64(_LONGEST_REFUSAL)) else None


def bf16_variant(path):
    """Name of the variant by which the op library at `path` multiplies in bfloat16 on this processor ("avx512_bf16",
    "amx"), or None where it does not."""
    try:
        used = ctypes.CDLL(path).dance_bf16_used
    except (OSError, AttributeError):  # not loadable, or older than this
        return None
    used.restype = ctypes.c_char_p
    name = used()
    return name.decode() if name else None


def has_bf16(path):
    """Whether the op library at `path` multiplies in bfloat16 on this processor."""
    return bf16_variant(path) is not None


def plugin_path():
    """Absolute path of the TensorRT plugin library; None where it is not built."""
    path = os.path.join(os.path.dirname(expected_path()), PLUGIN_NAME)
    return path if os.path.isfile(path) else None


def expected_cuda_path():
    """Absolute path at which the build leaves the CUDA kernels for dance-bench, whether they are there or not."""
    return os.path.join(os.path.dirname(expected_path()), CUDA_NAME)


def main():
    """Print the path, return 0; or one line to stderr that says how to build it, return 1."""
    path = library_path()
    if path is None:
        sys.stderr.write("{}: not there, expected the compiled op library; {} (needs g++ and make)\n".format(
            expected_path(), HOW_TO_BUILD))
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
