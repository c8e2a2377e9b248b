"""Drawn scenes: the same bytes for the same seed, and truths that are exact."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from facekiln.data.head import FIVE, View, landmarks_3d, rotation
from facekiln.data.procedural import Face, Scene, Style, draw_scene, scene_seed

LONE = Style(face_size=(60, 120), most_faces=1, empty=0.0, truncated=0.0)
SEEDS = range(24)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, (240, 320)) for seed in SEEDS]


def test_a_scene_is_a_bgr_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (240, 320, 3)
        assert scene.image.dtype == np.uint8
        assert scene.image.flags.c_contiguous


def test_the_same_seed_gives_the_same_bytes(scenes: list[Scene]) -> None:
    again = draw_scene(3, (240, 320))
    assert again.image.tobytes() == scenes[3].image.tobytes()
    assert [face.box for face in again.faces] == [face.box for face in scenes[3].faces]


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib, sys; from facekiln.data.procedural import draw_scene;"
        "sys.stdout.write(hashlib.sha256(draw_scene(5, (160, 160)).image.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == hashlib.sha256(draw_scene(5, (160, 160)).image.tobytes()).hexdigest()


def test_the_number_of_opencv_threads_changes_nothing() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = draw_scene(11, (320, 320)).image
        cv2.setNumThreads(4)
        assert draw_scene(11, (320, 320)).image.tobytes() == one.tobytes()
    finally:
        cv2.setNumThreads(before)


def test_seeds_differ(scenes: list[Scene]) -> None:
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_seeds_of_two_purposes_are_disjoint() -> None:
    train = {scene_seed("train", 1, index) for index in range(2000)}
    held_out = {scene_seed("held-out", 1, index) for index in range(2000)}
    assert len(train) == len(held_out) == 2000
    assert not train & held_out


def faces_of(scenes: list[Scene]) -> list[Face]:
    return [face for scene in scenes for face in scene.faces]


def test_boxes_lie_in_the_picture_and_hold_the_landmarks(scenes: list[Scene]) -> None:
    faces = faces_of(scenes)
    assert len(faces) > 20
    for face in faces:
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 240
        assert face.landmarks98.shape == (98, 2)
        inside = face.landmarks98.clip([0, 0], [320, 240])
        assert (inside >= np.array([x1, y1]) - 1e-9).all()
        assert (inside <= np.array([x2, y2]) + 1e-9).all()
        np.testing.assert_array_equal(face.landmarks5, face.landmarks98[list(FIVE)])


def test_a_box_is_tight_on_chin_and_sides() -> None:
    """Roll and yaw aside, landmarks bound a whole face on three sides and the hairline on the fourth."""
    for seed in SEEDS:
        style = Style(
            face_size=(60, 120), most_faces=1, empty=0, truncated=0, max_yaw=0, max_pitch=0, max_roll=0
        )
        for face in draw_scene(seed, (240, 240), style).faces:
            low, high = face.landmarks98.min(axis=0), face.landmarks98.max(axis=0)
            assert face.box[3] == pytest.approx(high[1])
            assert face.box[0] == pytest.approx(low[0], abs=1.5)
            assert face.box[2] == pytest.approx(high[0], abs=1.5)
            brow = face.landmarks98[33:51, 1].min()
            assert 0.08 * face.size < brow - face.box[1] < 0.45 * face.size


def test_sizes_are_within_the_style() -> None:
    style = Style(face_size=(20, 90), most_faces=6)
    sizes = [face.size for seed in range(30) for face in draw_scene(seed, (300, 300), style).faces]
    assert min(sizes) >= 20 - 1e-6 and max(sizes) <= 90 + 1e-6
    assert np.ptp(sizes) > 40


def test_a_truncated_face_says_how_much_is_visible() -> None:
    style = Style(face_size=(80, 120), most_faces=3, truncated=1.0)
    faces = [face for seed in range(30) for face in draw_scene(seed, (200, 200), style).faces]
    cut = [face for face in faces if face.visible < 1]
    assert len(cut) > 5
    assert all(0.6 <= face.visible <= 1 for face in faces)
    for face in cut:
        assert {0.0, 200.0} & set(face.box)


def test_the_pose_is_the_one_that_was_drawn() -> None:
    """Rotating any head by the stated pose explains the drawn eye line and nose: checked through a fit."""
    errors = []
    for seed in range(16):
        for face in draw_scene(seed, (240, 240), LONE).faces:
            model = landmarks_3d_of_average()
            ideal = View(rotation(face.pose), 9.0).project(model)
            wrong = View(rotation((-face.pose[0], face.pose[1], face.pose[2])), 9.0).project(model)
            errors.append(
                (residual(ideal, face.landmarks98), residual(wrong, face.landmarks98), face.pose[0])
            )
    turned = [(good, bad) for good, bad, yaw in errors if abs(yaw) > 0.3]
    assert turned and all(good < bad for good, bad in turned)
    assert np.mean([good for good, _, _ in errors]) < 0.05


def landmarks_3d_of_average() -> np.ndarray:
    from facekiln.data.head import Shape

    return landmarks_3d(Shape())


def residual(one: np.ndarray, two: np.ndarray) -> float:
    """Mean distance after the best scale and shift (no rotation), over the size of the face."""
    a, b = one - one.mean(axis=0), two - two.mean(axis=0)
    scale = (a * b).sum() / (a * a).sum()
    return float(np.linalg.norm(a * scale - b, axis=1).mean() / np.ptp(b, axis=0).max())


def test_pixels_are_drawn_where_the_landmarks_say() -> None:
    """Pupils are darker than the lids' white beside them: the picture and the truth share one frame."""
    darker = total = 0
    for seed in range(40):
        scene = draw_scene(seed, (260, 260), Style((150, 200), 1, 0.0, 0.0, 0.2, 0.2, 0.2))
        for face in scene.faces:
            grey = cv2.GaussianBlur(cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY), (0, 0), 1.0)
            open_eye = np.ptp(face.landmarks98[60:68, 1]) > 8
            if face.occlusion > 0 or not open_eye:
                continue
            x, y = face.landmarks5[0]
            white = (face.landmarks98[60] + face.landmarks98[96]) / 2
            total += 1
            darker += int(grey[int(y), int(x)]) < int(grey[int(white[1]), int(white[0])])
    assert total >= 10
    assert darker / total > 0.8


