"""Losses of landmark models over batches that mix kinds of annotation: PFPLD's wing loss, and PFLD's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facekiln.data.landmarks import COMPATIBLE_68, SCHEMES
from facekiln.training.landmark_labels import WITH_68, WITH_98, WITH_POSE
from facekiln.training.landmark_settings import LandmarkLoss

_LIDS = tuple(index for ring in SCHEMES["98"].eyes for index in ring)  # 60..75


@dataclass(frozen=True)
class Truth:
    """What a batch of B crops should give.

    Attributes:
        points: float32 [B,98,2], shares of the crop's side; NaN where a point is not known.
        pose: float32 [B,3] yaw, pitch, roll in radians; NaN where not known.
        flags: int64 [B], which of them count (`facekiln.training.landmark_labels`).
        rarity: float32 [B], how rare such a face is, 1 on average; only PFLD's loss weighs by it.
    """

    points: Tensor
    pose: Tensor
    flags: Tensor
    rarity: Tensor


def wing(distance: Tensor, width: float, epsilon: float) -> Tensor:
    """Return width * ln(1 + d / epsilon) of distances d below `width`; beyond, d less what makes both meet.

    Source: wing loss, arXiv:1711.06753, equation 5.
    """
    drop = width - width * math.log1p(width / epsilon)
    return torch.where(distance < width, width * torch.log1p(distance / epsilon), distance - drop)


def _of(flags: Tensor, kinds: Sequence[int]) -> Tensor:
    """Return a mask of the crops of some kinds."""
    mask = torch.zeros_like(flags, dtype=torch.bool)
    for kind in kinds:
        mask |= flags == kind
    return mask


def _nothing(output: Tensor) -> Tensor:
    """A zero that backpropagates, for a part that no crop of the batch teaches."""
    return (output * 0.0).sum()


def _apart(points: Tensor, truth: Tensor) -> Tensor:
    """Differences, zero where the truth is not known; no gradient ever passes a NaN."""
    known = ~truth.isnan()
    return torch.where(known, points, 0.0) - torch.where(known, truth, 0.0)


def _wing_part(
    points: Tensor,
    truth: Tensor,
    chosen: tuple[int, ...] | None,
    weights: Tensor | None,
    settings: LandmarkLoss,
) -> Tensor:
    if not len(points):
        return _nothing(points)
    distance = _apart(points, truth).abs()
    if chosen is not None:
        distance = distance[:, list(chosen)]
    if weights is not None:
        distance = distance * weights
    return wing(distance, settings.width, settings.epsilon).sum(dim=(1, 2)).mean()


def wing_loss(
    points: Tensor, pose: Tensor, truth: Truth, side: int, settings: LandmarkLoss
) -> dict[str, Tensor]:
    """Return PFPLD's loss in parts.

    Crops with all 98 points: the sum over points of the wing loss, lids' distances times `settings.eyes`,
    averaged over these crops. Crops with 68: likewise over the 43 compatible points, without that factor.
    Crops with a pose: smooth L1, averaged over crops and angles. A kind that the batch does not hold gives 0.
    Source: the article on PFPLD by the author of hanson-young/nniefacelib, whose code takes the pose of flag
    0 only; here flag -1 (pose only, as its lists say) and drawn faces teach it too.

    Args:
        points: [B,98,2], shares of the crop's side.
        pose: [B,3] radians.
        truth: the same of the truth.
        side: of the crop, pixels.
        settings: width, epsilon, factors, unit.

    Returns:
        "points_98", "points_68" and "pose", weighted scalars.
    """
    scale = float(side) if settings.unit == "pixel" else 1.0
    placed, wanted = points * scale, truth.points * scale
    weights = points.new_ones(points.shape[1], 1)
    weights[list(_LIDS)] = settings.eyes
    whole, some, posed = (_of(truth.flags, kinds) for kinds in (WITH_98, WITH_68, WITH_POSE))
    parts = {
        "points_98": settings.points * _wing_part(placed[whole], wanted[whole], None, weights, settings),
        "points_68": settings.points * _wing_part(placed[some], wanted[some], COMPATIBLE_68, None, settings),
    }
    angles = F.smooth_l1_loss(pose[posed], truth.pose[posed]) if bool(posed.any()) else _nothing(pose)
    return {**parts, "pose": settings.pose * angles}


def pfld_loss(
    points: Tensor, pose: Tensor, truth: Truth, side: int, settings: LandmarkLoss
) -> dict[str, Tensor]:
    """Return PFLD's loss in parts.

    The squared distance of a crop's points weighs the more the rarer the face is, and the farther the pose is
    off: times `truth.rarity` and the sum over the angles of 1 - cos(error). A crop without a known pose
    weighs as if that sum were 1. Source: PFLD, arXiv:1902.10859, equation 1; the squared error of the pose as
    in hanson-young/nniefacelib, which gives both parts the weight 100, and where a face of no attribute
    weighs 0 and so teaches no landmark.

    Args and returns as of `wing_loss`; "points" and "pose".
    """
    scale = float(side) if settings.unit == "pixel" else 1.0
    posed = _of(truth.flags, WITH_POSE)
    off = _apart(pose, truth.pose)
    far = torch.where(posed, (1.0 - torch.cos(off)).sum(dim=1), 1.0)
    apart = _apart(points, truth.points) * scale
    # Points of a 68-point annotation that are no exact counterpart do not count, as in the wing loss.
    compatible = points.new_zeros(points.shape[1], 1)
    compatible[list(COMPATIBLE_68)] = 1.0
    some, pointed = _of(truth.flags, WITH_68), _of(truth.flags, (*WITH_98, *WITH_68))
    apart = torch.where(some[:, None, None], apart * compatible, apart) * pointed[:, None, None]
    square = apart.square().sum(dim=(1, 2))
    taught = pointed.sum().clamp(min=1)
    angles = (off.square().sum(dim=1) * posed).sum() / posed.sum().clamp(min=1)
    return {
        "points": settings.points * (far * truth.rarity * square).sum() / taught,
        "pose": settings.pose * angles,
    }


LOSSES = {"wing": wing_loss, "pfld": pfld_loss}
