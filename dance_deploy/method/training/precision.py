"""In which precision training computes, and how it holds memory: what makes a step fast.

bfloat16 has float32's range, so it needs no loss scaling; weights, batch statistics, gate decisions and losses stay in
float32 (torch.autocast). Evaluation and calibration are always float32, since that is what is deployed.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from dance_deploy.errors import InputError

PRECISIONS = ("float32", "bfloat16")


def choose(device: torch.device, asked: str | None = None) -> str:
    """The precision asked for, else bfloat16 on GPUs that multiply in it (NVIDIA since Ampere), else float32.

    Raises InputError for bfloat16 on a CPU: torch 2.13 there computes wrong gradients, and now and then NaN, for the
    weights of a 3x3x3 convolution over an odd width (seen at 128 channels over 2x4x5, on a CPU with AVX512-BF16).
    """
    if device.type == "cpu":
        if asked == "bfloat16":
            raise InputError("--precision bfloat16 needs a GPU: on a CPU torch computes wrong gradients in it for some "
                             "convolutions; leave the option out")
        return "float32"
    return asked or ("bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context for a training step's forward; raises InputError for a precision that is not in PRECISIONS."""
    if precision not in PRECISIONS:
        raise InputError(f"--precision is '{precision}', expected one of {', '.join(PRECISIONS)}")
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def keep_freed_memory() -> None:
    """Tell glibc's allocator to keep what is freed instead of handing it back to the system; elsewhere, do nothing.

    Every step frees and asks for the same large tensors; fetched from the system anew, each page is cleared and mapped
    again, which took a quarter of a float32 step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
