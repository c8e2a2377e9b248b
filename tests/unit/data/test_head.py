"""The head's geometry: order of the landmarks, signs of the pose, projection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data import head
from facekiln.data.head import FIVE, MIRROR_5, MIRROR_98, Shape, View, landmarks_3d, random_shape, rotation

# The flip pairs of WFLW's 98 points, as HRNet-Facial-Landmark-Detection lists them (lib/utils/transforms.py).
WFLW_PAIRS = [
    *((i, 32 - i) for i in range(16)),
    *((33, 46), (34, 45), (35, 44), (36, 43), (37, 42), (38, 50), (39, 49), (40, 48), (41, 47)),
    *((60, 72), (61, 71), (62, 70), (63, 69), (64, 68), (65, 75), (66, 74), (67, 73), (55, 59), (56, 58)),
    *((76, 82), (77, 81), (78, 80), (87, 83), (86, 84), (88, 92), (89, 91), (95, 93), (96, 97)),
]


def test_mirror_is_that_of_wflw() -> None:
    expected = list(range(98))
    for one, two in WFLW_PAIRS:
        expected[one], expected[two] = two, one
    assert list(MIRROR_98) == expected


def test_a_symmetric_head_is_its_own_mirror_image() -> None:
    points = landmarks_3d(Shape())
    np.testing.assert_allclose(points[list(MIRROR_98)] * [-1, 1, 1], points, atol=1e-9)


def test_five_points_mirror_like_the_98() -> None:
    mirrored = [MIRROR_98[FIVE[i]] for i in MIRROR_5]
    assert mirrored == list(FIVE)


@pytest.mark.parametrize("seed", range(20))
def test_parts_lie_where_faces_have_them(seed: int) -> None:
    points = landmarks_3d(random_shape(np.random.default_rng(seed)))
    assert points.shape == (98, 3)
    y = points[:, 1]
    assert (
        y[head.LEFT_BROW].mean()
        < y[head.LEFT_EYE].mean()
        < y[head.NOSE_BASE].mean()
        < y[head.OUTER_LIPS].mean()
    )
    assert y[:33].argmax() == 16  # the chin
    assert points[54, 2] == points[:, 2].max()  # the tip of the nose
    assert points[0, 0] < points[60, 0] < points[64, 0] < 0 < points[68, 0] < points[72, 0] < points[32, 0]
    for pupil, eye in ((96, head.LEFT_EYE), (97, head.RIGHT_EYE)):
        low, high = points[eye, :2].min(axis=0), points[eye, :2].max(axis=0)
        assert (points[pupil, :2] > low).all() and (points[pupil, :2] < high).all()


def seen(pose: tuple[float, float, float]) -> np.ndarray:
    return View(rotation(pose), distance=10.0).project(landmarks_3d(Shape()))


def test_signs_of_the_pose_are_those_of_300w_lp() -> None:
    """Yaw turns the nose to the picture's left, pitch lifts it, roll goes clockwise."""
    frontal = seen((0, 0, 0))
    between = frontal[[96, 97]].mean(axis=0)
    assert frontal[54, 0] == pytest.approx(between[0])
    yawed = seen((0.4, 0, 0))
    assert yawed[54, 0] < yawed[[96, 97]].mean(axis=0)[0] - 0.1
    pitched = seen((0, 0.4, 0))
    assert pitched[54, 1] - pitched[96, 1] < frontal[54, 1] - frontal[96, 1] - 0.1
    rolled = seen((0, 0, 0.4))
    assert rolled[97, 1] > rolled[96, 1] + 0.1


@given(st.tuples(*[st.floats(-1.2, 1.2)] * 3))
def test_a_rotation_turns_only_and_its_angles_can_be_read_back(pose: tuple[float, float, float]) -> None:
    turned = rotation(pose)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turned) == pytest.approx(1)
    flip = np.diag([1.0, -1.0, 1.0])
    m = flip @ turned @ flip  # Rx Ry Rz with y up
    yaw = np.arcsin(-m[0, 2])
    pitch = np.arctan2(m[1, 2], m[2, 2])
    roll = np.arctan2(m[0, 1], m[0, 0])
    np.testing.assert_allclose((yaw, pitch, roll), pose, atol=1e-6)


def test_projection_scales_and_moves_in_pixels() -> None:
    points = landmarks_3d(Shape())
    near = View(rotation((0.2, 0.1, 0.0)), 8.0).project(points)
    placed = View(rotation((0.2, 0.1, 0.0)), 8.0, 30.0, (100.0, 50.0)).project(points)
    np.testing.assert_allclose(placed, near * 30 + [100, 50])


def test_a_surface_turned_away_does_not_face_the_camera() -> None:
    point, normal = np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    assert (
        View(rotation((1.2, 0, 0)), 10.0).facing(point, normal)
        * View(rotation((-1.2, 0, 0)), 10.0).facing(point, normal)
        < 0
    )
