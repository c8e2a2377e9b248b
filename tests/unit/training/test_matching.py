"""Matching: who learns which face, and that decoding gives it back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.config import Priors
from facekiln.training.matching import BACKGROUND, FACE, IGNORED, Matching, Targets, corners, match
from facekiln.vision.decode import decode_boxes, decode_landmarks
from facekiln.vision.priors import make_priors

PRIORS = Priors(((16, 32), (64, 128), (256, 512)), (8, 16, 32), (0.1, 0.2))
RULE = Matching(overlap=0.35, least_overlap=0.2, least_face=9)
SIDE = 160
GRID = make_priors(PRIORS, (SIDE, SIDE))
NONE = np.zeros((0, 4))


def points_of(boxes: np.ndarray) -> np.ndarray:
    where = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return boxes[:, None, :2] + where * (boxes[:, None, 2:] - boxes[:, None, :2])


def matched(boxes: list[list[float]], ignored: np.ndarray = NONE) -> Targets:
    truth = np.array(boxes, np.float64).reshape(-1, 4) / SIDE
    return match(truth, points_of(truth), ignored / SIDE, GRID, corners(GRID), PRIORS.variances, RULE)


face_boxes = st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(12, 60), st.floats(0.7, 1.2)).map(
    lambda v: [v[0], v[1], v[0] + v[2], v[1] + min(v[2] * v[3], 60)]
)


@settings(max_examples=50, deadline=None)
@given(face_boxes)
def test_decoding_gives_the_face_back(box: list[float]) -> None:
    targets = matched([box])
    learn = targets.labels == FACE
    assert learn.any()
    decoded = decode_boxes(targets.loc[learn], GRID[learn], PRIORS.variances) * SIDE
    np.testing.assert_allclose(decoded, np.tile(box, (learn.sum(), 1)), atol=1e-3)
    truth = np.array([box]) / SIDE
    points = decode_landmarks(targets.landms[learn], GRID[learn], PRIORS.variances)
    np.testing.assert_allclose(points, np.tile(points_of(truth), (learn.sum(), 1, 1)), atol=1e-5)


def test_the_size_of_a_face_decides_which_priors_learn_it() -> None:
    targets = matched([[40, 40, 104, 104]])
    assert set(np.rint(GRID[targets.labels == FACE, 2] * SIDE)) <= {64, 128}


def test_a_prior_learns_the_face_that_it_overlaps_most() -> None:
    targets = matched([[40, 40, 72, 72], [56, 40, 88, 72]])
    learn = np.flatnonzero(targets.labels == FACE)
    centres = decode_boxes(targets.loc[learn], GRID[learn], PRIORS.variances)[:, 0] * SIDE
    left = centres < 48
    assert left.any() and (~left).any()
    assert GRID[learn[left], 0].max() <= GRID[learn[~left], 0].min() + 8 / SIDE


def test_the_best_prior_of_a_small_face_learns_it_below_the_threshold() -> None:
    """A face of 10 x 8 pixels overlaps a prior of 16 by at most 80 / 256 = 0.31."""
    targets = matched([[43, 43, 53, 51]])
    assert (targets.labels == FACE).sum() == 1


def test_but_not_without_any_real_overlap() -> None:
    assert not (matched([[43, 43, 48, 48]]).labels == FACE).any()


def test_no_face_is_all_background() -> None:
    targets = matched([])
    assert (targets.labels == BACKGROUND).all() and not targets.loc.any()


def test_priors_on_an_ignored_face_stay_out() -> None:
    targets = matched([[100, 100, 132, 132]], np.array([[20.0, 20.0, 60.0, 60.0]]))
    centre = GRID[:, :2] * SIDE
    on = ((centre >= 20) & (centre <= 60)).all(axis=1)
    assert (targets.labels[on] == IGNORED).all()
    assert (targets.labels[~on] != IGNORED).all()
    assert (targets.labels == FACE).any()


def test_a_learned_face_wins_over_an_ignored_one() -> None:
    targets = matched([[20, 20, 52, 52]], np.array([[20.0, 20.0, 60.0, 60.0]]))
    assert (targets.labels == FACE).any()


def test_a_face_without_landmarks_is_learned_without() -> None:
    boxes = np.array([[20.0, 20, 52, 52], [100, 100, 132, 132]]) / SIDE
    points = points_of(boxes)
    points[1, 3] = np.nan
    targets = match(boxes, points, NONE, GRID, corners(GRID), PRIORS.variances, RULE)
    learned, pointed = targets.labels == FACE, targets.pointed
    assert pointed.any() and (learned & ~pointed).any() and not (pointed & ~learned).any()
    assert np.isfinite(targets.landms).all()
    assert (GRID[pointed, 0] < 0.5).all() and (GRID[learned & ~pointed, 0] > 0.5).all()


def test_corners_are_those_of_the_priors() -> None:
    boxes = corners(np.array([[0.5, 0.5, 0.2, 0.4]], np.float32))
    assert boxes[0] == pytest.approx([0.4, 0.3, 0.6, 0.7])
