"""The CUDA kernels on the host: kernels/cuda's emulator as a process that answers requests, sanitizers on."""
import atexit
import os
import shutil
import struct
import subprocess
import tempfile

import numpy as np
import pytest

from dance_deploy.ops import names

CUDA = os.path.join(os.path.dirname(__file__), "..", "..", "kernels", "cuda")
AUTOMATIC, DIRECT, WINOGRAD, DEPTHWISE, PLAIN = range(5)
OK, BAD_SHAPE, TOO_LARGE, UNSUPPORTED = range(4)


class Emulator:
    """One running emulator. A crash, a sanitizer's finding or a missed barrier ends it; `ask` fails with its words."""

    def __init__(self, path):
        self.path, self.seed, self.errors, self.process = path, 0, None, None
        self.fmas = 0    # multiply-adds of the last request, those of the tiles only

    def _start(self):
        self.errors = tempfile.TemporaryFile()
        environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0:abort_on_error=0")
        self.process = subprocess.Popen([self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        env=environment)
        atexit.register(self.close)

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.errors.close()
            self.process = None

    def ask(self, op, numbers, arrays, tail=b""):
        """(status, launches, algorithm, variant, result bytes)."""
        if self.process is None:
            self._start()
        self.seed += 1
        head = struct.pack(f"<{len(numbers) + 2}q", op, self.seed, *(int(v) for v in numbers))
        try:
            self.process.stdin.write(head + tail + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
            self.process.stdin.flush()
            answer = self.process.stdout.read(48)
        except BrokenPipeError:
            answer = b""
        if len(answer) < 48:
            self.process.wait()
            self.errors.seek(0)
            words = self.errors.read().decode(errors="replace")
            self.process = None
            raise AssertionError("the emulator ended:\n" + words[:4000])
        status, launches, self.fmas, algorithm, name_bytes, result_bytes = struct.unpack("<6q", answer)
        variant = self.process.stdout.read(name_bytes).decode()
        return status, launches, algorithm, variant, self.process.stdout.read(result_bytes)


def build(target="emulator", **variables):
    """Path of the emulator, built where it is not; skips where there is no compiler."""
    for tool in ("make", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to compile the CUDA kernels for the host")
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run(["g++", "-std=c++14", "-march=native", "-fsanitize=address,undefined", "-x", "c++", "-",
                                "-o", os.path.join(folder, "probe")], input=b"_Float16 half; int main() {}",
                               stderr=subprocess.PIPE)
    if probe.returncode:
        pytest.skip("needs a g++ with _Float16 and the sanitizers: " + probe.stderr.decode().strip().splitlines()[0])
    done = subprocess.run(["make", "-C", CUDA, target] + [f"{k}={v}" for k, v in variables.items()],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()[-4000:]
    return os.path.join(CUDA, variables.get("BUILD", "../build/cuda"), "emulate")


def to_layout(array, channels_last):
    return np.ascontiguousarray(np.transpose(array, (0, 2, 3, 4, 1))) if channels_last else np.ascontiguousarray(array)


def mask_array(mask, as_float):
    return mask.astype(np.float32) * np.float32(-0.5) if as_float else mask.astype(np.uint8) * np.uint8(3)


class Result:
    """y: [N, M, T', H', W']; launches: kernels that the call launched; algorithm, variant: what served it."""

    def __init__(self, y, launches, algorithm, variant):
        self.y, self.launches, self.algorithm, self.variant = y, launches, algorithm, variant


def request(x_shape, w_shape, dtype=np.float32, channels_last=False, float_masks=False, algorithm=AUTOMATIC,
            multiprocessors=1, with_z=False, send=True, strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1), group=1):
    """The numbers of a convolution's request."""
    return [*x_shape, w_shape[0], *w_shape[2:], *strides, *pads, *dilations, group, channels_last,
            dtype == np.float16, float_masks, algorithm, multiprocessors, with_z, send]


def serve(emulator, *args, **kwargs):
    """(status, algorithm, variant) of a geometry, nothing computed. Arguments: `request`'s."""
    numbers = request(*args, send=False, **kwargs)
    status, _, algorithm, variant, _ = emulator.ask(0, numbers, [], struct.pack("<d", names.MIN_DEFAULT))
    return status, algorithm, variant


def gated_conv3d(emulator, x, w, b, masks, z=None, minimum=names.MIN_DEFAULT, channels_last=False, float_masks=False,
                 algorithm=AUTOMATIC, multiprocessors=1, **attributes):
    """x: [N, C, T, H, W] and bool masks, converted to the layout and masks asked for. Returns Result."""
    numbers = request(x.shape, w.shape, x.dtype, channels_last, float_masks, algorithm, multiprocessors, z is not None,
                      **attributes)
    arrays = [to_layout(x, channels_last), w, b, *(mask_array(m, float_masks) for m in masks)]
    if z is not None:
        arrays.append(to_layout(z, channels_last))
    status, launches, algorithm, variant, data = emulator.ask(0, numbers, arrays, struct.pack("<d", minimum))
    assert status == OK, f"status {status}"
    strides, pads, dilations = (attributes.get(k, v) for k, v in
                                (("strides", (1, 1, 1)), ("pads", (0,) * 6), ("dilations", (1, 1, 1))))
    out = [(x.shape[2 + i] + pads[i] + pads[i + 3] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i] + 1
           for i in range(3)]
    y = np.frombuffer(data, x.dtype)
    if channels_last:
        y = np.transpose(y.reshape(x.shape[0], *out, w.shape[0]), (0, 4, 1, 2, 3))
    return Result(y.reshape(x.shape[0], w.shape[0], *out), launches, algorithm, variant)


def activation_gate(emulator, x, tau, channels_last=False, float_masks=False):
    """x: [N, C, T, H, W]. The three masks as bool arrays."""
    n, c, t, h, w = x.shape
    status, _, _, _, data = emulator.ask(1, [n, c, t, h, w, channels_last, x.dtype == np.float16, float_masks],
                                         [to_layout(x, channels_last), np.asarray(tau, np.float32)])
    assert status == OK, f"status {status}"
    values = np.frombuffer(data, np.float32 if float_masks else np.uint8)
    assert np.isin(values, (0, 1)).all(), "a mask is neither 0 nor 1"
    masks, at = [], 0
    for shape in ((n, t), (n, c), (n, h, w)):
        masks.append(values[at:at + int(np.prod(shape))].reshape(shape) != 0)
        at += int(np.prod(shape))
    return masks
