"""dance-bench: speed against real peers, in one run, as ratios."""
import sys
from pathlib import Path
from typing import Optional

import typer

from dance_deploy.cli.entry import MAX_THREADS, run
from dance_deploy.errors import InputError

OLDEST_PYTHON = (3, 10)  # of dance_deploy/bench, which no board's own Python need run

app = typer.Typer(add_completion=False, help="Speed against real peers, in one run, as ratios.")


@app.callback()
def bench() -> None:
    """Speed against real peers, in one run, as ratios."""
    if sys.version_info < OLDEST_PYTHON:
        raise InputError("dance-bench needs Python {}.{} or newer, this is {}.{}; run it with a newer one".format(
            *OLDEST_PYTHON, *sys.version_info[:2]))


@app.command()
def model(
    bundle: Path = typer.Argument(..., metavar="BUNDLE", help="The folder that dance-export wrote."),
    against: str = typer.Option("onnxruntime", metavar="LIST", help="Dense peers, joined by commas: onnxruntime, "
                                "torch, openvino, each with dense.onnx's weights; ungated: our own kernels without "
                                "gates."),
    budget: Optional[float] = typer.Option(None, help="Share of MACs to aim at (default: the bundle's)."),
    force_keep: Optional[str] = typer.Option(None, metavar="KIND=RATE,...", help="Keep these shares at every gate "
                                             "instead of what the gates decide, such as "
                                             "frames=0.5,channels=0.5,features=0.5."),
    pattern: str = typer.Option("blob", help="Which features --force-keep keeps: one blob, or random ones."),
    threads: int = typer.Option(1, min=1, max=MAX_THREADS, help="Threads of every peer."),
    rounds: int = typer.Option(7, min=3, help="How often the peers take turns."),
    runs: int = typer.Option(5, min=1, help="Runs of a peer in its turn."),
    seed: int = typer.Option(0, min=0, help="Seed of the forced masks."),
    precision: str = typer.Option("fp32", help="fp32, or bf16 for us and every peer that has it, with the accuracy "
                                  "shown beside the times."),
    videos: str = typer.Option("", metavar="LIST", help="With --precision bf16: files or folders whose windows are "
                               "run in float32 too, to count how often the label stays the same."),
    json_file: Optional[Path] = typer.Option(None, "--json", metavar="FILE", help="Write the figures as JSON."),
) -> None:
    """Time a bundle's golden clip, gated and with everything kept, against dense runtimes.

    Every peer has a process of its own; they take turns, and ratios are formed within a turn. Gates and controller are
    part of our time. 'dance, all kept' shows what our kernels gain without pruning, so that the two are not mixed up.
    """
    from dance_deploy.bench.command import run_model_bench

    run_model_bench(bundle, against, budget=budget, force_keep=force_keep, pattern=pattern, threads=threads,
                    rounds=rounds, runs=runs, seed=seed, precision=precision, videos=videos, json_file=json_file)


@app.command()
def kernels(
    arch: str = typer.Option("", metavar="LIST", help="Layers of these architectures, joined by commas (default: named "
                             "layers of R3D-18: stem, L1, L2s, L2, L3s, L3, L4s, L4)."),
    layers: str = typer.Option("", metavar="LIST", help="Only these layers: names as in the table, or their beginning "
                               "up to a dot."),
    backend: str = typer.Option("cpu", help="Whose kernels: cpu, or cuda (an NVIDIA GPU, torch with CUDA)."),
    against: Optional[str] = typer.Option(None, metavar="LIST", help="Dense peers, joined by commas: onnxruntime "
                                          "(default), torch, openvino; with --backend cuda: cudnn, cudnn2d (both)."),
    threads: int = typer.Option(1, min=1, max=MAX_THREADS, help="Threads of every peer."),
    rounds: int = typer.Option(5, min=3, help="How often the peers take turns."),
    runs: int = typer.Option(5, min=1, help="Runs of a peer in its turn."),
    seed: int = typer.Option(0, min=0, help="Seed of weights, inputs and masks."),
    cpu_time: bool = typer.Option(False, "--cpu-time", help="Count the processor's time instead of the clock's: "
                                  "steadier where other work runs. One thread only."),
    json_file: Optional[Path] = typer.Option(None, "--json", metavar="FILE", help="Write the figures as JSON."),
    plot: Optional[Path] = typer.Option(None, metavar="FILE", help="Draw time against kept MACs, as PNG."),
) -> None:
    """Time our convolution layer by layer, at keep rates from 100 to 25 %, against dense runtimes.

    Masks keep a share of the frames, the channels, the pixels (one blob, or random ones), or of all three. Shown are
    ratios to the fastest dense peer, to our own dense time, and the break-even keep rate of each layer.
    """
    from dance_deploy.bench.command import run_kernel_bench

    run_kernel_bench(arch, layers, against, backend=backend, threads=threads, rounds=rounds, runs=runs, seed=seed,
                     cpu_time=cpu_time, json_file=json_file, plot=plot)


