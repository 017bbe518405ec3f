"""What dance-export does once its arguments are read: load, export with progress, say what came out."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from dance_deploy import models, profiles
from dance_deploy.bundle import Bundle, check_replaceable
from dance_deploy.errors import InputError
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint
from dance_deploy.export.untrained import CLASSES, untrained_checkpoint
from dance_deploy.method.checkpoint import Checkpoint, load_checkpoint
from dance_deploy.runtime.kernels import library_path


def export_bundle(source: str, output: Path, *, untrained: bool, profile: str | None, seed: int, classes: int | None,
                  threads: int | None, arch: str | None = None) -> None:
    """Export `source` to the folder `output` and print what was written; the arguments are dance-export's own."""
    started = time.monotonic()
    if threads is not None:
        torch.set_num_threads(threads)
    if untrained and arch is not None:
        raise InputError("--arch goes with a checkpoint; with --untrained the architecture itself is the argument")
    check_replaceable(os.path.realpath(output), overwrite=True)
    checkpoint = _checkpoint(source, untrained=untrained, seed=seed, classes=classes)
    if library_path() is None:
        print("warning: the compiled op library is missing, so its parity rung is left out; "
              "run: make -C kernels", file=sys.stderr)

    def progress(step: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {step}", file=sys.stderr, flush=True)

    own = source if untrained and models.is_own(source) else arch
    bundle = bundle_from_checkpoint(checkpoint, output, profile=profile or profiles.DEFAULT, own=own, progress=progress)
    _print_summary(bundle, time.monotonic() - started)


def _checkpoint(source: str, *, untrained: bool, seed: int, classes: int | None) -> Checkpoint:
    if untrained:
        return untrained_checkpoint(source, classes=classes or CLASSES, seed=seed)
    if classes is not None:
        raise InputError("--classes goes with --untrained; a checkpoint knows its own classes")
    if (source in models.ARCHITECTURES or models.is_own(source)) and not Path(source).exists():
        raise InputError(f"'{source}' is an architecture and no checkpoint; train it with dance-train, "
                         "or add --untrained for random weights")
    return load_checkpoint(Path(source))


def _print_summary(bundle: Bundle, seconds: float) -> None:
    manifest = bundle.manifest
    size_mb = sum(entry.size for entry in manifest.files.values()) / 1e6
    labels = manifest.model.labels
    weights = "" if manifest.model.trained else ", random weights"
    print(f"{bundle.path}: {manifest.model.name}{weights}, {len(labels)} classes, {len(manifest.gates)} gates, "
          f"{size_mb:.1f} MB, every gated layer verified, {seconds:.1f} s")
    for asked, reached in manifest.budget.reached:
        print(f"  budget {asked:.2f} -> {reached:.0%} of the MACs (mean over the clips it was measured on)")
    print(f"run it: dance-run {bundle.path} VIDEO")
