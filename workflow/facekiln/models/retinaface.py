"""RetinaFace with a MobileNetV1 x0.25 backbone; state-dict keys as in the published checkpoints.

Source of the layout: the published files' keys and shapes, and the configuration of Pytorch_Retinaface (MIT).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

STEPS = (8, 16, 32)
ANCHORS = 2
_WIDTH = 64


def _activation(slope: float) -> nn.Module:
    # A true ReLU where the slope is zero: every chip has one, few have LeakyReLU. Otherwise the slope stays a
    # float: an integer in the traced graph is refused by MagicMind's TorchScript parser.
    return nn.LeakyReLU(negative_slope=float(slope), inplace=True) if slope else nn.ReLU(inplace=True)


def _conv_bn(cin: int, cout: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)]


def _conv(cin: int, cout: int, kernel: int, slope: float, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_conv_bn(cin, cout, kernel, stride), _activation(slope))


def _depthwise(cin: int, cout: int, stride: int, slope: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
        nn.BatchNorm2d(cin),
        _activation(slope),
        *_conv_bn(cin, cout, 1),
        _activation(slope),
    )


class MobileNetV1Quarter(nn.Module):
    """MobileNetV1 at a quarter of its width; gives its maps at strides 8, 16, 32 (64, 128, 256 channels)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _conv(3, 8, 3, slope, stride=2),
            _depthwise(8, 16, 1, slope),
            _depthwise(16, 32, 2, slope),
            _depthwise(32, 32, 1, slope),
            _depthwise(32, 64, 2, slope),
            _depthwise(64, 64, 1, slope),
        )
        self.stage2 = nn.Sequential(
            _depthwise(64, 128, 2, slope), *(_depthwise(128, 128, 1, slope) for _ in range(5))
        )
        self.stage3 = nn.Sequential(_depthwise(128, 256, 2, slope), _depthwise(256, 256, 1, slope))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps of strides 8, 16 and 32 for x [B, 3, H, W]."""
        stride8 = self.stage1(x)
        stride16 = self.stage2(stride8)
        return stride8, stride16, self.stage3(stride16)


class FeaturePyramid(nn.Module):
    """Top-down pathway: 1x1 laterals, nearest upsampling to the lateral's size, sum, 3x3 merge."""

    def __init__(self, channels: tuple[int, int, int], width: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv(c, width, 1, slope) for c in channels)
        self.merge1 = _conv(width, width, 3, slope)
        self.merge2 = _conv(width, width, 3, slope)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return three maps of `width` channels, strides 8, 16 and 32."""
        stride8, stride16, stride32 = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        stride16 = self.merge2(stride16 + _upsample(stride32, stride16))
        stride8 = self.merge1(stride8 + _upsample(stride16, stride8))
        return stride8, stride16, stride32


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    # Python ints, so that a traced graph holds constants and no shape arithmetic.
    return functional.interpolate(x, size=[int(side) for side in like.shape[2:]], mode="nearest")


class ContextModule(nn.Module):
    """SSH context: 3x3, 5x5 and 7x7 receptive fields side by side; plain ReLU after the concatenation."""

    def __init__(self, cin: int, cout: int, slope: float) -> None:
        super().__init__()
        self.conv3X3 = nn.Sequential(*_conv_bn(cin, cout // 2, 3))
        self.conv5X5_1 = _conv(cin, cout // 4, 3, slope)
        self.conv5X5_2 = nn.Sequential(*_conv_bn(cout // 4, cout // 4, 3))
        self.conv7X7_2 = _conv(cout // 4, cout // 4, 3, slope)
        self.conv7x7_3 = nn.Sequential(*_conv_bn(cout // 4, cout // 4, 3))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, cout, H, W] for x [B, cin, H, W]."""
        five = self.conv5X5_1(x)
        seven = self.conv7x7_3(self.conv7X7_2(five))
        return self.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(five), seven], dim=1))


class Head(nn.Module):
    """One 1x1 convolution per level; gives `values` numbers per anchor, in order y, x, anchor."""

    def __init__(self, width: int, anchors: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(width, anchors * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H * W * anchors, values] for x [B, width, H, W]."""
        maps = self.conv1x1(x).permute(0, 2, 3, 1).contiguous()
        return maps.view(int(maps.shape[0]), -1, self.values)


class RetinaFace(nn.Module):
    """RetinaFace: boxes, face scores and five landmarks per prior, levels in order of stride 8, 16, 32.

    300 state-dict entries, 426,608 parameters; any input height and width.
    """

    def __init__(self, *, leaky_slope: float) -> None:
        """Build with random weights.

        Args:
            leaky_slope: slope of the activations below zero: 0.1 or 0.0, see the model's declaration. A
                checkpoint does not say, and loads with either.
        """
        super().__init__()
        self.body = MobileNetV1Quarter(leaky_slope)
        self.fpn = FeaturePyramid((64, 128, 256), _WIDTH, leaky_slope)
        self.ssh1, self.ssh2, self.ssh3 = (ContextModule(_WIDTH, _WIDTH, leaky_slope) for _ in STEPS)
        self.ClassHead = nn.ModuleList(Head(_WIDTH, ANCHORS, 2) for _ in STEPS)
        self.BboxHead = nn.ModuleList(Head(_WIDTH, ANCHORS, 4) for _ in STEPS)
        self.LandmarkHead = nn.ModuleList(Head(_WIDTH, ANCHORS, 10) for _ in STEPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network.

        Args:
            x: float32 [B, 3, H, W], preprocessed as the model declares.

        Returns:
            loc [B, N, 4], conf [B, N, 2] and landms [B, N, 10], N priors. conf is softmaxed in eval mode and
            raw in training mode.
        """
        maps = self.fpn(self.body(x))
        levels = [ssh(level) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        loc, conf, landms = (
            torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return loc, conf if self.training else functional.softmax(conf, dim=-1), landms
