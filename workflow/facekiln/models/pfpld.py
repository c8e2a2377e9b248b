"""PFPLD: 98 landmarks and head pose of one face crop; state-dict keys as in the author's training code.

Source of the layout: hanson-young/nniefacelib, PFPLD (BSD-2-Clause): the published prototxt, and the module
names of its network. The author's weights can no longer be fetched, so nothing here was compared with them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekiln.models.blocks import conv

LANDMARKS = 98
SIDE = 112
_POSE = 3
# Channels of the three scales that the landmarks are read from: 14x14 and 7x7 maps averaged, and 1x1.
_SCALES = (16, 32, 128)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; with or without the sum with its input."""

    def __init__(self, cin: int, cout: int, *, expand: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        inner = cin * expand
        self.residual = residual
        self.conv = nn.Sequential(
            nn.Conv2d(cin, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, cout, H / stride, W / stride] for x [B, cin, H, W]."""
        return x + self.conv(x) if self.residual else self.conv(x)


def _blocks(count: int, first: int, name: str, channels: int, expand: int) -> dict[str, InvertedResidual]:
    return {
        f"{name}_{number}": InvertedResidual(channels, channels, expand=expand, residual=True)
        for number in range(first, first + count)
    }


class PFPLD(nn.Module):
    """Landmarks and pose of a 112x112 crop: 291 state-dict entries, 1,729,674 parameters."""

    def __init__(self) -> None:
        """Build with random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3_1 = InvertedResidual(64, 64, expand=2, stride=2)
        third = _blocks(4, 2, "block3", 64, expand=2)
        self.conv4_1 = InvertedResidual(64, 128, expand=2, stride=2)
        self.conv5_1 = InvertedResidual(128, 128, expand=4)
        fifth = _blocks(5, 2, "block5", 128, expand=4)
        self.conv6_1 = InvertedResidual(128, _SCALES[0], expand=2)
        for name, block in {**third, **fifth}.items():
            self.add_module(name, block)
        self._third, self._fifth = tuple(third), tuple(fifth)
        self.conv7 = conv(_SCALES[0], _SCALES[1], 3, 0.0, stride=2)
        self.conv8 = nn.Conv2d(_SCALES[1], _SCALES[2], 7)
        self.avg_pool1 = nn.AvgPool2d(14)
        self.avg_pool2 = nn.AvgPool2d(7)
        self.fc = nn.Linear(sum(_SCALES), 2 * LANDMARKS)
        # These two are in every checkpoint, and the author's forward pass never calls them.
        self.bn8 = nn.BatchNorm2d(_SCALES[2])
        self.fc_aux = nn.Linear(sum(_SCALES), _POSE)
        self.conv1_aux = conv(64, 128, 3, 0.0, stride=2)
        self.conv2_aux = conv(128, 128, 3, 0.0)
        self.conv3_aux = conv(128, 32, 3, 0.0, stride=2)
        self.conv4_aux = nn.Sequential(
            # Padding 1, not 3: 7x7 becomes 3x3.
            nn.Conv2d(32, 128, 7, 1, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
        )
        self.max_pool1_aux = nn.MaxPool2d(3)
        self.fc1_aux = nn.Linear(128, 32)
        self.fc2_aux = nn.Linear(32 + sum(_SCALES), _POSE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            x: float32 [B, 3, 112, 112], preprocessed as the model declares.

        Returns:
            pose [B, 3]: yaw, pitch and roll, radians; landms [B, 196]: x and y of 98 points, as shares of the
            crop's side.
        """
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        shared = self._through(self._third, self.conv3_1(x))
        x = self._through(self._fifth, self.conv5_1(self.conv4_1(shared)))
        fine = self.conv6_1(x)
        middle = self.conv7(fine)
        coarse = self.relu(self.conv8(middle))
        scales = (self.avg_pool1(fine), self.avg_pool2(middle), coarse)
        features = torch.cat([scale.flatten(1) for scale in scales], dim=1)
        landmarks = self.fc(features)
        aux = self.conv4_aux(self.conv3_aux(self.conv2_aux(self.conv1_aux(shared))))
        aux = self.fc1_aux(self.max_pool1_aux(aux).flatten(1))
        return self.fc2_aux(torch.cat([aux, features], dim=1)), landmarks

    @torch.no_grad()
    def start_from(self, landmarks: Tensor) -> None:
        """Have an untrained network give these landmarks [196] for any crop: it learns only what differs.

        From zero, an optimiser of steps as long as its rate spends hundreds of them on the way to a mean
        face.
        """
        self.fc.weight.zero_()
        self.fc.bias.copy_(landmarks)

    def _through(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x