@app.command()
def tune(
    precision: str = typer.Option("fp32", help="Of the sessions to tune for: fp32, or bf16 where the processor has "
                                  "it."),
    threads: int = typer.Option(1, min=1, max=MAX_THREADS, help="Threads to measure with. What is found serves any "
                                "number of threads."),
    quick: bool = typer.Option(False, "--quick", help="Fewer masks and rounds: a few seconds."),
    seed: int = typer.Option(0, min=0, help="Seed of weights, inputs and masks."),
    json_file: Optional[Path] = typer.Option(None, "--json", metavar="FILE", help="Write the figures as JSON."),
) -> None:
    """Find the costs by which the CPU kernels choose a variant (direct, Winograd) best on this machine.

    Times all variants on small layers, fits the costs, and checks on other masks and layers whether these choose
    better than the built-in ones. Only then they are written to a file in your cache folder, which dance-run reads
    from then on.
    """
    from dance_deploy.bench.tune.command import run_tune

    run_tune(precision=precision, threads=threads, quick=quick, seed=seed, json_file=json_file)


@app.command()
def predict(
    bundle: Path = typer.Argument(..., metavar="BUNDLE", help="The folder that dance-export wrote."),
    profile: str = typer.Option(..., help="The device: a name from profiles/, such as jetson-nano."),
    budget: Optional[float] = typer.Option(None, help="Share of MACs to reach with equal keep rates at all gates "
                                           "(default: the bundle's)."),
    by: str = typer.Option("features", metavar="KIND,...", help="What --budget drops: frames, channels, features."),
    keep: Optional[str] = typer.Option(None, metavar="KIND=RATE,...", help="Keep these shares at every gate, such as "
                                       "frames=0.5,channels=0.5."),
    golden: bool = typer.Option(False, "--golden", help="Keep what the gates kept of the bundle's golden clip."),
    pattern: str = typer.Option("blob", help="Which features are kept: one blob, or random ones."),
    seed: int = typer.Option(0, min=0, help="Seed of the masks."),
    precision: str = typer.Option("fp32", help="fp32 or fp16."),
    mode: Optional[int] = typer.Option(None, min=0, help="Power mode, by its nvpmodel id (default: the profile's)."),
    json_file: Optional[Path] = typer.Option(None, "--json", metavar="FILE", help="Write the figures as JSON."),
    plot: Optional[Path] = typer.Option(None, metavar="FILE", help="Draw roofs and layers as a PNG."),
) -> None:
    """Predict a bundle's latency and energy on a device that is not at hand. Nothing is measured.

    MACs and bytes of every layer are counted exactly; times come from the device's peak rates (roofline) and, for
    Maxwell and Pascal GPUs, from an estimate of how much of the peaks our kernels and a library's reach.
    """
    from dance_deploy.bench.predict.command import run_predict

    run_predict(bundle, profile, budget=budget, keep=keep, golden=golden, by=by, pattern=pattern, seed=seed,
                precision=precision, mode=mode, json_file=json_file, plot=plot)


def main() -> None:
    """Entry point of dance-bench."""
    run(app)


if __name__ == "__main__":
    main()
