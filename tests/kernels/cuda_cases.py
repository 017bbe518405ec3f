"""A short fixed set of cases that together notice each seeded bug of kernels/cuda/tests/seeded_bugs.py."""
from typing import NamedTuple

import emulated_cuda
import numpy as np

from dance_deploy.ops import definition, names


class Case(NamedTuple):
    """One convolution, or one gate where w is None; rates: share kept of frames, channels, features."""

    name: str
    x: tuple
    w: tuple = None
    rates: tuple = (0.7, 0.6, 0.6)
    how: dict = {}
    attributes: dict = {}
    half: bool = False
    with_z: bool = False
    minimum: float = names.MIN_DEFAULT
    tau: tuple = ()
    nan: bool = False


ALL = (1, 1, 1)
PAD = dict(pads=(1,) * 6)
LAST = dict(channels_last=True)
DIRECT = dict(algorithm=emulated_cuda.DIRECT)
WINOGRAD = dict(algorithm=emulated_cuda.WINOGRAD)
CASES = [
    Case("two clips, NCTHW", (2, 9, 4, 10, 13), (66, 9, 3, 3, 3), how=DIRECT, attributes=PAD),
    Case("two clips, NTHWC", (2, 9, 4, 10, 13), (66, 9, 3, 3, 3), how=dict(DIRECT, **LAST), attributes=PAD,
         with_z=True),
    Case("blobs", (1, 8, 3, 16, 16), (8, 8, 3, 3, 3), (1, 1, -1), dict(DIRECT, **LAST), PAD),
    Case("few features", (1, 8, 3, 16, 16), (8, 8, 3, 3, 3), (1, 1, 0.1), dict(DIRECT, **LAST), PAD),
    Case("all kept, whole groups", (1, 8, 3, 7, 9), (64, 8, 3, 3, 3), ALL, dict(DIRECT, **LAST), PAD, with_z=True),
    Case("all kept, ragged groups", (1, 7, 3, 7, 9), (65, 7, 3, 3, 3), ALL, dict(DIRECT, **LAST), PAD),
    Case("all kept, NCTHW", (1, 6, 3, 29, 31), (17, 6, 1, 3, 3), ALL, DIRECT, dict(pads=(0, 1, 1, 0, 1, 1))),
    Case("frames", (1, 8, 9, 5, 6), (8, 8, 3, 3, 3), (0.5, 1, 1), DIRECT, PAD),
    Case("49 positions", (1, 4, 2, 14, 15), (9, 4, 1, 7, 7), (1, 1, 0.8), DIRECT,
         dict(pads=(0, 3, 3, 0, 3, 3), strides=(1, 2, 2))),
    Case("dilation", (1, 5, 3, 9, 11), (6, 5, 2, 3, 3), how=DIRECT,
         attributes=dict(dilations=(2, 2, 3), pads=(0, 2, 3) * 2)),
    Case("split reduction", (1, 40, 2, 5, 5), (64, 40, 3, 3, 3), (1, 0.9, 0.9), dict(DIRECT, multiprocessors=30), PAD),
    Case("halves", (1, 40, 2, 9, 9), (66, 40, 3, 3, 3), how=dict(DIRECT, **LAST), attributes=PAD, half=True,
         with_z=True),
    Case("long halves", (1, 512, 1, 3, 3), (8, 512, 1, 3, 3), ALL, DIRECT, dict(pads=(0, 1, 1) * 2), True),
    Case("a NaN that is kept", (1, 4, 1, 5, 5), (4, 4, 1, 1, 1), ALL, DIRECT, minimum=0.0, nan=True),
    Case("Winograd, NCTHW", (2, 9, 3, 10, 13), (34, 9, 3, 3, 3), (0.6, 0.6, 0.15), WINOGRAD, PAD, with_z=True),
    Case("Winograd, NTHWC", (2, 9, 3, 10, 13), (34, 9, 3, 3, 3), (0.6, 0.6, 0.15), dict(WINOGRAD, **LAST), PAD),
    Case("Winograd, halves", (1, 16, 2, 9, 7), (8, 16, 3, 3, 3), how=WINOGRAD, attributes=PAD, half=True),
    Case("depthwise", (2, 5, 3, 6, 7), (5, 1, 3, 3, 3), attributes=dict(group=5, **PAD)),
    Case("groups", (2, 6, 3, 6, 7), (9, 2, 3, 3, 3), attributes=dict(group=3, **PAD), how=LAST),
    Case("gate, NCTHW", (2, 70, 6, 9, 11), tau=(0.9, 0.9, 0.9)),
    Case("gate, NTHWC", (2, 70, 6, 9, 11), tau=(0.9, 0.9, 0.9), how=LAST),
    Case("gate, nothing large", (1, 70, 6, 9, 11), tau=(1e6, 1e6, 1e6), how=LAST),
    Case("gate on its threshold", (1, 4, 2, 4, 4), tau=(0.5, 1, 1), rates=(2, 1, 1)),
]


def _masks(rng, case):
    n, c, t, h, w = case.x
    masks = [rng.random(shape) < rate for shape, rate in zip(((n, t), (n, c), (n, h, w)), case.rates)]
    if case.rates[2] < 0:
        height, width = np.mgrid[:h, :w]
        masks[2][:] = np.hypot(height - h // 2, width - w // 3) < 5
    return masks


def _gate_problem(emulator, case, rng):
    x = rng.standard_normal(case.x)
    if case.rates[0] == 2:
        x = np.ones(case.x)
        x[:, :, 0] = 3
    else:
        for axis in range(1, 5):
            x = x * (0.3 + rng.random([e if i == axis else 1 for i, e in enumerate(case.x)]))
        x[:, case.x[1] // 2:, ::2] *= 3    # frames that differ in their later channels only
    x, tau = x.astype(np.float32), np.array([case.tau] * case.x[0], np.float32)
    masks = emulated_cuda.activation_gate(emulator, x, tau, **case.how)
    if case.rates[0] == 2:
        return None if all(mask.all() for mask in masks) else "a magnitude on its threshold is dropped"
    return "; ".join(definition.check_masks(x, tau, masks))


def _conv_problem(emulator, case, rng):
    dtype = np.float16 if case.half else np.float32
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (case.x, case.w, case.w[:1]))
    masks = _masks(rng, case)
    frame, channel, feature = masks
    kept = frame[:, None, :, None, None] & channel[:, :, None, None, None] & feature[:, None, None]
    if "long" in case.name:
        x, w = np.abs(x), np.abs(w)
    if case.nan:
        x[0, 1, 0, 2, 2] = np.nan
    z = None
    if case.with_z:
        z = rng.standard_normal(definition.gated_conv3d(x, w, b, *masks, **case.attributes).shape).astype(dtype)
    expected = definition.reference(x, w, b, *masks, z=z, minimum=case.minimum,
                                    eps=np.finfo(np.float16).eps if case.half else None, **case.attributes)
    for _ in range(2):    # two orders of the threads
        result = emulated_cuda.gated_conv3d(emulator, np.where(kept, x, dtype(np.nan)), w, b, masks, z=z,
                                            minimum=case.minimum, **case.how, **case.attributes)
        problems = definition.check_output(result.y, expected)
        if problems:
            return problems[0]
    return None


def problem(emulator, case):
    """What is wrong with an emulator's answer to a case; None or "" where nothing is."""
    rng = np.random.default_rng(len(case.name))
    try:
        return (_conv_problem if case.w else _gate_problem)(emulator, case, rng)
    except AssertionError as failure:
        return str(failure)
