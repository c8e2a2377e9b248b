"""Backbones of RetinaFace: each gives its maps at strides 8, 16 and 32."""

from __future__ import annotations

from torch import Tensor, nn

from facekiln.models.blocks import conv, depthwise

Maps = tuple[Tensor, Tensor, Tensor]


class MobileNetV1Quarter(nn.Module):
    """MobileNetV1 at a quarter of its width."""

    channels = (64, 128, 256)

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            conv(3, 8, 3, slope, stride=2),
            depthwise(8, 16, 1, slope),
            depthwise(16, 32, 2, slope),
            depthwise(32, 32, 1, slope),
            depthwise(32, 64, 2, slope),
            depthwise(64, 64, 1, slope),
        )
        self.stage2 = nn.Sequential(
            depthwise(64, 128, 2, slope), *(depthwise(128, 128, 1, slope) for _ in range(5))
        )
        self.stage3 = nn.Sequential(depthwise(128, 256, 2, slope), depthwise(256, 256, 1, slope))

    def forward(self, x: Tensor) -> Maps:
        """Return the maps of strides 8, 16 and 32 for x [B, 3, H, W]."""
        stride8 = self.stage1(x)
        stride16 = self.stage2(stride8)
        return stride8, stride16, self.stage3(stride16)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride, as in torchvision (v1.5)."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
            if stride != 1 or cin != cout
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, 4 * width, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier; module names as torchvision's."""

    channels = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3, 1)
        self.layer2 = _stage(256, 128, 4, 2)
        self.layer3 = _stage(512, 256, 6, 2)
        self.layer4 = _stage(1024, 512, 3, 2)

    def forward(self, x: Tensor) -> Maps:
        """Return the maps of strides 8, 16 and 32 for x [B, 3, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        stride8 = self.layer2(self.layer1(x))
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


def _stage(cin: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(cin, width, stride), *rest)
