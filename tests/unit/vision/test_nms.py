"""Overlaps and suppression, beside the textbook loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.vision import nms as module
from facekiln.vision.nms import iou_matrix, nms


def textbook_iou(a: list[float], b: list[float], extent: float) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + extent) * (box[3] - box[1] + extent) for box in (a, b)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0.0


def textbook_nms(boxes: list[list[float]], scores: list[float], iou: float, extent: float) -> list[int]:
    order = sorted(range(len(boxes)), key=lambda index: -scores[index])
    kept: list[int] = []
    for index in order:
        if all(textbook_iou(boxes[index], boxes[other], extent) <= iou for other in kept):
            kept.append(index)
    return kept


# Coarse numbers, so that equal scores and exact limits happen.
BOX = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12)).map(
    lambda v: [float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3])]
)


@given(
    st.lists(st.tuples(BOX, st.integers(0, 4)), max_size=25),
    st.sampled_from([0.0, 0.3, 0.4, 0.5, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([1, 3, 128]),
)
def test_equals_the_textbook(
    rows: list[tuple[list[float], int]], iou: float, extent: float, block: int
) -> None:
    boxes = np.array([box for box, _ in rows], np.float64).reshape(-1, 4)
    scores = np.array([score / 4 for _, score in rows])
    expected = textbook_nms(boxes.tolist(), scores.tolist(), iou, extent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        assert nms(boxes, scores, iou, extent).tolist() == expected


@given(st.lists(BOX, max_size=8), st.lists(BOX, max_size=8), st.sampled_from([0.0, 1.0]))
def test_overlaps_equal_the_textbook(a: list[list[float]], b: list[list[float]], extent: float) -> None:
    got = iou_matrix(np.array(a).reshape(-1, 4), np.array(b).reshape(-1, 4), extent)
    assert got.shape == (len(a), len(b))
    assert np.allclose(got, [[textbook_iou(x, y, extent) for y in b] for x in a] or np.zeros((0, len(b))))


def test_corners_are_pixels_by_default_as_in_pytorch_retinaface() -> None:
    # Sides 2 and overlap 1: 1 / 7 on the plane; with one more pixel each, sides 3 and overlap 2: 4 / 14.
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, 0.2).tolist() == [0]
    assert nms(boxes, scores, 0.2, extent=0).tolist() == [0, 1]
    assert iou_matrix(boxes, boxes)[0, 1] == pytest.approx(1 / 7)
    assert iou_matrix(boxes, boxes, extent=1)[0, 1] == pytest.approx(4 / 14)


def test_an_overlap_equal_to_the_limit_stays() -> None:
    boxes = np.array([[0, 0, 3, 0], [0, 0, 1, 0]], np.float64)
    assert nms(boxes, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]


def test_equal_scores_keep_their_order() -> None:
    boxes = np.array([[10 * i, 0, 10 * i + 5, 5] for i in range(50)], np.float32)
    assert nms(boxes, np.full(50, 0.5, np.float32), 0.4).tolist() == list(range(50))


def test_nothing_in_nothing_out() -> None:
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.4).tolist() == []
    assert iou_matrix(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_boxes_without_area_do_not_divide_by_zero() -> None:
    point = np.array([[1, 1, 1, 1]], np.float32)
    assert iou_matrix(point, point).tolist() == [[0]]
    assert iou_matrix(point, point, extent=1).tolist() == [[1]]


def test_epsilon_lowers_the_overlap_of_small_boxes() -> None:
    """The Ultra-Light detector's predictor adds 1e-5 of the picture's area to each union."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 3.001]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, 0.3, 0).tolist() == [0]
    assert nms(boxes, scores, 0.3, 0, 1e-5 * 240 * 320).tolist() == [0, 1]


@pytest.mark.parametrize("most", [0, 1, 5, 40, 10_000])
def test_the_most_wanted_are_the_first_of_all(most: int) -> None:
    rng = np.random.default_rng(most)
    low = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 30, (300, 2))], axis=1)
    scores = np.round(rng.uniform(size=300), 2)
    assert nms(boxes, scores, 0.4, most=most).tolist() == nms(boxes, scores, 0.4).tolist()[:most]
