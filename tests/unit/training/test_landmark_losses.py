"""PFPLD's wing loss and PFLD's loss beside the same formulas written as plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from facekiln.data.landmarks import COMPATIBLE_68
from facekiln.training.landmark_labels import ALL_98_AND_POSE, SOME_68
from facekiln.training.landmark_losses import Truth, pfld_loss, wing, wing_loss
from facekiln.training.landmark_settings import LandmarkLoss

WING = LandmarkLoss()
PFLD = LandmarkLoss(kind="pfld", points=100, pose=100)
SIDE = 112
# The article on PFPLD: 16 lid points; and the points of 300W-LP that the 98 have at the same place, spelled
# out.
LIDS = range(60, 76)
SHARED = [33, 34, 35, 36, 37, 42, 43, 44, 45, 46, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 64, 68, 72]
SHARED += [76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95]


def a_batch(flags: list[int], seed: int = 0, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, Truth]:
    """Random outputs and truths; `spread` in shares of the crop."""
    random = torch.Generator().manual_seed(seed)
    count = len(flags)

    def values(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=random) * spread

    points, pose = values(98, 2).requires_grad_(), values(3).requires_grad_()
    truth = Truth(values(98, 2), values(3), torch.tensor(flags), 0.5 + values().abs())
    return points, pose, truth


def wing_by_hand(distance: float, width: float = 10.0, epsilon: float = 2.0) -> float:
    if distance < width:
        return width * math.log(1 + distance / epsilon)
    return distance - width * (1 - math.log(1 + width / epsilon))


def article(points: np.ndarray, pose: np.ndarray, truth: Truth, scale: float) -> tuple[float, float, float]:
    """What the article's code computes, crop by crop and number by number: 98 points, 68 points, pose."""
    whole, some, angles = [], [], []
    for crop, flag in enumerate(truth.flags.tolist()):
        if flag == -2:
            total = 0.0
            for point in range(98):
                for axis in range(2):
                    distance = abs(float(truth.points[crop, point, axis]) - points[crop, point, axis]) * scale
                    total += wing_by_hand(distance * (5.0 if point in LIDS else 1.0))
            whole.append(total)
        if flag == 0:
            total = 0.0
            for point in SHARED:
                for axis in range(2):
                    distance = abs(float(truth.points[crop, point, axis]) - points[crop, point, axis]) * scale
                    total += wing_by_hand(distance)
            some.append(total)
            for axis in range(3):
                off = abs(float(truth.pose[crop, axis]) - pose[crop, axis])
                angles.append(0.5 * off * off if off < 1 else off - 0.5)
    means = [sum(part) / len(part) if part else 0.0 for part in (whole, some, angles)]
    return means[0], means[1], 1000.0 * means[2]


def values_of(parts: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: part.item() for name, part in parts.items()}


@pytest.mark.parametrize("flags", [[-2, 0, -2, 0, 0], [-2, -2], [0, 0, 0]])
@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0])  # the last is beyond the logarithm
@pytest.mark.parametrize("unit", ["share", "pixel"])
def test_the_wing_loss_is_the_articles(flags: list[int], spread: float, unit: str) -> None:
    points, pose, truth = a_batch(flags, seed=len(flags), spread=spread)
    settings = replace(WING, unit=unit)
    parts = values_of(wing_loss(points, pose, truth, SIDE, settings))
    scale = SIDE if unit == "pixel" else 1.0
    wanted = article(points.detach().numpy(), pose.detach().numpy(), truth, scale)
    got = parts["points_98"], parts["points_68"], parts["pose"]
    np.testing.assert_allclose(got, wanted, rtol=2e-5)


def test_the_shared_points_are_the_articles() -> None:
    assert list(COMPATIBLE_68) == SHARED and len(SHARED) == 43


def test_both_arms_of_the_wing_meet() -> None:
    distance = torch.tensor([0.0, 10.0 - 1e-4, 10.0, 20.0], dtype=torch.float64)
    got = wing(distance, 10.0, 2.0)
    assert got[0] == 0 and abs(got[1] - got[2]) < 1e-3
    assert got[3] - got[2] == pytest.approx(10.0)
    assert got[2].item() == pytest.approx(10 * math.log(6))


