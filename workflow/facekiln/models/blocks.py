"""Convolutions with batch norm and activation, and heads: what the networks are built of.

Sequential places are part of the published files' state-dict keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def activation(slope: float) -> nn.Module:
    """Return LeakyReLU of that slope, or ReLU where the slope is zero."""
    # A true ReLU where the slope is zero: every chip has one, few have LeakyReLU. Otherwise the slope stays a
    # float: an integer in the traced graph is refused by MagicMind's TorchScript parser.
    return nn.LeakyReLU(negative_slope=float(slope), inplace=True) if slope else nn.ReLU(inplace=True)


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a padded convolution without bias, and its batch norm."""
    return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)]


def conv(cin: int, cout: int, kernel: int, slope: float, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch norm and activation."""
    return nn.Sequential(*conv_bn(cin, cout, kernel, stride), activation(slope))


def depthwise(cin: int, cout: int, stride: int, slope: float) -> nn.Sequential:
    """Return a 3x3 depthwise and a 1x1 convolution, each with batch norm and activation."""
    return nn.Sequential(
        nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
        nn.BatchNorm2d(cin),
        activation(slope),
        *conv_bn(cin, cout, 1),
        activation(slope),
    )


def per_prior(maps: Tensor, values: int) -> Tensor:
    """Turn a head's map [B, anchors * values, H, W] into [B, H * W * anchors, values]."""
    rows = maps.permute(0, 2, 3, 1).contiguous()
    # A Python int in ONNX, so that its graph holds constants and no shape arithmetic. Free in TorchScript: a
    # compiler sets a traced file's batch, and with a constant four pictures' boxes become one long list.
    batch = int(rows.shape[0]) if torch.onnx.is_in_onnx_export() else rows.shape[0]
    return rows.view(batch, -1, values)
