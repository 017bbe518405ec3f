"""What the rest of the toolchain knows of a backbone: its name, how to build it, and the clip that it reads."""
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dance_deploy.geometry import ClipSpec

# Preprocessing of torchvision's published video weights (Kinetics-400), RGB in [0, 1].
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True)
class Architecture:
    """A backbone by name.

    name:    what the command line calls it
    build:   number of classes -> module with `forward(clip [N, 3, T, H, W] float32) -> logits [N, classes]`,
             freshly initialised from torch's global CPU generator; every module of it can be traced by torch.fx
    clip:    how a clip is cut and normalised before the module reads it
    summary: one line for people
    """

    name: str
    build: Callable[[int], nn.Module]
    clip: ClipSpec
    summary: str
