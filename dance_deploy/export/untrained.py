"""A checkpoint of a named architecture with random weights: for benchmarks and parity checks, not for predictions."""

from __future__ import annotations

import torch

from dance_deploy import models
from dance_deploy.data.rendered import CLASSES as MOTIONS
from dance_deploy.data.rendered import render_clip
from dance_deploy.errors import InputError
from dance_deploy.method.checkpoint import Checkpoint
from dance_deploy.method.surgery import check_classes, gate_model

SAMPLES = 2
CLASSES = 400  # as many as Kinetics-400 has, which the architectures' published weights were trained on
TAU = 0.8  # below the mean: with random weights about two thirds of the channels and half of the features stay


def untrained_checkpoint(arch: str, *, classes: int = CLASSES, seed: int = 0) -> Checkpoint:
    """Seeded random weights, one constant threshold everywhere; the samples are rendered clips.

    Raises InputError for an unknown architecture or a seed out of range.
    """
    architecture = models.get(arch)
    if not 0 <= seed < 1 << 62:
        raise InputError(f"--seed is {seed}, expected 0 or more, below 2^62")
    spec = architecture.clip
    model = gate_model(models.build(arch, classes, seed=seed), spec.shape)
    check_classes(model, classes)
    model.controller.start_at(TAU)
    clips = [render_clip(MOTIONS[i], difficulty=0.5, seed=seed + i, frames=spec.frames, size=spec.size)
             for i in range(SAMPLES)]
    return Checkpoint(arch=arch, labels=[f"class{i}" for i in range(classes)], clip=spec,
                      graph=model.graph.state_dict(), samples=torch.stack([torch.from_numpy(c) for c in clips]),
                      trained=False)