def test_occlusion_and_blur_are_told(scenes: list[Scene]) -> None:
    faces = [face for seed in range(80) for face in draw_scene(seed, (160, 160), LONE).faces]
    shares = np.array([face.occlusion for face in faces])
    assert (shares == 0).any() and (shares > 0.1).any() and shares.max() < 0.75
    blurs = {face.blur for face in faces}
    assert 0.0 in blurs and max(blurs) > 0.5


def test_some_scenes_are_empty_and_none_when_told_so() -> None:
    counts = [len(draw_scene(seed, (96, 96), Style((12, 40), 3, 0.3)).faces) for seed in range(40)]
    assert 0 in counts and max(counts) >= 2
    assert all(not draw_scene(seed, (96, 96), Style(empty=1.0)).faces for seed in range(5))
    assert draw_scene(0, (96, 96), Style(empty=1.0)).boxes().shape == (0, 4)
    assert draw_scene(0, (96, 96), Style(empty=1.0)).landmarks().shape == (0, 5, 2)


@pytest.mark.parametrize("size", [(16, 16), (33, 257), (257, 33), (112, 112)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    for seed in range(6):
        scene = draw_scene(seed, size)
        assert scene.image.shape == (*size, 3)
        for face in scene.faces:
            assert face.box[2] <= size[1] and face.box[3] <= size[0]


def test_a_near_head_hides_little_of_another_face() -> None:
    style = Style(face_size=(20, 120), most_faces=10)
    for seed in range(12):
        boxes = draw_scene(seed, (320, 320), style).boxes()
        for i, one in enumerate(boxes):
            for two in boxes[i + 1 :]:  # drawn later, so nearer
                wide = np.minimum(one[2], two[2]) - np.maximum(one[0], two[0])
                tall = np.minimum(one[3], two[3]) - np.maximum(one[1], two[1])
                area = (one[2] - one[0]) * (one[3] - one[1])
                assert max(wide, 0) * max(tall, 0) < 0.25 * area
