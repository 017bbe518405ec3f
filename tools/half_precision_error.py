#!/usr/bin/env python3
"""How far half precision takes a network's results: computed on a CPU, as engines for --precision fp16 would round.

    dance-export CHECKPOINT --profile desktop-gpu -o BUNDLE
    python tools/half_precision_error.py BUNDLE ... [--noise 1.5e-3]

Inputs, weights and stored activations are rounded to float16, sums are float32: what is unavoidable. --noise adds an
error of that share of each convolution's norm, as half sums make (kernels/cuda/README.md: 1.0e-3 direct, 1.5e-3
Winograd). On the golden clip; printed are norm of the difference over the norm, and largest difference over the
range. The limits for half precision in dance_deploy/runtime/selftest.py rest on it.
"""
import argparse
import os

import numpy as np
import torch
from onnx import load_from_string
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from dance_deploy.bundle import open_bundle
from dance_deploy.ops import definition, names
from dance_deploy.runtime import selftest
from dance_deploy.runtime.trt import graph_edit
from dance_deploy.runtime.trt.onnx_file import Model

NOISE = {"share": 0.0, "rng": None}


def convolved(x, w, b, strides, pads, dilations, group):
    """Float32 sums of what was rounded, noise added, rounded again to x's type."""
    tensors = [torch.from_numpy(np.array(a, np.float32)) for a in (x, w, b)]
    padded = torch.nn.functional.pad(tensors[0], [pads[i] for i in (2, 5, 1, 4, 0, 3)])
    y = torch.nn.functional.conv3d(padded, tensors[1], None, strides, 0, dilations, group).numpy()
    if x.dtype == np.float16 and NOISE["share"]:
        scale = NOISE["share"] * np.sqrt(np.mean(np.square(y)))
        y = y + scale * NOISE["rng"].standard_normal(y.shape, np.float32)
    return y + np.asarray(b, np.float32)[:, None, None, None]


class Conv(OpRun):
    def _run(self, x, w, b, auto_pad=None, dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
        return (convolved(x, w, b, strides, pads, dilations, group).astype(x.dtype),)


class ActivationGate(OpRun):
    op_domain = names.DOMAIN

    def _run(self, x, tau, **_):
        return tuple(definition.activation_gate(np.asarray(x, np.float32), tau))


class GatedConv3d(OpRun):
    op_domain = names.DOMAIN

    def _run(self, x, w, b, frame, channel, feature, z=None, strides=None, pads=None, dilations=None, group=None,
             min=None, **_):
        kept = x * frame[:, None, :, None, None] * channel[:, :, None, None, None] * feature[:, None, None]
        y = convolved(kept.astype(x.dtype), w, b, strides, pads, dilations, group)
        y = y if z is None else y + np.asarray(z, np.float32)
        return (np.maximum(y, names.MIN_DEFAULT if min is None else min).astype(x.dtype),)


class GatedConv3dAdd(GatedConv3d):
    pass


def run(data, feeds, half, pinned=()):
    """{output: array} of a graph, as it is or in half precision."""
    model = Model(data)
    model.functions.clear()
    if half:
        graph_edit.to_half(model, pinned)
    parsed = load_from_string(model.to_bytes())
    evaluator = ReferenceEvaluator(parsed, new_ops=[Conv, ActivationGate, GatedConv3d, GatedConv3dAdd])
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds)))


def off(half, exact):
    """(norm of the difference over the norm, largest difference over the range)."""
    difference = np.asarray(half, np.float64) - exact
    return np.linalg.norm(difference) / np.linalg.norm(exact), np.abs(difference).max() / (np.ptp(exact) or 1.0)


def figures(bundle):
    """({what: off()}, share of the masks' entries that differ, how many they are)."""
    golden = selftest.golden_from_bundle(bundle)
    body = bundle.read("body.onnx") + bundle.read("body_masks.onnxpart")
    controller, dense = bundle.read("controller.onnx"), bundle.read("dense.onnx")
    behind = graph_edit.behind_stem(Model(controller))
    feeds = {"clip": golden.clip, "budget": np.array([golden.budget], np.float32)}
    exact, half = (run(controller, feeds, wanted, behind) for wanted in (False, True))
    found = {name: off(half[name], exact[name]) for name in ("stem", "tau")}
    half, exact = (run(dense, {"clip": golden.clip}, wanted)["logits"] for wanted in (True, False))
    found["dense"] = off(half, exact)
    everything = {"stem": golden.stem, "tau": np.zeros_like(golden.tau)}
    found["all kept"] = off(run(body, everything, True)["logits"], exact)
    half, exact = (run(body, {"stem": golden.stem, "tau": golden.tau}, wanted) for wanted in (True, False))
    found["gated"] = off(half["logits"], exact["logits"])
    masks = [name for name in exact if name.endswith("_keep")]
    different = sum(int((half[name] != exact[name]).sum()) for name in masks)
    return found, different / sum(exact[name].size for name in masks), different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--noise", type=float, default=0.0)
    args = parser.parse_args()
    NOISE["share"] = args.noise
    print("| network | stem | tau | logits: dense | all kept | gated | masks that differ |\n" + "| --- " * 7 + "|")
    for path in args.bundles:
        NOISE["rng"] = np.random.default_rng(0)
        found, share, count = figures(open_bundle(path))
        cells = " | ".join("{:.1e}, {:.1e}".format(*pair) for pair in found.values())
        print(f"| {os.path.basename(path.rstrip('/'))} | {cells} | {share:.1e} ({count}) |", flush=True)


if __name__ == "__main__":
    main()
