"""Slim and RFB, the networks of about 0.3 M parameters; state-dict keys as in the published checkpoints.

Two projects use one trunk. Face-Detector-1MB-with-landmark (MIT) adds landmarks, and
Ultra-Light-Fast-Generic-Face-Detector-1MB (ULFD, MIT) has boxes and scores only; module names differ. Source
of the layout: the published files' keys and shapes, and ULFD's published ONNX files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from facekiln.models.blocks import conv, depthwise, per_prior

STEPS = (8, 16, 32, 64)
ANCHORS = (3, 2, 2, 3)
_CHANNELS = (64, 128, 256, 256)
# The trunk's blocks (counted from 0) behind which a level's map is taken; the last level is behind the extra.
_LEVEL_ENDS = (7, 10, 12)


class _ConvNorm(nn.Module):
    """Convolution and batch norm, with or without ReLU; names as the files have them in RFB blocks."""

    def __init__(self, cin: int, cout: int, kernel: int, *, dilation: int = 1, relu: bool = True) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(cin, cout, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(cout, momentum=0.01)
        self.relu = nn.ReLU(inplace=True) if relu else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.relu is None else self.relu(x)


class ReceptiveFieldBlock(nn.Module):
    """RFB: three branches of growing dilation side by side, a 1x1 mix, a 1x1 shortcut, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 8
        self.branch0 = nn.Sequential(*self._branch(channels, inner, dilation=2))
        self.branch1 = nn.Sequential(*self._branch(channels, inner, dilation=3))
        self.branch2 = nn.Sequential(
            _ConvNorm(channels, inner, 1, relu=False),
            _ConvNorm(inner, inner * 3 // 2, 3),
            _ConvNorm(inner * 3 // 2, 2 * inner, 3),
            _ConvNorm(2 * inner, 2 * inner, 3, dilation=5, relu=False),
        )
        self.ConvLinear = _ConvNorm(6 * inner, channels, 1, relu=False)
        self.shortcut = _ConvNorm(channels, channels, 1, relu=False)
        self.relu = nn.ReLU()

    @staticmethod
    def _branch(channels: int, inner: int, dilation: int) -> list[nn.Module]:
        return [
            _ConvNorm(channels, inner, 1, relu=False),
            _ConvNorm(inner, 2 * inner, 3),
            _ConvNorm(2 * inner, 2 * inner, 3, dilation=dilation, relu=False),
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of x's shape."""
        branches = torch.cat([self.branch0(x), self.branch1(x), self.branch2(x)], dim=1)
        return self.relu(self.ConvLinear(branches) + self.shortcut(x))


def _trunk(*, rfb: bool) -> list[nn.Module]:
    """Return the 13 blocks; RFB has a receptive field block where slim has a plain one."""
    return [
        conv(3, 16, 3, 0.0, stride=2),
        depthwise(16, 32, 1, 0.0),
        depthwise(32, 32, 2, 0.0),
        depthwise(32, 32, 1, 0.0),
        depthwise(32, 64, 2, 0.0),
        depthwise(64, 64, 1, 0.0),
        depthwise(64, 64, 1, 0.0),
        ReceptiveFieldBlock(64) if rfb else depthwise(64, 64, 1, 0.0),
        depthwise(64, 128, 2, 0.0),
        depthwise(128, 128, 1, 0.0),
        depthwise(128, 128, 1, 0.0),
        depthwise(128, 256, 2, 0.0),
        depthwise(256, 256, 1, 0.0),
    ]


def _separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 depthwise convolution, ReLU and a 1x1 convolution; biases, no batch norm."""
    return nn.Sequential(
        nn.Conv2d(cin, cin, 3, stride, 1, groups=cin), nn.ReLU(inplace=True), nn.Conv2d(cin, cout, 1)
    )


def _extra() -> nn.Sequential:
    """Return what makes the map of stride 64 from that of stride 32."""
    return nn.Sequential(
        nn.Conv2d(256, 64, 1), nn.ReLU(inplace=True), _separable(64, 256, stride=2), nn.ReLU(inplace=True)
    )


def _heads(values: int) -> nn.ModuleList:
    """Return one head per level, `values` numbers per anchor: separable, but a full 3x3 on the last level."""
    sides = zip(_CHANNELS, ANCHORS, strict=True)
    heads: list[nn.Module] = [_separable(channels, anchors * values) for channels, anchors in sides]
    heads[-1] = nn.Conv2d(_CHANNELS[-1], ANCHORS[-1] * values, 3, padding=1)
    return nn.ModuleList(heads)


def _levels(x: Tensor, trunk: Sequence[nn.Module] | nn.Sequential, extra: nn.Module) -> list[Tensor]:
    """Return the maps of strides 8, 16, 32 and 64."""
    levels = []
    for index, block in enumerate(trunk):
        x = block(x)
        if index in _LEVEL_ENDS:
            levels.append(x)
    return [*levels, extra(x)]


def _join(heads: nn.ModuleList, levels: list[Tensor], values: int) -> Tensor:
    """Return [B, N, values] of all levels."""
    parts = [per_prior(head(level), values) for head, level in zip(heads, levels, strict=True)]
    return torch.cat(parts, dim=1)


class SlimWithLandmarks(nn.Module):
    """Slim or RFB of Face-Detector-1MB-with-landmark, any input height and width.

    198 state-dict entries and 343,488 parameters; RFB 258 and 359,592.
    """

    def __init__(self, *, rfb: bool) -> None:
        """Build slim, or RFB, with random weights."""
        super().__init__()
        for number, block in enumerate([*_trunk(rfb=rfb), _extra()], start=1):
            self.add_module(f"conv{number}", block)
        self.loc, self.conf, self.landm = _heads(4), _heads(2), _heads(10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network.

        Args:
            x: float32 [B, 3, H, W], preprocessed as the model declares.

        Returns:
            loc [B, N, 4], conf [B, N, 2] and landms [B, N, 10], N priors. conf is softmaxed in eval mode and
            raw in training mode.
        """
        *trunk, extra = (self.get_submodule(f"conv{number}") for number in range(1, 15))
        levels = _levels(x, trunk, extra)
        loc, conf, landms = (
            _join(heads, levels, values)
            for heads, values in ((self.loc, 4), (self.conf, 2), (self.landm, 10))
        )
        return loc, conf if self.training else functional.softmax(conf, dim=-1), landms


class UltraLight(nn.Module):
    """Slim or RFB of ULFD, any input height and width; boxes are offsets, never decoded inside.

    184 state-dict entries and 260,188 parameters; RFB 244 and 276,292.
    """

    def __init__(self, *, rfb: bool) -> None:
        """Build slim, or RFB, with random weights."""
        super().__init__()
        self.base_net = nn.Sequential(*_trunk(rfb=rfb))
        self.extras = nn.ModuleList([_extra()])
        self.classification_headers, self.regression_headers = _heads(2), _heads(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            x: float32 [B, 3, H, W], preprocessed as the model declares.

        Returns:
            scores [B, N, 2] and boxes [B, N, 4] (offsets from N priors). Scores are softmaxed in eval mode
            and raw in training mode.
        """
        levels = _levels(x, self.base_net, self.extras[0])
        scores = _join(self.classification_headers, levels, 2)
        boxes = _join(self.regression_headers, levels, 4)
        return scores if self.training else functional.softmax(scores, dim=-1), boxes
