"""Crops: the faces move with the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facekiln.data.procedural import Face, Scene, Style, draw_scene
from facekiln.training.crops import make_crop


def marked(count: int = 3) -> Scene:
    """Faces that are plain white boxes on black, with landmarks on their corners and centre."""
    image = np.zeros((256, 256, 3), np.uint8)
    faces = []
    for x, y, size in [(20, 30, 40), (150, 60, 80), (60, 170, 24)][:count]:
        image[y : y + size, x : x + size] = 255
        points = np.array(
            [[x, y], [x + size, y], [x + size / 2, y + size / 2], [x, y + size], [x + size, y + size]], float
        )
        box = (float(x), float(y), float(x + size), float(y + size))
        faces.append(Face(box, points, np.zeros((98, 2)), (0, 0, 0), float(size), 0.0, 0.0, 1.0))
    return Scene(image, faces)


@pytest.mark.parametrize("seed", range(30))
def test_boxes_fall_on_the_pixels_of_their_faces(seed: int) -> None:
    crop = make_crop(np.random.default_rng(seed), marked(), 128, 8)
    assert crop.image.shape == (128, 128, 3) and crop.image.dtype == np.uint8
    black = crop.image.min()
    bright = (crop.image.max(axis=2).astype(int) - black) > 0.5 * (int(crop.image.max()) - black)
    expected = np.zeros((128, 128), bool)
    for x1, y1, x2, y2 in np.concatenate([crop.boxes, crop.ignored]):
        expected[round(y1) : round(y2), round(x1) : round(x2)] = True
    if expected.any() and not expected.all():
        assert (bright != expected).mean() < 0.04


@pytest.mark.parametrize("seed", range(30))
def test_landmarks_keep_their_sides(seed: int) -> None:
    """Mirrored or not, the first point is the left eye and the fourth the left corner of the mouth."""
    crop = make_crop(np.random.default_rng(seed), marked(), 128, 8)
    for points in crop.landmarks:
        assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
        assert points[0, 1] < points[3, 1]
        np.testing.assert_allclose(points[2], points[[0, 1, 3, 4]].mean(axis=0), atol=1e-9)


def test_it_mirrors_and_zooms_both_ways() -> None:
    crops = [make_crop(np.random.default_rng(seed), marked(1), 128, 8) for seed in range(60)]
    sizes = [crop.boxes[0, 2] - crop.boxes[0, 0] for crop in crops if len(crop.boxes)]
    assert min(sizes) < 30 and max(sizes) > 60
    scene = draw_scene(4, (192, 192), Style((60, 120), 1, 0.0, 0.0))
    texture = {make_crop(np.random.default_rng(seed), scene, 64, 8).image.tobytes() for seed in range(10)}
    assert len(texture) == 10


def test_small_and_cut_faces_are_ignored_not_background() -> None:
    scene, seen = marked(), 0
    for seed in range(60):
        crop = make_crop(np.random.default_rng(seed), scene, 128, 20)
        for x1, y1, x2, y2 in crop.boxes:
            assert max(x2 - x1, y2 - y1) >= 10  # at least half of a face of 20 pixels
        seen += len(crop.ignored)
        assert (crop.ignored >= 0).all() and (crop.ignored <= 128).all()
    assert seen > 5


def test_equal_generators_give_equal_crops() -> None:
    scene = draw_scene(2, (160, 160))
    one, two = (make_crop(np.random.default_rng(9), scene, 64, 8) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    np.testing.assert_array_equal(one.boxes, two.boxes)


def test_a_scene_without_faces_gives_crops_without() -> None:
    scene = Scene(np.full((128, 128, 3), 90, np.uint8))
    crop = make_crop(np.random.default_rng(0), scene, 64, 8)
    assert crop.boxes.shape == (0, 4) and crop.landmarks.shape == (0, 5, 2) and crop.ignored.shape == (0, 4)


def test_the_scene_is_left_as_it_was() -> None:
    scene = marked()
    before = scene.image.copy()
    for seed in range(8):
        crop = make_crop(np.random.default_rng(seed), scene, 256, 8)
        cv2.circle(crop.image, (5, 5), 3, (1, 2, 3), -1)
    assert np.array_equal(scene.image, before)
