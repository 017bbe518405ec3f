"""Times one R3D-18 layer after the other: direct, Winograd and chosen, against ONNX Runtime's dense Conv.

    python kernels/tests/time_variants.py [--threads 2] [--rounds 7]

All take turns in one process; medians, and ratios of them within the run. Ours reads and writes [N,T,H,W,C], Conv
[N,C,T,H,W]: each its own layout. Threads are started for every call here (about 0.05 ms), as no session owns them.
"""
import argparse
import ctypes
import os
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "kernels")]
import native_kernels  # noqa: E402

LAYERS = {"L1": (64, 16, 56, 56), "L2": (128, 8, 28, 28), "L3": (256, 4, 14, 14)}    # C, T, H, W
VARIANTS = {"direct": 1, "F(2x2)": 2, "F(4x4)": 4, "chosen": 0}
MASKS = ("all", "frames 50%", "channels 50%")


def ort_conv(x, w, threads):
    """Returns a function that runs Conv once and returns its seconds."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=(1,) * 6)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")    # or it would take ours' cores
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run():
        start = time.perf_counter()
        session.run(None, {"x": x})
        return time.perf_counter() - start
    return run


def ours(lib, x, w, masks, variant, threads):
    """Seconds of the faster of two calls after a first one, weights packed ahead."""
    arrays = (x, w, np.zeros(w.shape[0], np.float32), *masks)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
    y, times = np.empty(x.shape, np.float32), np.empty((3, 2))
    n, t, h, width, c = x.shape
    conv = native_kernels.Conv(x_shape=(n, c, t, h, width), w_shape=w.shape, strides=(1,) * 3, pads=(1,) * 6,
                               dilations=(1,) * 3, group=1, channels_last=1, prepack=1, threads=threads, repeats=3,
                               variant=variant)
    assert lib.dance_gated_conv3d(ctypes.byref(conv), *pointers, None, ctypes.c_void_p(y.ctypes.data),
                                  ctypes.c_void_p(times.ctypes.data)) == 0
    return times[1:, 0].min()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    lib, rng = native_kernels.library(), np.random.default_rng(0)
    for name, (c, t, h, width) in LAYERS.items():
        x = rng.standard_normal((1, t, h, width, c)).astype(np.float32)
        w = rng.standard_normal((c, c, 3, 3, 3)).astype(np.float32)
        dense = ort_conv(native_kernels.to_layout(x.transpose(0, 4, 1, 2, 3), False), w, args.threads)
        dense()
        for kind in MASKS:
            masks = [np.ones(shape, np.uint8) for shape in ((1, t), (1, c), (1, h, width))]
            if kind != "all":
                mask = masks[MASKS.index(kind) - 1]
                mask[0, rng.permutation(mask.size)[mask.size // 2:]] = 0
            times = {key: [] for key in ("ORT Conv", *VARIANTS)}
            for _ in range(args.rounds):
                times["ORT Conv"].append(dense())
                for key, variant in VARIANTS.items():
                    times[key].append(ours(lib, x, w, masks, variant, args.threads))
            medians = {key: statistics.median(values) for key, values in times.items()}
            print(f"{name} {kind:12s} " + "  ".join(
                f"{key} {1e3 * value:6.2f} ms ({value / medians['ORT Conv']:.2f})" for key, value in medians.items()))


if __name__ == "__main__":
    main()
