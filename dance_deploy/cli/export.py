"""dance-export: a checkpoint, or a named architecture with random weights, becomes a verified bundle; and, on the
device, a bundle gets its engines."""
import os
from pathlib import Path
from typing import Optional

import typer

from dance_deploy import profiles
from dance_deploy.cli.entry import MAX_THREADS, run
from dance_deploy.errors import InputError

app = typer.Typer(add_completion=False)


@app.command()
def export(
    source: str = typer.Argument(..., metavar="CKPT|ARCH|BUNDLE", help="A checkpoint of dance-train; with --untrained "
                                 "the name of an architecture: small, c3d, r3d18, mc3_18, r2plus1d18, x3d_s, or "
                                 "FILE.py:FUNCTION; with --engine alone a bundle."),
    output: Optional[Path] = typer.Option(None, "-o", "--output", metavar="BUNDLE", help="The folder to write; a "
                                          "bundle that stands there is replaced once the new one is complete and "
                                          "verified."),
    untrained: bool = typer.Option(False, "--untrained", help="Export an architecture with random weights, for "
                                   "benchmarks and parity checks."),
    profile: Optional[str] = typer.Option(None, help="The device profile to export for. (default: cpu)"),
    seed: int = typer.Option(0, help="Seed of the random weights, with --untrained."),
    classes: Optional[int] = typer.Option(None, min=1, help="Number of classes, with --untrained. (default: 400)"),
    arch: Optional[str] = typer.Option(None, metavar="FILE.py:FUNCTION", help="For a checkpoint of a network of your "
                                       "own: the function that builds it, as it was given to dance-train."),
    threads: Optional[int] = typer.Option(None, min=1, max=MAX_THREADS,
                                          help="Threads for the parity checks. (default: all cores)"),
    engine: bool = typer.Option(False, "--engine", help="Build TensorRT engines for this machine into the bundle; "
                                "needs no torch and no onnx."),
    precision: Optional[str] = typer.Option(None, metavar="NAME", help="Of the engines: fp32 (default), tf32 or fp16, "
                                            "where layers that break in it stay in fp32."),
    measure: bool = typer.Option(True, "--measure/--no-measure", help="Time each gate and leave out those that do not "
                                 "pay on this device."),
    plugin: bool = typer.Option(True, "--plugin/--no-plugin", help="Without it the gates run as standard ops and "
                                "nothing is skipped: to check the rest."),
    workspace_mib: Optional[int] = typer.Option(None, min=1, max=1 << 20, metavar="MIB", help="Limit of TensorRT's "
                                                "scratch memory (default: from the memory that is free)."),
) -> None:
    """Write a bundle and verify it; with --engine, build its engines on the device that will run it.

    Every gated layer is compared on the way, values and masks: torch, the definition of the ops in numpy, ONNX Runtime
    with the functions inside the file, ONNX Runtime with the compiled op library. Where two part, nothing is written.
    """
    _check(source, output, engine, (precision, measure, plugin, workspace_mib), (untrained, profile, classes, arch))
    bundle = source
    if output is not None:
        from dance_deploy.export.command import export_bundle
        export_bundle(source, output, untrained=untrained, profile=profile, seed=seed, classes=classes, threads=threads,
                      arch=arch)
        bundle = str(output)
    if engine:
        from dance_deploy.runtime.trt.command import build_bundle_engines
        build_bundle_engines(bundle, precision, measure, workspace_mib, plugin)


def _check(source, output, engine, engine_options, bundle_options):
    """Raise InputError for options that make no sense together."""
    if not engine and engine_options != (None, True, True, None):
        raise InputError("--precision, --no-measure, --no-plugin and --workspace-mib say how engines are built; add "
                         "--engine")
    if output is None and not engine:
        raise InputError("no folder to write to; add -o BUNDLE, or --engine to build engines into a bundle")
    if output is None and bundle_options != (False, None, None, None):
        raise InputError("--untrained, --profile, --classes and --arch say how a bundle is written; add -o BUNDLE")
    if output is None and not os.path.isdir(source):
        raise InputError("'{}' is no bundle to build engines into; export it first: add -o BUNDLE".format(source))
    plugin, profile = engine_options[2], bundle_options[1] or profiles.DEFAULT
    if output is not None and engine and plugin and profiles.load(profile).channels_last:
        raise InputError("--engine needs a bundle for GPUs; add --profile jetson-nano (or another board's, or "
                         "desktop-gpu)")


def main() -> None:
    """Entry point of dance-export."""
    run(app)


if __name__ == "__main__":
    main()
