"""dance-export: a checkpoint, or a named architecture with random weights, becomes a verified bundle."""
from pathlib import Path
from typing import Optional

import typer

from dance_deploy.cli.entry import MAX_THREADS, run

app = typer.Typer(add_completion=False)


@app.command()
def export(
    source: str = typer.Argument(..., metavar="CKPT|ARCH", help="A checkpoint of dance-train; with --untrained the "
                                 "name of an architecture: small, c3d, r3d18, mc3_18, r2plus1d18, x3d_s, or "
                                 "FILE.py:FUNCTION."),
    output: Path = typer.Option(..., "-o", "--output", metavar="BUNDLE", help="The folder to write; a bundle that "
                                "stands there is replaced once the new one is complete and verified."),
    untrained: bool = typer.Option(False, "--untrained", help="Export an architecture with random weights, for "
                                   "benchmarks and parity checks."),
    profile: Optional[str] = typer.Option(None, help="The device profile to export for. (default: cpu)"),
    seed: int = typer.Option(0, help="Seed of the random weights, with --untrained."),
    classes: Optional[int] = typer.Option(None, min=1, help="Number of classes, with --untrained. (default: 400)"),
    arch: Optional[str] = typer.Option(None, metavar="FILE.py:FUNCTION", help="For a checkpoint of a network of your "
                                       "own: the function that builds it, as it was given to dance-train."),
    threads: Optional[int] = typer.Option(None, min=1, max=MAX_THREADS,
                                          help="Threads for the parity checks. (default: all cores)"),
) -> None:
    """Write a bundle and verify it.

    Every gated layer is compared on the way, values and masks: torch, the definition of the ops in numpy, ONNX Runtime
    with the functions inside the file, ONNX Runtime with the compiled op library. Where two part, nothing is written.
    """
    from dance_deploy.export.command import export_bundle

    export_bundle(source, output, untrained=untrained, profile=profile, seed=seed, classes=classes, threads=threads,
                  arch=arch)


def main() -> None:
    """Entry point of dance-export."""
    run(app)


if __name__ == "__main__":
    main()
