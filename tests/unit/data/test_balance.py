"""Balance by pose, size and closed eyes, and the weights that even it out."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from facekiln.data.balance import MOST, balance
from facekiln.data.head import Shape, View, landmarks_3d
from facekiln.data.sample import Sample, landmarks_of, sample_of


def _eyes(opened: float) -> np.ndarray:
    return View(np.eye(3), 1e6, 50.0).project(landmarks_3d(Shape(eye_open=opened)))


def _sample(name: str = "a", **more: object) -> Sample:
    boxes = more.pop("boxes", [[0, 0, 20, 24]])
    return sample_of(name, Path(name), boxes, **more)


def _poses(*degrees: tuple[float, float, float]) -> Sample:
    return _sample(boxes=[[0, 0, 20, 24]] * len(degrees), pose=np.deg2rad(degrees))


def test_poses_fall_into_their_bins() -> None:
    even = balance([_poses((0, 0, 0), (-65, -35, 0), (45, 15, -40), (np.nan, np.nan, np.nan))])
    counts = even.record()["factors"]
    assert counts["yaw"]["< -60 deg"] == 1 and counts["yaw"]["-10..10 deg"] == 1
    assert counts["yaw"]["30..60 deg"] == 1 and counts["yaw"]["unknown"] == 1
    assert counts["pitch"]["< -30 deg"] == 1 and counts["pitch"]["10..30 deg"] == 1
    assert counts["roll"]["< -30 deg"] == 1 and counts["roll"]["-10..10 deg"] == 2


def test_one_closed_eye_is_enough() -> None:
    wink = _eyes(0.1)
    wink[60:68] = _eyes(0.005)[60:68]
    marks = landmarks_of("98", np.stack([_eyes(0.1), _eyes(0.005), wink, np.full((98, 2), np.nan)]))
    even = balance([_sample(boxes=[[0, 0, 20, 24]] * 4, landmarks=marks)])
    assert even.record()["factors"]["eyes"] == {"closed": 2, "open": 1, "unknown": 1}


def test_the_longer_side_decides_the_size() -> None:
    even = balance([_sample(boxes=[[0, 0, 5, 9], [0, 0, 5, 10], [0, 0, 300, 20]])])
    assert even.record()["factors"]["size"]["< 10 px"] == 1
    assert even.record()["factors"]["size"]["10..16 px"] == 1
    assert even.record()["factors"]["size"][">= 256 px"] == 1


def test_whole_attributes_are_counted_and_do_not_weigh() -> None:
    plain = _sample(boxes=[[0, 0, 20, 24]] * 4)
    labelled = _sample(
        boxes=[[0, 0, 20, 24]] * 4, attributes={"blur": np.array([0, 0, 2, 0]), "score": np.array([0.1] * 4)}
    )
    even = balance([labelled])
    assert even.record()["factors"]["attribute blur"] == {"0": 3, "2": 1, "unknown": 0}
    assert "attribute score" not in even.record()["factors"]
    np.testing.assert_array_equal(even.weights, balance([plain]).weights)


def test_each_bin_of_a_factor_gets_the_same_weight_in_all() -> None:
    even = balance([_poses(*[(0, 0, 0)] * 6, *[(45, 0, 0)] * 2)])
    assert even.weights.mean() == pytest.approx(1)
    # Yaw has two bins in use; pitch, roll and size have one, so each of them asks for a weight of 1.
    assert even.weights[6] == pytest.approx((8 / 2 / 2 + 3) / 4)
    assert even.weights[0] == pytest.approx((8 / 6 / 2 + 3) / 4)


def test_a_single_rare_face_does_not_fill_every_batch() -> None:
    sizes = [[0, 0, 20, 24]] * 999 + [[0, 0, 400, 400]]
    even = balance([_sample(boxes=sizes)])
    assert even.weights[-1] == pytest.approx(MOST)
    assert even.weights.mean() == pytest.approx(1)


def test_ignored_faces_do_not_count() -> None:
    even = balance([_sample(boxes=[[0, 0, 20, 24]] * 3, ignore=[False, True, False])])
    assert even.faces == [("a", 0), ("a", 2)]


def test_datasets_without_pose_or_eyes_say_nothing_about_them() -> None:
    assert [factor.name for factor in balance([_sample()]).factors] == ["size"]


def test_no_faces_at_all() -> None:
    for samples in ([], [_sample(boxes=[])]):
        even = balance(samples)
        assert even.faces == [] and even.record()["faces"] == 0 and even.text()


def test_csv_quotes_what_needs_it() -> None:
    rows = list(csv.DictReader(io.StringIO(balance([_sample('a,"b".jpg')]).csv())))
    assert rows == [{"source": 'a,"b".jpg', "face": "0", "weight": "1"}]
