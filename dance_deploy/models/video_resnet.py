"""R3D-18, MC3-18 and R(2+1)D-18: ResNet-18 with three kinds of 3D convolution.

Parameter names and shapes are torchvision's (`torchvision.models.video`), so that its published weights load by name.
ReLUs are not in place, unlike there: gates and saliency statistics read the tensors between the layers.
Source: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018
(arXiv 1711.11248).
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dance_deploy.geometry import ClipSpec
from dance_deploy.models.architecture import KINETICS_MEAN, KINETICS_STD, Architecture

# (in channels, out channels, middle channels, stride) -> one of the two main convolutions of a residual block
ConvMaker = Callable[[int, int, int, int], nn.Module]


def conv3x3x3(in_channels: int, out_channels: int, middle: int, stride: int) -> nn.Module:
    """A full 3D convolution; the stride holds for time and space. `middle` has no meaning here."""
    return nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x3x3(in_channels: int, out_channels: int, middle: int, stride: int) -> nn.Module:
    """A convolution in space only, which keeps every frame. `middle` has no meaning here."""
    return nn.Conv3d(in_channels, out_channels, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)


def conv2plus1d(in_channels: int, out_channels: int, middle: int, stride: int) -> nn.Module:
    """A convolution in space to `middle` channels, then one in time."""
    return nn.Sequential(
        nn.Conv3d(in_channels, middle, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(),
        nn.Conv3d(middle, out_channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
    )


def shortcut_conv(make_conv: ConvMaker, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The 1x1x1 convolution beside a block whose output has another shape than its input."""
    strides = (1, stride, stride) if make_conv is conv1x3x3 else (stride, stride, stride)
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1, stride=strides, bias=False),
        nn.BatchNorm3d(out_channels),
    )


class ResidualBlock(nn.Module):
    """relu(conv2(conv1(x)) + shortcut(x))."""

    def __init__(self, make_conv: ConvMaker, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        # As many weights as a full 3x3x3 convolution would have (section 3.5 of the paper). Both halves of the block
        # take the first one's figure: the published weights have these shapes.
        middle = in_channels * out_channels * 27 // (in_channels * 9 + 3 * out_channels)
        self.conv1 = nn.Sequential(
            make_conv(in_channels, out_channels, middle, stride), nn.BatchNorm3d(out_channels), nn.ReLU())
        self.conv2 = nn.Sequential(make_conv(out_channels, out_channels, middle, 1), nn.BatchNorm3d(out_channels))
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = shortcut_conv(make_conv, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class VideoResNet(nn.Module):
    """A stem, four stages of residual blocks, a global average and one linear layer.

    stem:   module that ends with widths[0] channels
    makers: the kind of convolution of each stage
    widths: output channels of each stage; every stage but the first halves what its convolutions stride over
    blocks: residual blocks in each stage
    forward: clip [N, 3, T, H, W] float32 -> logits [N, classes]; any N, T, H, W
    """

    def __init__(self, stem: nn.Module, makers: Sequence[ConvMaker], num_classes: int, *,
                 widths: Sequence[int] = (64, 128, 256, 512), blocks: int = 2):
        super().__init__()
        self.stem = stem
        self.layer1 = _stage(makers[0], widths[0], widths[0], stride=1, blocks=blocks)
        self.layer2 = _stage(makers[1], widths[0], widths[1], stride=2, blocks=blocks)
        self.layer3 = _stage(makers[2], widths[1], widths[2], stride=2, blocks=blocks)
        self.layer4 = _stage(makers[3], widths[2], widths[3], stride=2, blocks=blocks)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        _initialize(self)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.stem(clip)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(make_conv: ConvMaker, in_channels: int, channels: int, *, stride: int, blocks: int) -> nn.Module:
    """Residual blocks one after the other; the first one changes width and size."""
    first = ResidualBlock(make_conv, in_channels, channels, stride)
    return nn.Sequential(first, *(ResidualBlock(make_conv, channels, channels, 1) for _ in range(blocks - 1)))


def conv_bn_relu(in_channels: int, out_channels: int, kernel: tuple[int, int, int],
                 stride: tuple[int, int, int]) -> list[nn.Module]:
    """A convolution that pads to keep the size at stride 1, batch norm and ReLU, as a list for nn.Sequential."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return [
        nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(),
    ]


def _initialize(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


def _build_r3d18(num_classes: int) -> nn.Module:
    stem = nn.Sequential(*conv_bn_relu(3, 64, (3, 7, 7), (1, 2, 2)))
    return VideoResNet(stem, [conv3x3x3] * 4, num_classes)


def _build_mc3_18(num_classes: int) -> nn.Module:
    stem = nn.Sequential(*conv_bn_relu(3, 64, (3, 7, 7), (1, 2, 2)))
    return VideoResNet(stem, [conv3x3x3] + [conv1x3x3] * 3, num_classes)


def _build_r2plus1d18(num_classes: int) -> nn.Module:
    stem = nn.Sequential(*conv_bn_relu(3, 45, (1, 7, 7), (1, 2, 2)), *conv_bn_relu(45, 64, (3, 1, 1), (1, 1, 1)))
    return VideoResNet(stem, [conv2plus1d] * 4, num_classes)


# Published at 16 frames at 15 frames a second; stride 2 is that for videos of 25 to 30.
CLIP = ClipSpec(frames=16, stride=2, resize=(128, 171), size=(112, 112), mean=KINETICS_MEAN, std=KINETICS_STD)

R3D18 = Architecture("r3d18", _build_r3d18, CLIP, "R3D-18: ResNet-18 of full 3x3x3 convolutions, 40.7 G MACs")
MC3_18 = Architecture("mc3_18", _build_mc3_18, CLIP, "MC3-18: 3D in the first stage, 2D after it, 43.3 G MACs")
R2PLUS1D18 = Architecture(
    "r2plus1d18", _build_r2plus1d18, CLIP, "R(2+1)D-18: every 3D convolution split into space and time, 40.5 G MACs")
