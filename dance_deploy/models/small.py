"""`small`: a residual 3D CNN that trains from scratch on a CPU in minutes; for the demo, CI and first steps.

R3D-18 with one block a stage and narrow stages. Full 3x3x3 convolutions on purpose: they are what the gates act on.
"""
import torch
from torch import nn

from dance_deploy.geometry import ClipSpec
from dance_deploy.models.architecture import KINETICS_MEAN, KINETICS_STD, Architecture
from dance_deploy.models.video_resnet import VideoResNet, conv3x3x3, conv_bn_relu

WIDTHS = (16, 32, 64, 128)


def _build_small(num_classes: int) -> nn.Module:
    layers = conv_bn_relu(3, WIDTHS[0], (3, 3, 3), (1, 2, 2))
    model = VideoResNet(nn.Sequential(*layers), [conv3x3x3] * 4, num_classes, widths=WIDTHS, blocks=1)
    _start_from_brightness(layers[0])
    return model


def _start_from_brightness(conv: nn.Module) -> None:
    """Give every colour the same weights: with few people to learn from, colour is who wears what, motion the action.

    Weizmann actions, one run each: 27 of 30 test clips within 720 steps; with independent colours 25 after 720 and 27
    after 1,080 (of a schedule twice as long, so a hint and no measurement).
    """
    with torch.no_grad():
        for weight in conv.parameters():  # the convolution has no bias
            weight.copy_(weight.mean(dim=1, keepdim=True).expand_as(weight))


# resize == size: the whole frame is read, stretched to 5:4; an actor at the rim is not cropped away.
CLIP = ClipSpec(frames=16, stride=2, resize=(64, 80), size=(64, 80), mean=KINETICS_MEAN, std=KINETICS_STD)

SMALL = Architecture("small", _build_small, CLIP, "small residual 3D CNN for demo and CI, 0.44 G MACs")
