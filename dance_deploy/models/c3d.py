"""C3D: eight 3x3x3 convolutions, five max pools, three linear layers; no normalisation layer.

Names are those of the common ports (conv1, conv2, conv3a ... conv5b, fc6 ... fc8), as in the Sports-1M weights that go
round as `c3d.pickle` (a plain state dict). The linear layers fix the clip's size: 16 frames of 112x112.
Source: Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015 (arXiv 1412.0767).
"""
import torch
from torch import Tensor, nn

from dance_deploy.geometry import ClipSpec
from dance_deploy.models.architecture import Architecture

# Published weights read pixel values (0 to 255) less this mean times 255, not divided by a spread.
MEAN = (104 / 255, 117 / 255, 128 / 255)
TYPICAL_PIXEL_STD = 58.0


class C3DNet(nn.Module):
    """clip [N, 3, 16, 112, 112] float32 -> logits [N, classes]; any N."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1, self.relu1 = _conv(3, 64), nn.ReLU()
        self.pool1 = nn.MaxPool3d((1, 2, 2))
        self.conv2, self.relu2 = _conv(64, 128), nn.ReLU()
        self.pool2 = nn.MaxPool3d(2)
        self.conv3a, self.relu3a = _conv(128, 256), nn.ReLU()
        self.conv3b, self.relu3b = _conv(256, 256), nn.ReLU()
        self.pool3 = nn.MaxPool3d(2)
        self.conv4a, self.relu4a = _conv(256, 512), nn.ReLU()
        self.conv4b, self.relu4b = _conv(512, 512), nn.ReLU()
        self.pool4 = nn.MaxPool3d(2)
        self.conv5a, self.relu5a = _conv(512, 512), nn.ReLU()
        self.conv5b, self.relu5b = _conv(512, 512), nn.ReLU()
        self.pool5 = nn.MaxPool3d(2, padding=(0, 1, 1))
        self.fc6, self.relu6, self.dropout6 = nn.Linear(8192, 4096), nn.ReLU(), nn.Dropout(0.5)
        self.fc7, self.relu7, self.dropout7 = nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)
        self.fc8 = nn.Linear(4096, num_classes)
        _initialize(self)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(clip)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.pool3(self.relu3b(self.conv3b(self.relu3a(self.conv3a(x)))))
        x = self.pool4(self.relu4b(self.conv4b(self.relu4a(self.conv4a(x)))))
        x = self.pool5(self.relu5b(self.conv5b(self.relu5a(self.conv5a(x)))))
        x = self.dropout6(self.relu6(self.fc6(torch.flatten(x, 1))))
        x = self.dropout7(self.relu7(self.fc7(x)))
        return self.fc8(x)


def _conv(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, 3, padding=1)


def _initialize(model: C3DNet) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(model.fc8.weight, 0.0, 0.01)
    with torch.no_grad():
        model.conv1.weight /= TYPICAL_PIXEL_STD  # the input is in pixel values; all later layers then start near 1


CLIP = ClipSpec(frames=16, stride=1, resize=(128, 171), size=(112, 112), mean=MEAN, std=(1 / 255, 1 / 255, 1 / 255))

C3D = Architecture("c3d", C3DNet, CLIP, "C3D: eight 3x3x3 convolutions and 78 M weights, 38.5 G MACs")
