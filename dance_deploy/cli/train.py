"""dance-train: labelled videos become a gated network and its controller, in one checkpoint."""
import os
from pathlib import Path
from typing import Optional

import typer

from dance_deploy.cli.entry import MAX_THREADS, run

app = typer.Typer(add_completion=False)


@app.command()
def train(
    data: str = typer.Option(..., metavar="DIR|CSV|rendered", help="A folder of class folders, a CSV file with the "
                             "columns path,label[,split], or 'rendered': moving shapes that need no files."),
    out: Path = typer.Option(..., "-o", "--output", metavar="CKPT", help="The checkpoint to write; one that stands "
                             "there is replaced once the new one is complete. State, metrics and pictures go to a "
                             "folder beside it: small.pt, small.train."),
    arch: str = typer.Option("small", metavar="NAME", help="small, c3d, r3d18, mc3_18, r2plus1d18 or x3d_s; or "
                             "FILE.py:FUNCTION, a function of yours that gets the number of classes and returns the "
                             "torch module."),
    target_macs: Optional[float] = typer.Option(None, metavar="SHARE", help="Share of the dense MACs that dance-run "
                                                "aims at where it is not told.  [default: 0.5]"),
    init: Optional[Path] = typer.Option(None, metavar="WEIGHTS", help="Start from these weights of a plain model."),
    epochs_dense: Optional[int] = typer.Option(None, metavar="N", help="Epochs without gates.  [default: by the "
                                               "number of clips, 30 to 100; 0 with --init skips them]"),
    static_share: Optional[float] = typer.Option(None, metavar="SHARE", help="First prune channels for good, until "
                                                 "this share of the MACs is left; the gates save on what remains."),
    static_by: Optional[str] = typer.Option(None, metavar="SCORE", help="Prune the channels of the smallest batch-"
                                            "norm scale (bn) or filter (magnitude).  [default: bn]"),
    static_allocation: Optional[str] = typer.Option(None, metavar="HOW", help="One threshold for all layers (global), "
                                                    "or the same share of each (uniform).  [default: global]"),
    static_scope: Optional[str] = typer.Option(None, metavar="SCOPE", help="Channels inside of blocks (inner), or "
                                               "those that additions join as well (all).  [default: inner]"),
    epochs_static: Optional[int] = typer.Option(None, metavar="N", help="Epochs of fine-tuning after static "
                                                "pruning.  [default: by the number of clips, 12 to 40]"),
    epochs_ava: Optional[int] = typer.Option(None, metavar="N", help="Epochs that spread the magnitudes.  [default: "
                                             "by the number of clips, 4 to 10]"),
    epochs_aap: Optional[int] = typer.Option(None, metavar="N", help="Epochs with gates.  [default: by the number of "
                                             "clips, 20 to 50]"),
    kinds: Optional[str] = typer.Option(None, metavar="LIST", help="What may be pruned: frames, channels, features, "
                                        "joined by commas.  [default: frames,features]"),
    seed: Optional[int] = typer.Option(None, help="The same seed gives the same result.  [default: 0]"),
    batch: Optional[int] = typer.Option(None, metavar="CLIPS", help="Clips in a step.  [default: 10]"),
    windows: Optional[int] = typer.Option(None, metavar="N", help="Windows of each video in an epoch.  "
                                         "[default: 1; up to 4 where there are less than 100 clips]"),
    lr: Optional[float] = typer.Option(None, help="Peak learning rate of the dense phase; that of the network in all "
                               "later ones is half of it.  [default: 0.002]"),
    lr_controller: Optional[float] = typer.Option(None, help="Peak learning rate of the controller.  [default: 0.003]"),
    flip: Optional[bool] = typer.Option(None, "--flip/--no-flip", help="Mirror every second clip.  [default: yes, but "
                                        "not where a label names a direction]"),
    clip: Optional[str] = typer.Option(None, metavar="TxHxW", help="Frames, height and width of a clip.  [default: "
                                       "the architecture's]"),
    clip_stride: Optional[int] = typer.Option(None, metavar="N", help="Take every Nth frame of a video.  [default: the "
                                              "architecture's]"),
    split_dir: Optional[Path] = typer.Option(None, metavar="DIR", help="Where the split files are, those of UCF101 and "
                                             "HMDB51 included.  [default: splits, in the folder of --data]"),
    fold: Optional[str] = typer.Option(None, metavar="NAME", help="Prefix of the split files to use, NAME_train.txt; "
                                       "of UCF101 and HMDB51, the number of the split."),
    render_dir: Optional[Path] = typer.Option(None, metavar="DIR", help="Where --data rendered puts its videos.  "
                                              "[default: rendered, beside the checkpoint]"),
    render_clips: Optional[int] = typer.Option(None, metavar="N", help="Videos per class of --data rendered.  "
                                               "[default: 20]"),
    skip_unreadable: bool = typer.Option(False, "--skip-unreadable", help="Leave out videos that cannot be decoded."),
    device: Optional[str] = typer.Option(None, metavar="NAME", help="cpu or cuda.  [default: cuda where there is one]"),
    precision: Optional[str] = typer.Option(None, metavar="NAME", help="float32 or bfloat16, of training steps on a "
                                            "GPU.  [default: bfloat16 where the GPU multiplies in it]"),
    threads: Optional[int] = typer.Option(None, min=1, max=MAX_THREADS, metavar="N",
                                          help="CPU threads.  [default: all cores]"),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted run; start where there is none."),
    restart: bool = typer.Option(False, "--restart", help="Forget an interrupted run and begin again."),
    json_path: Optional[str] = typer.Option(None, "--json", metavar="FILE", help="Write the scores as one JSON object; "
                                            "'-' is stdout."),
) -> None:
    """Train a network to spend less on easy clips.

    Three phases: dense training; AVA, which spreads the magnitudes of frames, channels and features; AAP, which learns
    gates and the controller that sets their thresholds for the share of MACs asked for. Interrupted, it goes on with
    --resume.
    """
    # waiting threads spin by default: beside other work on the machine, two of them are then slower than one
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dance_deploy.cli import train_text
    from dance_deploy.method.training.command import Options, train_from_options

    options = Options(
        data=data, out=out, arch=arch, init=init, resume=resume, restart=restart, clip=clip, clip_stride=clip_stride,
        split_dir=split_dir, fold=fold, render_dir=render_dir, render_clips=render_clips,
        skip_unreadable=skip_unreadable, device=device, threads=threads, flip=flip, kinds=kinds,
        settings={"target_macs": target_macs, "epochs_dense": epochs_dense, "epochs_static": epochs_static,
                  "static_share": static_share, "static_by": static_by, "static_allocation": static_allocation,
                  "static_scope": static_scope, "epochs_ava": epochs_ava,
                  "epochs_aap": epochs_aap, "seed": seed, "batch": batch, "precision": precision, "windows": windows,
                  "lr_dense": lr, **dict.fromkeys(("lr_static", "lr_ava", "lr_aap"), None if lr is None else lr / 2),
                  "lr_controller": lr_controller})
    train_text.check_json(json_path, out)
    reporter = train_text.reporter()
    try:
        with reporter:
            outcome = train_from_options(options, reporter)
    except KeyboardInterrupt:
        raise typer.Exit(train_text.interrupted(out)) from None
    train_text.show(outcome, json_path)


def main() -> None:
    """Entry point of dance-train."""
    run(app)


if __name__ == "__main__":
    main()
