"""A small gated network with every layer kind that matters to the exporter, and clips to run it on."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dance_deploy.geometry import ClipSpec
from dance_deploy.method.surgery import gate_model

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # importlib mode adds no folder to the path
from export_nets import randomize_norms, threshold  # noqa: E402

SPEC = ClipSpec(frames=6, stride=1, resize=(20, 24), size=(20, 24), mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


class Block(nn.Module):
    """A residual block with a 1x1x1 shortcut, its add in front or behind as asked."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv3d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width),
                                   nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv3d(width, width, 3, 1, 1, bias=False), nn.BatchNorm3d(width))
        self.shortcut = nn.Sequential(nn.Conv3d(channels, width, 1, stride), nn.BatchNorm3d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same as ResNet's basic block."""
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class TinyNet(nn.Module):
    """Stem, two residual blocks, a grouped convolution, pooling, a head with most of the functions we lower."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, (3, 5, 5), (1, 2, 2), (1, 2, 2)), nn.BatchNorm3d(8), nn.ReLU())
        self.block1 = Block(8, 8, 1)
        self.block2 = Block(8, 16, 2)
        self.grouped = nn.Conv3d(16, 16, (1, 3, 3), padding="same", groups=4)
        self.norm = nn.BatchNorm3d(16)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes]."""
        x = self.block2(self.block1(self.stem(x)))
        x = torch.sigmoid(x) * x
        x = self.pool(self.norm(nn.functional.silu(self.grouped(x)) - 0.5))
        return self.head(nn.functional.adaptive_avg_pool3d(x, 1).flatten(1))


@pytest.fixture
def gated():
    """TinyNet gated, in eval mode, thresholds that drop a good part."""
    torch.manual_seed(0)
    net = TinyNet()
    randomize_norms(net)
    return threshold(gate_model(net, SPEC.shape), 0.4).eval()


@pytest.fixture
def clips():
    """Two clips [1, 3, T, H, W] whose active region differs."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(2):
        clip = rng.standard_normal(SPEC.shape).astype(np.float32) * 0.3
        clip[..., 4 + 6 * i:12 + 6 * i, 3:12] += 1.5
        made.append(clip)
    return made
