"""Checkpoint -> bundle: emit the graphs, climb the parity ladder, write the folder whole or not at all."""

from __future__ import annotations

import io
import platform
from pathlib import Path
from typing import Any, Callable

import numpy as np
import onnx
import onnxruntime
import torch

import dance_deploy
from dance_deploy import profiles
from dance_deploy.bundle import Bundle, write_bundle
from dance_deploy.export.graphs import graphs_from_model
from dance_deploy.export.parity import RungRun, ladder
from dance_deploy.geometry import Conv3dGeometry
from dance_deploy.manifest import CONTROLLER_KERNELS
from dance_deploy.method.checkpoint import Checkpoint, model_from_checkpoint
from dance_deploy.method.surgery import GatedModel
from dance_deploy.ops.definition import GateMasks
from dance_deploy.runtime.kernels import library_path
from dance_deploy.video import normalize

PROBE_BUDGET = 0.5  # where the default budget keeps everything, masks are compared at this one


def bundle_from_checkpoint(checkpoint: Checkpoint, folder: Path, *, profile: str = profiles.DEFAULT,
                           own: str | None = None,
                           progress: Callable[[str], None] = lambda step: None) -> Bundle:
    """Export, verify and write; returns the bundle, opened.

    own: as in model_from_checkpoint. progress is called with the name of each step as it begins.
    Raises InputError where the checkpoint or the model cannot be exported, OperationError where a parity check fails
    or writing does; the folder then stays as it was.
    """
    target = profiles.load(profile)
    progress("building the graphs")
    model = model_from_checkpoint(checkpoint, own)
    graphs = graphs_from_model(model, target)
    clips = [normalize(frames, checkpoint.clip) for frames in checkpoint.samples.numpy()]
    budget = checkpoint.default_budget if checkpoint.default_budget < 1.0 else PROBE_BUDGET
    runs = ladder(model, graphs, clips, budget, library_path(), progress)
    if not target.functions:
        # the rung that needs them is climbed; the device's own parser knows plugins only
        del graphs.body.functions[:]
    progress("writing the bundle")
    files = {
        "controller.onnx": graphs.controller.SerializeToString(),
        "body.onnx": graphs.body.SerializeToString(),
        "body_masks.onnxpart": graphs.mask_outputs().SerializePartialToString(),
        "dense.onnx": graphs.dense.SerializeToString(),
        "golden.npz": _golden(clips[0], budget, runs[0], _masks_by_gate(graphs.layers, runs[0])),
    }
    if graphs.controller_kernels is not None:
        files[CONTROLLER_KERNELS] = graphs.controller_kernels.SerializeToString()
    return write_bundle(folder, _manifest(checkpoint, model, target), files)


def _masks_by_gate(layers: list[Any], run: RungRun) -> list[GateMasks]:
    return list({layer.gate: at.masks for layer, at in zip(layers, run.layers)}.values())


def _golden(clip: np.ndarray, budget: float, run: RungRun, masks: list[GateMasks]) -> bytes:
    arrays: dict[str, Any] = {"clip": clip, "budget": np.array([budget], np.float32), "stem": run.stem, "tau": run.tau,
              "logits": run.logits, "kept": np.array([[m.sum() for m in gate] for gate in masks], np.int64)}
    for i, gate in enumerate(masks):
        arrays.update({f"gate{i}_{kind}": mask for kind, mask in gate._asdict().items()})
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _manifest(checkpoint: Checkpoint, model: GatedModel, target: profiles.Profile) -> dict[str, Any]:
    plan = model.plan
    controller = model.controller
    numbers = sum(p.numel() for p in controller.parameters()) + int(np.prod(plan.stem_shape))
    return {
        "model": {"name": checkpoint.arch, "labels": list(checkpoint.labels), "trained": checkpoint.trained},
        "clip": {k: list(v) if isinstance(v, tuple) else v for k, v in checkpoint.clip._asdict().items()}
        | {"layout": "NCTHW"},
        "budget": {"default": checkpoint.default_budget, "reached": checkpoint.reached},
        "gates": [{"name": site.name, "input": list(site.input_shape),
                   "convs": [_conv(plan.geometries[name]) for name in site.convs]} for site in plan.sites],
        "ungated": {"convs": [{**_conv(g), "in_channels": g.in_channels, "in_size": list(g.in_size)}
                              for name, g in plan.geometries.items() if name not in plan.gated],
                    "linear_macs": plan.linear.macs, "linear_bytes": plan.linear.bytes},
        "controller": {"macs": controller.macs(plan.stem_shape), "bytes": 4 * numbers},
        "profile": target.name,
        "tools": {"dance_deploy": dance_deploy.__version__, "python": platform.python_version(),
                  "torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__,
                  "opset": target.opset, "ir_version": target.ir_version},
    }


def _conv(g: Conv3dGeometry) -> dict[str, Any]:
    return {"name": g.name, "out_channels": g.out_channels, "kernel": list(g.kernel), "strides": list(g.strides),
            "pads": list(g.pads), "dilations": list(g.dilations), "group": g.group}
