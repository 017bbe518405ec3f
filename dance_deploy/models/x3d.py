"""X3D-S: a deep narrow network of inverted bottlenecks with depthwise 3x3x3 convolutions.

Parameter names and shapes are pytorchvideo's (`create_x3d`, defaults), so that its published X3D_S.pyth loads by name.
Two of those names mislead: in the stem, `conv_t` is the convolution in space and `conv_xy` the one in time.
The head averages over all that is left instead of a fixed 13x5x5 window: the same at 13x160x160, and defined elsewhere;
the softmax that pytorchvideo puts behind it is left out.
Source: Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020 (arXiv 2004.04730).
"""
import torch
from torch import Tensor, nn

from dance_deploy.geometry import ClipSpec
from dance_deploy.models.architecture import Architecture

STEM_CHANNELS = 24
# One row a stage: blocks, channels, channels inside a block (2.25 times as many), and inside squeeze-and-excitation
STAGES = ((3, 24, 54, 8), (5, 48, 108, 8), (11, 96, 216, 16), (7, 192, 432, 32))
HEAD_CHANNELS = 2048


class Stem(nn.Module):
    """A 1x3x3 convolution of stride 2 in space, then a depthwise 5x1x1 one."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential()
        self.conv.add_module("conv_t", nn.Conv3d(3, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False))
        self.conv.add_module(
            "conv_xy", nn.Conv3d(channels, channels, (5, 1, 1), padding=(2, 0, 0), groups=channels, bias=False))
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU()

    def forward(self, clip: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(clip)))


class SqueezeExcitation(nn.Module):
    """x scaled per channel by a small network on the channels' means."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.block = nn.Sequential(
            nn.Conv3d(channels, squeezed, 1), nn.ReLU(), nn.Conv3d(squeezed, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.block(self.pool(x))


class Bottleneck(nn.Module):
    """1x1x1 up to `inner` channels, depthwise 3x3x3, squeeze-and-excitation where `squeezed` is given, 1x1x1 down."""

    def __init__(self, in_channels: int, channels: int, inner: int, *, stride: int, squeezed: int | None):
        super().__init__()
        self.conv_a = nn.Conv3d(in_channels, inner, 1, bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.act_a = nn.ReLU()
        self.conv_b = nn.Conv3d(inner, inner, 3, (1, stride, stride), padding=1, groups=inner, bias=False)
        excite = nn.Identity() if squeezed is None else SqueezeExcitation(inner, squeezed)
        self.norm_b = nn.Sequential(nn.BatchNorm3d(inner), excite)
        self.act_b = nn.SiLU()
        self.conv_c = nn.Conv3d(inner, channels, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_a(self.norm_a(self.conv_a(x)))
        x = self.act_b(self.norm_b(self.conv_b(x)))
        return self.norm_c(self.conv_c(x))


class Block(nn.Module):
    """relu(branch2(x) + shortcut(x)). A strided shortcut between equal widths has no batch norm, as published."""

    def __init__(self, in_channels: int, channels: int, inner: int, *, stride: int, squeezed: int | None):
        super().__init__()
        self.branch1_conv = self.branch1_norm = None
        if stride != 1 or in_channels != channels:
            self.branch1_conv = nn.Conv3d(in_channels, channels, 1, (1, stride, stride), bias=False)
        if in_channels != channels:
            self.branch1_norm = nn.BatchNorm3d(channels)
        self.branch2 = Bottleneck(in_channels, channels, inner, stride=stride, squeezed=squeezed)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1_conv is None else self.branch1_conv(x)
        shortcut = shortcut if self.branch1_norm is None else self.branch1_norm(shortcut)
        return self.activation(self.branch2(x) + shortcut)


class Stage(nn.Module):
    """Blocks one after the other: the first halves H and W, every second one, from the first on, has an excitation."""

    def __init__(self, in_channels: int, depth: int, channels: int, inner: int, squeezed: int):
        super().__init__()
        self.res_blocks = nn.Sequential(*(
            Block(in_channels if i == 0 else channels, channels, inner,
                  stride=2 if i == 0 else 1, squeezed=squeezed if i % 2 == 0 else None)
            for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_blocks(x)


class ProjectedPool(nn.Module):
    """1x1x1 convolution up, global average, 1x1x1 convolution to the classifier's width."""

    def __init__(self, in_channels: int, inner: int, channels: int):
        super().__init__()
        self.pre_conv = nn.Conv3d(in_channels, inner, 1, bias=False)
        self.pre_norm = nn.BatchNorm3d(inner)
        self.pre_act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.post_conv = nn.Conv3d(inner, channels, 1, bias=False)
        self.post_act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.pre_act(self.pre_norm(self.pre_conv(x))))
        return self.post_act(self.post_conv(x))


class Head(nn.Module):
    """[N, C, T, H, W] -> logits [N, classes]."""

    def __init__(self, in_channels: int, inner: int, num_classes: int):
        super().__init__()
        self.pool = ProjectedPool(in_channels, inner, HEAD_CHANNELS)
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(HEAD_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.dropout(torch.flatten(self.pool(x), 1)))


class X3DNet(nn.Module):
    """clip [N, 3, T, H, W] float32 -> logits [N, classes]; any N, T, H, W."""

    def __init__(self, num_classes: int):
        super().__init__()
        blocks: list[nn.Module] = [Stem(STEM_CHANNELS)]
        channels = STEM_CHANNELS
        for depth, width, inner, squeezed in STAGES:
            blocks.append(Stage(channels, depth, width, inner, squeezed))
            channels = width
        blocks.append(Head(channels, STAGES[-1][2], num_classes))
        self.blocks = nn.Sequential(*blocks)
        _initialize(self)

    def forward(self, clip: Tensor) -> Tensor:
        return self.blocks(clip)


def _initialize(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            # fan_in: torch counts the fan_out of a depthwise convolution C times too high
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Bottleneck):
            # 26 blocks add up: each starts as a fifth of its input, so that activations stay in range even where
            # no batch statistics were collected yet, and no branch is dead
            nn.init.constant_(module.norm_c.weight, 0.2)


# 182 is the short side that the published accuracy was measured at; 13x160x160 is the size that X3D-S is named for.
CLIP = ClipSpec(
    frames=13, stride=6, resize=(182, 243), size=(160, 160), mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))

X3D_S = Architecture("x3d_s", X3DNet, CLIP, "X3D-S: depthwise 3D convolutions in inverted bottlenecks, 2.0 G MACs")
