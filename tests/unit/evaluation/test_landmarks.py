"""Landmark errors against figures worked out by hand, and the traps of other tools' definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facekiln.data.procedural import draw_scene
from facekiln.errors import KilnError
from facekiln.evaluation.landmarks import (
    curve,
    in_one_scheme,
    normaliser,
    point_errors,
    pose_errors,
    subsets,
)


def _face(count: int = 98) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.uniform(0, 100, (1, count, 2))


@pytest.mark.parametrize(("scheme", "left", "right"), [("98", 60, 72), ("68", 36, 45), ("106", 66, 79)])
def test_inter_ocular_is_the_outer_corners(scheme: str, left: int, right: int) -> None:
    # WFLW 60-72 and 300-W 36-45: polarisZhao/PFLD-pytorch; LaPa 66-79: open-mmlab/mmpose.
    points = _face(int(scheme))
    points[0, left], points[0, right] = (10, 10), (13, 14)
    assert normaliser(points, np.zeros((1, 4)), scheme, "inter_ocular") == pytest.approx([5.0])


def test_inter_pupil_is_the_centres_or_the_mean_of_the_lids() -> None:
    points = _face(98)
    points[0, 96], points[0, 97] = (0, 0), (6, 8)
    assert normaliser(points, np.zeros((1, 4)), "98", "inter_pupil") == pytest.approx([10.0])
    points = _face(68)
    points[0, 36:42], points[0, 42:48] = (0, 0), (6, 8)
    assert normaliser(points, np.zeros((1, 4)), "68", "inter_pupil") == pytest.approx([10.0])


def test_box_is_the_root_of_its_area() -> None:
    boxes = np.array([[10.0, 10, 14, 19], [5, 5, 5, 9]])
    value = normaliser(np.repeat(_face(), 2, axis=0), boxes, "98", "box")
    assert value[0] == pytest.approx(6.0)
    assert math.isnan(value[1])


def test_an_unknown_normaliser_is_answered_with_the_nearest() -> None:
    with pytest.raises(KilnError, match="did you mean 'inter_ocular'"):
        normaliser(_face(), np.zeros((1, 4)), "98", "interocular")


def test_nme_is_the_mean_over_faces_of_the_mean_over_points() -> None:
    truth = np.repeat(_face(), 2, axis=0)
    truth[:, 60], truth[:, 72] = (0, 0), (50, 0)
    predicted = truth.copy()
    predicted[0] += (3, 4)  # every point is 5 pixels off
    predicted[1, 7] += (0, 98)  # one is 98 off: a mean of 1
    errors = point_errors(predicted, truth) / normaliser(truth, np.zeros((2, 4)), "98", "inter_ocular")
    assert errors == pytest.approx([0.1, 0.02])
    assert curve(errors).nme == pytest.approx(0.06)


def test_the_distance_in_the_prediction_is_never_used() -> None:
    # nniefacelib's test.py divides by the predicted eye distance and sums over points: a network that puts
    # the eyes too far apart looks better there. Here only the annotation's distance counts.
    truth = _face()
    truth[0, 60], truth[0, 72] = (0, 0), (50, 0)
    near, far = truth.copy(), truth.copy()
    near[0, 72], far[0, 72] = (40, 0), (60, 0)
    length = normaliser(truth, np.zeros((1, 4)), "98", "inter_ocular")
    assert point_errors(near, truth) / length == pytest.approx(point_errors(far, truth) / length)
    other = float(np.linalg.norm(far - truth, axis=2).sum() / 60)  # that "ION"
    assert other != pytest.approx(float((point_errors(far, truth) / length)[0]))
    assert other / 98 != pytest.approx(float((point_errors(far, truth) / length)[0]))


def test_points_without_annotation_are_left_out_of_their_face() -> None:
    truth = np.array([[[0.0, 0], [np.nan, np.nan], [10, 0]]])
    predicted = np.array([[[0.0, 2], [500, 500], [10, 4]]])
    assert point_errors(predicted, truth) == pytest.approx([3.0])


def test_a_face_without_any_annotated_point_has_no_figure() -> None:
    truth = np.full((1, 98, 2), np.nan)
    assert np.isnan(point_errors(_face(), truth)).all()
    assert curve(np.array([np.nan, 0.04])).faces == 1


def test_a_predicted_nan_is_a_failure_not_an_omission() -> None:
    truth, predicted = _face(), _face()
    predicted[0, 5, 0] = np.nan
    errors = np.append(point_errors(predicted, truth), 0.02)
    assert np.isinf(errors[0])
    figures = curve(errors)
    assert (figures.faces, figures.failure_rate, figures.nme) == (2, 0.5, pytest.approx(0.02))


def test_failure_is_above_the_limit_not_at_it() -> None:
    assert curve(np.array([0.1])).failure_rate == 0.0
    assert curve(np.array([np.nextafter(0.1, 1)])).failure_rate == 1.0
    assert curve(np.array([0.09, 0.05]), limit=0.08).failure_rate == 0.5


def test_the_curve_ends_at_the_limit_in_steps_of_a_ten_thousandth() -> None:
    figures = curve(np.array([0.03]))
    assert len(figures.limits) == 1001
    assert figures.limits[-1] == 0.1
    assert figures.limits[1] == pytest.approx(1e-4)


def test_auc_of_known_distributions() -> None:
    assert curve(np.zeros(5)).auc == pytest.approx(1.0)
    assert curve(np.full(5, 0.5)).auc == 0.0
    # Errors spread evenly from 0 to the limit: the curve is a straight line.
    assert curve(np.linspace(0, 0.1, 100_001)).auc == pytest.approx(0.5, abs=1e-4)
    assert curve(np.array([0.04])).auc == pytest.approx(0.6, abs=4e-4)  # Simpson across a step


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 2)))
def test_better_errors_never_give_worse_figures(errors: np.ndarray) -> None:
    worse, better = curve(errors), curve(errors * 0.5)
    assert better.nme <= worse.nme
    assert better.auc >= worse.auc - 1e-12
    assert better.failure_rate <= worse.failure_rate
    assert 0 <= worse.auc <= 1 + 1e-12
    assert (np.diff(worse.shares) >= 0).all()


def test_no_faces_gives_nan_and_a_limit_of_nothing_is_refused() -> None:
    assert math.isnan(curve(np.array([])).nme)
    with pytest.raises(KilnError, match="above 0"):
        curve(np.array([0.1]), limit=0.0)


def test_fewer_points_decide_the_scheme() -> None:
    five, many = np.zeros((1, 5, 2)), draw_scene(3, (96, 96)).faces[0].landmarks98[None]
    predicted, truth, name = in_one_scheme(five, many, "98")
    assert name == "5"
    assert predicted.shape == truth.shape == (1, 5, 2)
    assert truth[0, 0] == pytest.approx(many[0, 96])
    predicted, truth, name = in_one_scheme(many, np.zeros((1, 68, 2)), "68")
    assert (name, predicted.shape) == ("68", (1, 68, 2))


def test_pose_is_in_degrees_and_goes_round() -> None:
    predicted = np.radians([[179.0, 10, 0], [0, np.nan, 5]])
    truth = np.radians([[-179.0, 4, 0], [3, 0, np.nan]])
    error = pose_errors(predicted, truth)
    assert error[0] == pytest.approx([2.0, 6.0, 0.0])
    assert error[1, 0] == pytest.approx(3.0)
    assert np.isnan(error[1, 1:]).all()


def test_subsets_are_flags_and_turns() -> None:
    pose = np.radians([[10.0, 0, 0], [-45, 0, 0], [70, 0, 0], [np.nan, 0, 0]])
    chosen = subsets(
        {
            "blur": np.array([1, 0, 0, np.nan]),  # a flag
            "visible": np.array([0.5, 1, 1, 1]),  # a share
            "occlusion": np.zeros(4),  # nobody
        },
        pose,
    )
    assert {name: mask.tolist() for name, mask in chosen.items()} == {
        "blur": [True, False, False, False],
        "yaw_0_30": [True, False, False, False],
        "yaw_30_60": [False, True, False, False],
        "yaw_60_90": [False, False, True, False],
    }
