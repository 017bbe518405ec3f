#!/usr/bin/env python3
"""Build engines of named architectures with TensorRT, without running them, and compare shapes with the graphs'.

    python tools/tensorrt_build_check.py [ARCH ...] [--profile NAME] [--sm 8.0] [--precision fp32|fp16]
                                            [--plugin LIBRARY]

Without --plugin the dance ops are inlined, as `dance-export BUNDLE --engine --no-plugin` does. TensorRT-RTX (pip
install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings) needs no GPU for it; the plugin built for the host (make -C
kernels/trt host) serves as well as the real one, because nothing is run.
"""
import argparse
import time

from dance_deploy import models, profiles
from dance_deploy.export.graphs import graphs_from_model
from dance_deploy.export.untrained import untrained_checkpoint
from dance_deploy.method.checkpoint import model_from_checkpoint
from dance_deploy.runtime.trt import api as trt_api
from dance_deploy.runtime.trt import build, graph_edit
from dance_deploy.runtime.trt.onnx_file import Model


def graphs_of(arch, profile):
    """{graph: bytes} of an architecture with random weights, the body with its masks as outputs.

    profile: name of one whose body has channels first and carries functions.
    """
    model = model_from_checkpoint(untrained_checkpoint(arch))
    graphs = graphs_from_model(model, profiles.load(profile))
    body = graphs.body.SerializeToString() + graphs.mask_outputs().SerializePartialToString()
    return {"controller": graphs.controller.SerializeToString(), "body": body,
            "dense": graphs.dense.SerializeToString()}


def built(api, data, what, capability, precision, plugin):
    """(Built, seconds); raises OperationError where TensorRT refuses or makes other shapes."""
    model = Model(data)
    if plugin is None:
        graph_edit.inline_functions(model)
    if precision == "fp16":
        graph_edit.to_half(model)
    graph_edit.drop_unused_weights(model)
    started = time.time()
    made = api.build(model.to_bytes(), what, trt_api.Settings(1 << 30, precision, compute_capability=capability))
    build.check_shapes(model, made, what)
    return made, time.time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archs", nargs="*", metavar="ARCH", default=sorted(models.ARCHITECTURES))
    parser.add_argument("--profile", default="desktop-gpu")
    parser.add_argument("--sm", default="8.0")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--plugin", metavar="LIBRARY")
    args = parser.parse_args()
    api = trt_api.find(trt_api.RTX)
    if args.plugin is not None:
        api.load_plugin(args.plugin)
    capability = tuple(int(part) for part in args.sm.split("."))
    print("TensorRT-RTX {}, profile {}, compute capability {}, {}, {}".format(
        api.version_text, args.profile, args.sm, args.precision,
        "no plugin" if args.plugin is None else "plugin " + args.plugin))
    print("| network | graph | outputs compared | layers | engine | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for arch in args.archs:
        for graph, data in graphs_of(arch, args.profile).items():
            made, seconds = built(api, data, graph, capability, args.precision, args.plugin)
            outputs = sum(not tensor.is_input for tensor in made.tensors)
            print("| {} | {} | {} | {} | {:.1f} MB | {:.1f} |".format(
                arch, graph, outputs, made.layers, len(made.plan) / 1e6, seconds), flush=True)


if __name__ == "__main__":
    main()
