"""Crops of faces: landmarks stay on their pixels, poses follow the picture, use and training agree."""

import math

import numpy as np
import pytest

from facekiln.config import Crop
from facekiln.data.head import View, landmarks_3d, random_shape, rotation
from facekiln.data.procedural import Style, draw_scene, scene_seed
from facekiln.training.landmark_crops import (
    mirrored_crop,
    mirrored_pose,
    place,
    plain_crop,
    training_crop,
    turned_crop,
    turned_pose,
)
from facekiln.training.landmark_looks import change_looks
from facekiln.training.landmark_settings import CropSettings, LandmarkLoss, LandmarkSettings, LookSettings
from facekiln.vision.landmarks import cut, square_around

DECLARED = Crop(side=0.9, above=0.4)
SETTINGS = CropSettings()
NOWHERE = np.full(4, np.nan)
POSES = [(0.0, 0.0, 0.0), (0.9, -0.3, 0.4), (-0.7, 0.45, -0.5), (0.2, 0.1, 1.0)]
QUIET = LookSettings(light=0, grey=0, blur=0, noise=0, patch=0)
NO_POSE = np.full(3, np.nan)


def seen(pose: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The 98 points of a drawn head, pixels, and where its origin falls (on the axis of the camera)."""
    shape = random_shape(np.random.default_rng(3))
    view = View(rotation(pose), 8.0, 40.0, (100.0, 120.0))
    return view.project(landmarks_3d(shape)), np.array([100.0, 120.0])


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("degrees", [-40, -15, 20, 35])
def test_the_pose_of_a_turned_picture_is_the_one_that_the_renderer_draws_it_by(
    pose: tuple[float, float, float], degrees: float
) -> None:
    angle = math.radians(degrees)
    points, centre = seen(pose)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    new = turned_pose(np.array(pose), angle)
    drawn, _ = seen((new[0], new[1], new[2]))
    np.testing.assert_allclose((points - centre) @ turn.T + centre, drawn, atol=1e-9)


def test_turning_adds_to_the_roll_of_a_frontal_head() -> None:
    # 300W-LP: a positive roll tilts the head clockwise in the picture.
    np.testing.assert_allclose(turned_pose(np.array([0.0, 0.0, 0.1]), 0.2), [0, 0, 0.3], atol=1e-12)
    assert np.isnan(turned_pose(NO_POSE, 0.2)).all()


@pytest.mark.parametrize("pose", POSES)
def test_a_mirrored_head_has_the_other_yaw_and_roll(pose: tuple[float, float, float]) -> None:
    flip = np.diag([-1.0, 1.0, 1.0])
    other = mirrored_pose(np.array(pose))
    np.testing.assert_allclose(
        rotation((other[0], other[1], other[2])), flip @ rotation(pose) @ flip, atol=1e-12
    )


def dots(side: int, points: np.ndarray) -> np.ndarray:
    """A dark picture with a soft light around each point, in a colour of its own per axis."""
    y, x = np.mgrid[:side, :side] + 0.5
    picture = np.zeros((side, side))
    for px, py in points:
        picture = np.maximum(picture, 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2)))
    return np.repeat(picture[..., None], 3, axis=2).astype(np.uint8)


def light_at(image: np.ndarray, point: np.ndarray, reach: int = 9) -> np.ndarray:
    """Centre of the light near a point, on the plane."""
    x0, y0 = np.floor(point).astype(int) - reach
    part = image[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1, 0].astype(float)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
    return np.array([(part * x).sum() + 0, (part * y).sum()]) / part.sum() + [x0, y0]


@pytest.mark.parametrize("degrees", [0.0, 17.0, -30.0, 44.0])
@pytest.mark.parametrize("length", [150.0, 300.0])
def test_points_stay_on_their_pixels(degrees: float, length: float) -> None:
    points = np.array([[180.0, 190.0], [230.0, 185.0], [205.0, 225.0]])
    picture = dots(400, points)
    crop = turned_crop(picture, np.array([203.3, 207.7, length]), points, NO_POSE, 150, math.radians(degrees))
    for place_ in crop.points * 150:
        np.testing.assert_allclose(light_at(crop.image, place_), place_, atol=0.15)


def test_without_change_a_training_crop_is_the_crop_of_use() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    box, points = np.array([40.0, 30.0, 200.0, 250.0]), np.array([[90.0, 100.0], [120.0, 200.0]])
    where = place(box, NOWHERE, True, DECLARED, SETTINGS)
    square = square_around(box, DECLARED)
    crop = plain_crop(picture, where, points, NO_POSE, 112)
    np.testing.assert_array_equal(crop.image, cut(picture, square, (112, 112)))
    np.testing.assert_allclose(crop.points * square.side + [square.x, square.y], points)
    still = LandmarkSettings(8, LandmarkLoss(), CropSettings(shift=0, scale=(1, 1), turn=0, mirror=0), QUIET)
    same = training_crop(np.random.default_rng(1), picture, where, points, NO_POSE, 112, still)
    np.testing.assert_array_equal(same.image, crop.image)
    np.testing.assert_allclose(same.points, crop.points)


def test_the_square_is_around_the_box_or_the_landmarks() -> None:
    box, extent = np.array([0.0, 0.0, 100.0, 200.0]), np.array([10.0, 80.0, 90.0, 190.0])
    by_box, by_points = [50.0, 100 + 180 * 0.1, 180.0], [50.0, 135.0, 1.2 * 110]
    ways = {name: CropSettings(around=name) for name in ("auto", "box", "landmarks")}
    np.testing.assert_allclose(place(box, extent, True, DECLARED, ways["auto"]), by_box)
    np.testing.assert_allclose(place(box, extent, False, DECLARED, ways["auto"]), by_points)
    np.testing.assert_allclose(place(box, extent, False, DECLARED, ways["box"]), by_box)
    np.testing.assert_allclose(place(box, extent, True, DECLARED, ways["landmarks"]), by_points)
    np.testing.assert_allclose(place(box, NOWHERE, False, DECLARED, ways["landmarks"]), by_box)


def test_both_squares_of_drawn_faces_are_about_the_same() -> None:
    """Else a data set without boxes would teach faces of another size than those met in use."""
    ratios, offsets = [], []
    for index in range(12):
        scene = draw_scene(scene_seed("squares", 0, index), (320, 320), Style((60, 150), 4, max_roll=0.2))
        for face in scene.faces:
            if face.visible < 1:
                continue
            extent = np.concatenate([face.landmarks98.min(axis=0), face.landmarks98.max(axis=0)])
            one = place(np.array(face.box), extent, True, DECLARED, SETTINGS)
            two = place(np.array(face.box), extent, False, DECLARED, SETTINGS)
            ratios.append(two[2] / one[2])
            offsets.append((two[:2] - one[:2]) / one[2])
    assert len(ratios) > 15
    assert 0.9 < np.mean(ratios) < 1.15 and np.abs(np.mean(offsets, axis=0)).max() < 0.06


@pytest.mark.parametrize("count", [68, 98, 106])
def test_mirroring_twice_changes_nothing(count: int) -> None:
    rng = np.random.default_rng(count)
    picture = rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)
    points = rng.uniform(20, 100, (count, 2))
    crop = plain_crop(picture, np.array([60.0, 60, 100]), points, np.array([0.1, 0.2, 0.3]), 112)
    once = mirrored_crop(crop)
    assert not np.array_equal(once.image, crop.image)
    twice = mirrored_crop(once)
    np.testing.assert_array_equal(twice.image, crop.image)
    np.testing.assert_allclose(twice.points, crop.points)
    np.testing.assert_allclose(twice.pose, crop.pose)


def test_a_mirrored_drawn_face_keeps_left_and_right() -> None:
    points, centre = seen((0.3, 0.1, 0.0))
    crop = plain_crop(
        np.zeros((240, 240, 3), np.uint8), np.array([*centre, 200]), points, np.array([0.3, 0.1, 0]), 112
    )
    twin, _ = seen((-0.3, 0.1, 0.0))  # heads are symmetric but for their gaze
    mirrored = mirrored_crop(crop)
    wanted = plain_crop(np.zeros((240, 240, 3), np.uint8), np.array([*centre, 200]), twin, NO_POSE, 112)
    np.testing.assert_allclose(mirrored.points[:96], wanted.points[:96], atol=1e-9)
    np.testing.assert_allclose(mirrored.pose, [-0.3, 0.1, 0])


def test_changes_are_decided_by_the_seed_and_stay_in_their_ranges() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(100, 200, (98, 2))
    # Not mirrored, which would re-number the two points that are measured.
    looks = LookSettings(light=0.9, grey=0.3, blur=0.9, noise=0.9, patch=0.9)
    settings = LandmarkSettings(8, LandmarkLoss(), CropSettings(mirror=0), looks)
    where = np.array([150.0, 150.0, 120.0])
    sides = []
    for seed in range(40):
        one, two = (
            training_crop(np.random.default_rng(seed), picture, where, points, NO_POSE, 112, settings)
            for _ in range(2)
        )
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.points, two.points)
        assert one.image.shape == (112, 112, 3) and one.image.dtype == np.uint8
        spread = np.linalg.norm(one.points[3] - one.points[40]) / np.linalg.norm(points[3] - points[40])
        sides.append(1 / spread / 120)
    # The crop's side is the square's times `scale`, within the half pixel that a whole square may be off.
    assert 0.89 < min(sides) < 0.95 and 1.08 < max(sides) < 1.16


@pytest.mark.parametrize("name", ["light", "grey", "blur", "noise", "patch"])
def test_each_look_changes_the_picture_and_only_where_it_is_asked_for(name: str) -> None:
    picture = np.random.default_rng(0).integers(40, 216, (112, 112, 3), dtype=np.uint8)
    one = LookSettings(**{**vars(QUIET), name: 1.0})
    changed = [change_looks(np.random.default_rng(seed), picture, one) for seed in range(12)]
    for image in changed:
        assert image.shape == picture.shape and image.dtype == np.uint8
        assert not np.array_equal(image, picture)
    assert np.array_equal(change_looks(np.random.default_rng(0), picture, QUIET), picture)
    assert len({image.tobytes() for image in changed}) > (1 if name != "grey" else 0)
