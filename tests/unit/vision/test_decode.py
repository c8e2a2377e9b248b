"""Decoding and encoding are inverses, and are SSD's formulas."""

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facekiln.vision.decode import decode_boxes, decode_landmarks, encode_boxes, encode_landmarks

VARIANCES = (0.1, 0.2)
COUNT = st.integers(0, 20)


def floats(low: float, high: float, *shape: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, shape, elements=st.floats(low, high))


def priors(count: int) -> st.SearchStrategy[np.ndarray]:
    return st.tuples(floats(-1, 2, count, 2), floats(0.01, 2, count, 2)).map(lambda parts: np.hstack(parts))


def test_a_prior_with_zero_offsets_is_its_own_box() -> None:
    prior = np.array([[0.5, 0.25, 0.2, 0.1]])
    assert np.allclose(decode_boxes(np.zeros((1, 4)), prior, VARIANCES), [[0.4, 0.2, 0.6, 0.3]])


def test_an_offset_by_hand() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]])
    box = decode_boxes(np.array([[1.0, -2.0, 5.0, 0.0]]), prior, VARIANCES)
    # Centre 0.5 + 1 * 0.1 * 0.2 and 0.5 - 2 * 0.1 * 0.4; width 0.2 * e, height 0.4.
    half = 0.2 * np.e / 2
    assert np.allclose(box, [[0.52 - half, 0.22, 0.52 + half, 0.62]])
    points = decode_landmarks(np.arange(10.0)[None], prior, VARIANCES)
    assert points.shape == (1, 5, 2)
    assert np.allclose(points[0, 2], [0.5 + 4 * 0.1 * 0.2, 0.5 + 5 * 0.1 * 0.4])


@given(st.data(), COUNT)
def test_boxes_go_there_and_back(data: st.DataObject, count: int) -> None:
    prior, loc = data.draw(priors(count)), data.draw(floats(-10, 10, count, 4))
    boxes = decode_boxes(loc, prior, VARIANCES)
    assert boxes.shape == (count, 4)
    assert np.allclose(encode_boxes(boxes, prior, VARIANCES), loc, atol=1e-6)


@given(st.data(), COUNT, st.integers(1, 98))
def test_landmarks_go_there_and_back(data: st.DataObject, count: int, points: int) -> None:
    prior, landms = data.draw(priors(count)), data.draw(floats(-10, 10, count, 2 * points))
    decoded = decode_landmarks(landms, prior, VARIANCES)
    assert decoded.shape == (count, points, 2)
    assert np.allclose(encode_landmarks(decoded, prior, VARIANCES), landms, atol=1e-6)


def test_an_offset_too_large_gives_infinity_quietly() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loc = np.array([[0, 0, 1e6, 1e6]], np.float32)
        box = decode_boxes(loc, np.array([[0.5, 0.5, 0.1, 0.1]], np.float32), VARIANCES)
    assert not np.isfinite(box).any()


def test_single_precision_stays_single() -> None:
    prior = np.ones((3, 4), np.float32)
    assert decode_boxes(np.zeros((3, 4), np.float32), prior, VARIANCES).dtype == np.float32
    assert decode_landmarks(np.zeros((3, 10), np.float32), prior, VARIANCES).dtype == np.float32
