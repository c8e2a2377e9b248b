"""RetinaFace on any backbone; state-dict keys as in the published checkpoints.

Source of the layout: the published files' keys and shapes, and the configuration of Pytorch_Retinaface (MIT).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from facekiln.models.backbones import Maps, MobileNetV1Quarter, ResNet50
from facekiln.models.blocks import conv, conv_bn, per_prior

STEPS = (8, 16, 32)
ANCHORS = 2


class FeaturePyramid(nn.Module):
    """Top-down pathway: 1x1 laterals, nearest upsampling to the lateral's size, sum, 3x3 merge."""

    def __init__(self, channels: tuple[int, int, int], width: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (conv(c, width, 1, slope) for c in channels)
        self.merge1 = conv(width, width, 3, slope)
        self.merge2 = conv(width, width, 3, slope)

    def forward(self, maps: Maps) -> Maps:
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
        self.conv3X3 = nn.Sequential(*conv_bn(cin, cout // 2, 3))
        self.conv5X5_1 = conv(cin, cout // 4, 3, slope)
        self.conv5X5_2 = nn.Sequential(*conv_bn(cout // 4, cout // 4, 3))
        self.conv7X7_2 = conv(cout // 4, cout // 4, 3, slope)
        self.conv7x7_3 = nn.Sequential(*conv_bn(cout // 4, cout // 4, 3))
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
        return per_prior(self.conv1x1(x), self.values)


class RetinaFace(nn.Module):
    """RetinaFace: boxes, face scores and five landmarks per prior, levels in order of stride 8, 16, 32.

    Takes any input height and width.
    """

    def __init__(
        self, body: nn.Module, channels: tuple[int, int, int], *, width: int, leaky_slope: float
    ) -> None:
        """Build with random weights.

        Args:
            body: gives maps of strides 8, 16 and 32.
            channels: of these maps.
            width: channels of the pyramid and of the context modules.
            leaky_slope: slope of the activations below zero: 0.1 or 0.0, see the model's declaration. A
                checkpoint does not say, and loads with either.
        """
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid(channels, width, leaky_slope)
        self.ssh1, self.ssh2, self.ssh3 = (ContextModule(width, width, leaky_slope) for _ in STEPS)
        self.ClassHead = nn.ModuleList(Head(width, ANCHORS, 2) for _ in STEPS)
        self.BboxHead = nn.ModuleList(Head(width, ANCHORS, 4) for _ in STEPS)
        self.LandmarkHead = nn.ModuleList(Head(width, ANCHORS, 10) for _ in STEPS)

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


def retinaface_mobilenet025(leaky_slope: float) -> RetinaFace:
    """RetinaFace on MobileNetV1 x0.25: 300 state-dict entries, 426,608 parameters."""
    body = MobileNetV1Quarter(leaky_slope)
    return RetinaFace(body, body.channels, width=64, leaky_slope=leaky_slope)


def retinaface_resnet50() -> RetinaFace:
    """RetinaFace on ResNet-50: 456 state-dict entries, 27,293,600 parameters.

    Its activations are ReLU: Pytorch_Retinaface sets the slope 0.1 up to a width of 64 only.
    """
    body = ResNet50()
    return RetinaFace(body, body.channels, width=256, leaky_slope=0.0)
