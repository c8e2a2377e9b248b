"""Crops: the faces move with the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facekiln.data.procedural import Style, draw_scene
from facekiln.data.procedural_set import scene_sample
from facekiln.data.sample import Sample, landmarks_of, sample_of
from facekiln.training.crops import Crop, Cut, make_crop

CUT = Cut(size=(96, 128), faces=(8, 90), on_a_face=0.9, least_face=8)


def marked(count: int = 3, ignore: tuple[int, ...] = ()) -> Sample:
    """Faces that are plain white boxes on black, with landmarks on their corners and centre."""
    image = np.zeros((256, 320, 3), np.uint8)
    boxes, points = [], []
    for x, y, size in [(20, 30, 40), (150, 60, 80), (60, 170, 24)][:count]:
        image[y : y + size, x : x + size] = 255
        far = [x + size, y + size]
        middle = [x + size / 2, y + size / 2]
        points.append([[x, y], [x + size, y], middle, [x, y + size], far])
        boxes.append([x, y, *far])
    mask = np.isin(np.arange(count), ignore)
    return sample_of("marked", lambda: image, boxes, landmarks=landmarks_of("5", points), ignore=mask)


def crop_of(sample: Sample, seed: int, cut: Cut = CUT) -> Crop:
    picture = sample.load()
    return make_crop(np.random.default_rng(seed), sample, lambda _: picture, cut)


@pytest.mark.parametrize("seed", range(30))
def test_boxes_fall_on_the_pixels_of_their_faces(seed: int) -> None:
    crop = crop_of(marked(), seed)
    assert crop.image.shape == (96, 128, 3) and crop.image.dtype == np.uint8
    black = crop.image.min()
    bright = (crop.image.max(axis=2).astype(int) - black) > 0.5 * (int(crop.image.max()) - black)
    expected = np.zeros((96, 128), bool)
    for x1, y1, x2, y2 in np.concatenate([crop.boxes, crop.ignored]):
        expected[round(y1) : round(y2), round(x1) : round(x2)] = True
    if expected.any() and not expected.all():
        assert (bright != expected).mean() < 0.04


@pytest.mark.parametrize("seed", range(20))
def test_a_picture_read_at_a_fraction_gives_the_same_faces(seed: int) -> None:
    """It is read so only where the crop shows it at half its size or less."""
    sample, cut = marked(), Cut((96, 128), (8, 12), 1.0, 6)
    whole = crop_of(sample, seed, cut)
    small = cv2.resize(sample.load(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    stated = sample_of(
        "x", lambda: small, sample.boxes, landmarks=sample.landmarks, ignore=sample.ignore, size=(256, 320)
    )
    half = crop_of(stated, seed, cut)
    np.testing.assert_allclose(half.boxes, whole.boxes, atol=1.5)
    difference = np.abs(half.image.astype(int) - whole.image.astype(int))
    assert np.median(difference) <= 1


@pytest.mark.parametrize("seed", range(30))
def test_landmarks_keep_their_sides(seed: int) -> None:
    """Mirrored or not, the first point is the left eye and the fourth the left corner of the mouth."""
    crop = crop_of(marked(), seed)
    for points in crop.landmarks:
        assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
        assert points[0, 1] < points[3, 1]
        np.testing.assert_allclose(points[2], points[[0, 1, 3, 4]].mean(axis=0), atol=1e-9)


def test_it_mirrors_and_zooms_both_ways() -> None:
    crops = [crop_of(marked(1), seed) for seed in range(60)]
    sizes = [crop.boxes[0, 2] - crop.boxes[0, 0] for crop in crops if len(crop.boxes)]
    assert min(sizes) < 30 and max(sizes) > 60
    scene = scene_sample("x", draw_scene(4, (192, 192), Style((60, 120), 1, 0.0, 0.0)))
    assert len({crop_of(scene, seed).image.tobytes() for seed in range(10)}) == 10


def test_faces_are_shown_at_the_sizes_asked_for() -> None:
    cut = Cut((96, 96), (40, 60), 1.0, 8)
    shown = [box for seed in range(60) for box in crop_of(marked(1), seed, cut).boxes]
    sides = np.array([max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in shown])
    assert ((sides > 38) & (sides < 62)).mean() > 0.9


def test_small_and_cut_faces_are_ignored_not_background() -> None:
    sample, seen = marked(), 0
    cut = Cut((128, 128), (20, 120), 0.9, 20)
    for seed in range(60):
        crop = crop_of(sample, seed, cut)
        for x1, y1, x2, y2 in crop.boxes:
            assert max(x2 - x1, y2 - y1) >= 10  # at least half of a face of 20 pixels
        seen += len(crop.ignored)
        assert (crop.ignored >= 0).all() and (crop.ignored <= 128).all()
    assert seen > 5


def test_faces_ignored_by_annotation_are_never_learned() -> None:
    crops = [crop_of(marked(2, ignore=(0, 1)), seed) for seed in range(20)]
    assert not any(len(crop.boxes) for crop in crops) and any(len(crop.ignored) for crop in crops)


def test_faces_without_landmarks_are_learned_without() -> None:
    sample = sample_of("x", marked().load, marked().boxes)
    crops = [crop_of(sample, seed) for seed in range(10)]
    assert any(len(crop.boxes) for crop in crops)
    assert all(np.isnan(crop.landmarks).all() and crop.landmarks.shape[1:] == (5, 2) for crop in crops)


def test_equal_generators_give_equal_crops() -> None:
    scene = scene_sample("x", draw_scene(2, (160, 160)))
    one, two = crop_of(scene, 9), crop_of(scene, 9)
    assert one.image.tobytes() == two.image.tobytes()
    np.testing.assert_array_equal(one.boxes, two.boxes)


def test_a_picture_without_faces_gives_crops_without() -> None:
    crop = crop_of(sample_of("x", lambda: np.full((128, 128, 3), 90, np.uint8), []), 0)
    assert crop.boxes.shape == (0, 4) and crop.landmarks.shape == (0, 5, 2) and crop.ignored.shape == (0, 4)


def test_a_picture_smaller_than_the_crop_is_framed() -> None:
    crop = crop_of(sample_of("x", lambda: np.full((20, 30, 3), 200, np.uint8), [[5, 5, 15, 15]]), 1)
    assert crop.image.shape == (96, 128, 3)


def test_the_picture_is_left_as_it_was() -> None:
    sample = marked()
    before = sample.load().copy()
    for seed in range(8):
        crop = crop_of(sample, seed, Cut((256, 256), (8, 200), 0.9, 8))
        cv2.circle(crop.image, (5, 5), 3, (1, 2, 3), -1)
    assert np.array_equal(sample.load(), before)
