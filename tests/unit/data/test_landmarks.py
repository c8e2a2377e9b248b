"""Landmark schemes: mirroring by involution and by geometry, subsets, eyes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data.head import Shape, View, landmarks_3d, random_shape, rotation
from facekiln.data.landmarks import (
    COMPATIBLE_68,
    SCHEMES,
    SUBSET_68,
    SUBSET_98_OF_106,
    convert,
    eye_aspect,
    fill_98,
    inter_ocular,
    mirror,
    scheme,
)
from facekiln.errors import KilnError


def _frontal(shape: Shape | None = None, pose: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return View(rotation(pose), 1e6, 100.0, (300.0, 200.0)).project(landmarks_3d(shape or Shape()))


def _as_106(points: np.ndarray) -> np.ndarray:
    """The 98 with the eight points that only LaPa has, placed as on its pictures: nose sides, eye centres."""
    full = np.zeros((106, 2))
    full[list(SUBSET_98_OF_106)] = points
    for index, side in ((55, -1), (56, -1), (57, -1), (63, 1), (64, 1), (65, 1)):
        down = {55: 0.1, 65: 0.1, 56: 0.6, 64: 0.6, 57: 0.9, 63: 0.9}[index]
        full[index] = points[51] + down * (points[54] - points[51]) + [side * (5 + 20 * down), 0]
    full[74], full[83] = full[104], full[105]
    return full


@pytest.mark.parametrize("name", list(SCHEMES))
def test_mirroring_twice_changes_nothing(name: str) -> None:
    order = np.array(SCHEMES[name].mirror)
    assert sorted(order) == list(range(SCHEMES[name].count))
    assert order[order].tolist() == list(range(len(order)))
    points = np.random.default_rng(0).uniform(0, 100, (3, len(order), 2))
    np.testing.assert_allclose(mirror(mirror(points, 640, name), 640, name), points, atol=1e-12)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_mirroring_a_symmetric_face_gives_the_same_face(name: str) -> None:
    whole = _frontal()
    points = _as_106(whole) if name == "106" else convert(whole, "98", name)
    np.testing.assert_allclose(mirror(points, 600, name), points, atol=0.5)


@given(st.integers(0, 2**32 - 1), st.floats(-0.6, 0.6), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_mirroring_is_the_head_turned_the_other_way(seed: int, yaw: float, pitch: float, roll: float) -> None:
    """A mirrored picture of a symmetric head is that head with yaw and roll negated, pitch kept."""
    shape = random_shape(np.random.default_rng(seed))
    points = landmarks_3d(shape)
    points[96:98] = points[[60, 68]]  # the gaze is not symmetric; the eyes' first corners stand in
    points[97] = points[72]
    here, there = (
        View(rotation(pose), 8.0, 100.0, (300.0, 200.0)).project(points)
        for pose in ((yaw, pitch, roll), (-yaw, pitch, -roll))
    )
    np.testing.assert_allclose(mirror(here, 600, "98"), there, atol=1e-6)


def test_mirror_pairs_known_from_public_tables() -> None:
    # mmpose configs/_base_/datasets/{300w,wflw,lapa}.py
    pairs = {
        "68": {0: 16, 8: 8, 17: 26, 31: 35, 36: 45, 37: 44, 41: 46, 48: 54, 60: 64, 67: 65},
        "98": {0: 32, 33: 46, 38: 50, 41: 47, 60: 72, 64: 68, 65: 75, 79: 79, 87: 83, 96: 97},
        "106": {33: 46, 41: 47, 55: 65, 57: 63, 60: 60, 66: 79, 71: 82, 74: 83, 84: 90, 103: 101, 104: 105},
    }
    for name, known in pairs.items():
        assert {index: SCHEMES[name].mirror[index] for index in known} == known


@pytest.mark.parametrize("name", ["68", "98", "106"])
def test_parts_cover_every_point_once(name: str) -> None:
    covered = [index for part in SCHEMES[name].parts.values() for index in part]
    assert sorted(covered) == list(range(int(name)))


def test_subsets_have_the_documented_points() -> None:
    assert len(SUBSET_68) == 68 and len(SUBSET_98_OF_106) == 98
    # LaPa's numbers of the points that WFLW calls 54, 60, 72, 76, 82, 96.
    assert [SUBSET_98_OF_106[index] for index in (54, 60, 72, 76, 82, 96)] == [54, 66, 79, 84, 90, 104]
    # The list in the article on PFPLD, counted.
    assert len(COMPATIBLE_68) == 43 and set(COMPATIBLE_68) < set(SUBSET_68)


def test_five_points_agree_whatever_they_come_from() -> None:
    points = _frontal()
    five = convert(points, "98", "5")
    np.testing.assert_allclose(convert(_as_106(points), "106", "5"), five)
    from_68 = convert(convert(points, "98", "68"), "68", "5")
    np.testing.assert_allclose(from_68[2:], five[2:])
    assert np.abs(from_68[:2] - five[:2]).max() < 0.1 * inter_ocular(points, "98")


def test_points_that_do_not_exist_are_not_made_up() -> None:
    with pytest.raises(KilnError, match="68 landmarks do not hold all 98"):
        convert(np.zeros((68, 2)), "68", "98")
    with pytest.raises(KilnError, match="unknown landmark scheme '86'"):
        scheme("86")


def test_68_points_fill_only_the_compatible_ones_of_98() -> None:
    points = _frontal()
    filled = fill_98(convert(points, "98", "68"))
    there = ~np.isnan(filled).any(axis=1)
    assert tuple(np.flatnonzero(there)) == COMPATIBLE_68
    np.testing.assert_allclose(filled[there], points[there])


def test_inter_ocular_distance_is_between_the_outer_corners() -> None:
    points = _frontal(Shape(eye_gap=0.4, eye_width=0.2))
    assert inter_ocular(points, "98") == pytest.approx(120, rel=1e-3)  # 2 * (0.4 + 0.2) * 100 px
    assert inter_ocular(convert(points, "98", "68"), "68") == pytest.approx(120, rel=1e-3)
    assert inter_ocular(_as_106(points), "106") == pytest.approx(120, rel=1e-3)


def test_eye_aspect_tells_closed_eyes_from_open_ones() -> None:
    opened, closed = _frontal(Shape(eye_open=0.09)), _frontal(Shape(eye_open=0.01))
    for name, points in (("98", opened), ("106", _as_106(opened)), ("68", convert(opened, "98", "68"))):
        assert (eye_aspect(points, name) > 0.2).all(), name
    assert (eye_aspect(closed, "98") < 0.1).all()


def test_eye_aspect_is_the_mean_lid_distance_over_the_width() -> None:
    eye = np.array([[0, 0], [1, -1], [2, -2], [3, -1], [4, 0], [3, 1], [2, 2], [1, 1]], float)
    points = np.zeros((98, 2))
    points[60:68] = eye
    points[68:76] = eye * [1, 0]
    np.testing.assert_allclose(eye_aspect(points, "98"), [(2 + 4 + 2) / 3 / 4, 0])


def test_eye_aspect_is_unknown_without_lids_or_width() -> None:
    assert np.isnan(eye_aspect(np.zeros((2, 5, 2)), "5")).all()
    assert np.isnan(eye_aspect(np.zeros((98, 2)), "98")).all()
