"""Draw what a bundle keeps of videos: python -m dance_deploy.cli.kept_maps BUNDLE VIDEO [VIDEO...] -o kept.png"""
from pathlib import Path
from typing import List, Optional

import typer

from dance_deploy.cli.entry import run

app = typer.Typer(add_completion=False)


@app.command()
def draw(
    bundle: Path = typer.Argument(..., metavar="BUNDLE", help="The folder that dance-export wrote."),
    videos: List[str] = typer.Argument(..., metavar="VIDEO...", help="The middle window of each is drawn."),
    output: Path = typer.Option(..., "-o", "--output", metavar="PNG", help="The picture to write."),
    budget: Optional[float] = typer.Option(None, help="Share of MACs to aim at (default: the bundle's)."),
    gate: int = typer.Option(0, min=0, help="Number of the gate to draw, 0 being the first."),
) -> None:
    """Draw kept frames and features of one gate over each video's frames, beside the MACs of every gated layer."""
    from dance_deploy.files import check_writable
    from dance_deploy.report.kept_maps import draw_kept_maps

    check_writable(output, "--output")
    draw_kept_maps(bundle, videos, output, budget=budget, gate=gate)


if __name__ == "__main__":
    run(app)
