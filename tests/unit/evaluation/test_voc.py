"""Average precision: small cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.evaluation.voc import average_precision

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [100, 100, 180, 180]
FAR = [300, 300, 310, 310]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def test_all_found_first_is_one() -> None:
    result = average_precision([(boxes(A, B, FAR), np.array([0.9, 0.8, 0.1]))], [boxes(A, B)])
    assert (result.ap, result.truths, result.found) == (1.0, 2, 2)


def test_a_false_alarm_before_a_hit_costs() -> None:
    """Scores: right, wrong, right. Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: AP = 1/2 + 1/2 * 2/3."""
    result = average_precision([(boxes(A, FAR, B), np.array([0.9, 0.8, 0.7]))], [boxes(A, B)])
    assert result.ap == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_second_detection_of_a_face_is_wrong() -> None:
    result = average_precision([(boxes(A, A, B), np.array([0.9, 0.8, 0.7]))], [boxes(A, B)])
    assert result.ap == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert result.found == 2


def test_order_is_by_score_over_all_pictures() -> None:
    """A wrong detection of one picture with the best score comes before the right one of another."""
    result = average_precision(
        [(boxes(FAR), np.array([0.9])), (boxes(A), np.array([0.5]))], [boxes(), boxes(A)]
    )
    assert result.ap == pytest.approx(0.5)


def test_the_overlap_needs_the_threshold() -> None:
    """[0,0,10,5] covers exactly half of [0,0,10,10]; no pixel is added to sides."""
    half = [(boxes([0, 0, 10, 5]), np.array([0.9]))]
    assert average_precision(half, [boxes(A)]).ap == 1.0
    assert average_precision([(boxes([0, 0, 10, 4.99]), np.array([0.9]))], [boxes(A)]).ap == 0.0


def test_missed_faces_lower_the_area() -> None:
    assert average_precision([(boxes(A), np.array([0.9]))], [boxes(A, B, C)]).ap == pytest.approx(1 / 3)
    assert average_precision([(boxes(), np.zeros(0))], [boxes(A)]).ap == 0.0


def test_no_truth_has_no_precision() -> None:
    assert math.isnan(average_precision([(boxes(A), np.array([0.9]))], [boxes()]).ap)


def test_a_size_range_ignores_the_others() -> None:
    """C (80 px) is out of the range: its detection is neither right nor wrong. FAR (10 px) is wrong."""
    found = [(boxes(C, A, FAR), np.array([0.9, 0.8, 0.7]))]
    small = average_precision(found, [boxes(A, C)], sizes=(0, 16))
    assert (small.ap, small.truths) == (1.0, 1)
    first = [(boxes(C, FAR, A), np.array([0.9, 0.8, 0.7]))]
    assert average_precision(first, [boxes(A, C)], sizes=(0, 16)).ap == pytest.approx(0.5)
    assert average_precision(first, [boxes(A, C)], sizes=(64, 128)).ap == 1.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1)), min_size=1, max_size=30))
def test_it_is_the_area_under_the_envelope(cases: list[tuple[bool, float]]) -> None:
    """Against a slow definition: the mean over faces of the best precision at or beyond their recall."""
    cases = [(hit, round(score, 6) + 1e-7 * i) for i, (hit, score) in enumerate(cases)]
    detections = [(boxes(A if hit else FAR), np.array([score])) for hit, score in cases]
    truths = [boxes(A) for _ in cases]
    ordered = [hit for hit, _ in sorted(cases, key=lambda case: -case[1])]
    precision = [sum(ordered[: i + 1]) / (i + 1) for i in range(len(ordered))]
    slow = sum(max(precision[i:]) for i, hit in enumerate(ordered) if hit) / len(cases)
    assert average_precision(detections, truths).ap == pytest.approx(slow)