@pytest.mark.parametrize("loss", [wing_loss, pfld_loss])
@pytest.mark.parametrize("flags", [[-2], [0], [-1], [1], [2], [-2, -2, -1], [-2, -1, 0, 1, 2]])
def test_a_kind_that_is_missing_gives_zero_and_gradients_stay_finite(loss: object, flags: list[int]) -> None:
    """Real batches hold NaN where an annotation has no such point, or no pose."""
    settings = WING if loss is wing_loss else PFLD
    points, pose, truth = a_batch(flags)
    for row, flag in enumerate(flags):
        if flag in (0, 2):
            hidden = [index for index in range(98) if index not in COMPATIBLE_68]
            truth.points[row, hidden] = torch.nan
        if flag == -1:
            truth.points[row] = torch.nan
        if flag in (-2, 2):
            truth.pose[row] = torch.nan
    parts = loss(points, pose, truth, SIDE, settings)  # type: ignore[operator]
    whole = sum(parts.values())
    whole.backward()
    assert torch.isfinite(whole) and torch.isfinite(points.grad).all() and torch.isfinite(pose.grad).all()
    taught = {"points_98": {-2, 1}, "points_68": {0, 2}, "pose": {-1, 0, 1}, "points": {-2, 0, 1, 2}}
    for name, part in parts.items():
        assert (part.item() > 0) == bool(taught[name] & set(flags)), name


def test_a_drawn_face_teaches_points_as_wflw_and_pose_as_300w_lp() -> None:
    points, pose, truth = a_batch([-2, -2])
    whole = values_of(wing_loss(points, pose, truth, SIDE, WING))
    posed = values_of(
        wing_loss(points, pose, replace(truth, flags=torch.tensor([0, 0])), SIDE, WING),
    )
    drawn = values_of(
        wing_loss(points, pose, replace(truth, flags=torch.tensor([ALL_98_AND_POSE] * 2)), SIDE, WING)
    )
    assert drawn["points_98"] == whole["points_98"] and drawn["pose"] == posed["pose"]
    alone = values_of(wing_loss(points, pose, replace(truth, flags=torch.tensor([SOME_68] * 2)), SIDE, WING))
    assert alone["points_68"] == posed["points_68"] and alone["pose"] == 0


def test_a_point_that_is_not_annotated_teaches_nothing() -> None:
    points, pose, truth = a_batch([-2, -2])
    truth.points[0, 7] = torch.nan
    sum(wing_loss(points, pose, truth, SIDE, WING).values()).backward()
    assert points.grad is not None
    assert points.grad[0, 7].abs().sum() == 0 and (points.grad[1, 7] != 0).all()


def test_weights_scale_their_parts() -> None:
    points, pose, truth = a_batch([-2, 0])
    one = values_of(wing_loss(points, pose, truth, SIDE, WING))
    two = values_of(wing_loss(points, pose, truth, SIDE, replace(WING, points=3.0, pose=500.0)))
    assert two["points_98"] == pytest.approx(3 * one["points_98"])
    assert two["points_68"] == pytest.approx(3 * one["points_68"])
    assert two["pose"] == pytest.approx(one["pose"] / 2)


@pytest.mark.parametrize("unit", ["share", "pixel"])
def test_pflds_loss_weighs_by_rarity_and_by_how_far_the_pose_is_off(unit: str) -> None:
    """Equation 1 of arXiv:1902.10859 in loops; crop 2 has no pose and weighs as if the angles' sum were 1."""
    points, pose, truth = a_batch([1, 1, -2], seed=3)
    parts = values_of(pfld_loss(points, pose, truth, SIDE, replace(PFLD, unit=unit)))
    pose = pose.detach()
    total = angles = 0.0
    for crop in range(3):
        off = [float(pose[crop, k] - truth.pose[crop, k]) for k in range(3)]
        far = sum(1 - math.cos(angle) for angle in off) if crop < 2 else 1
        apart = points.detach()[crop] - truth.points[crop]
        square = sum(float(value) ** 2 for value in apart.flatten()) * (SIDE**2 if unit == "pixel" else 1)
        total += float(truth.rarity[crop]) * far * square
        if crop < 2:
            angles += sum(angle**2 for angle in off)
    assert parts["points"] == pytest.approx(100 * total / 3, rel=1e-5)
    assert parts["pose"] == pytest.approx(100 * angles / 2, rel=1e-5)
