"""Two pipelines beside each other: the worst picture by name, counts, and points of landmark models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.config import load_config
from facekiln.evaluation.gates import Verdict
from facekiln.evaluation.gates_run import gate_pipelines
from facekiln.predictions.store import Predictions

LIMITS = {"found": 0.99, "invented": 0.01, "mean_iou": 0.98, "points": 0.01}
META: dict[str, Any] = {
    "artifact": "onnx/a.onnx",
    "artifact_sha256": "ab",
    "backend": "b",
    "emulated": False,
    "dataset_digest": "d",
    "resize": "letterbox",
}


def _found(boxes: list[list[float]], counts: list[int], **more: Any) -> Predictions:
    points = more.pop("points", None)
    scores = np.array(more.pop("scores", [0.9] * len(boxes)), np.float32)
    images = tuple(f"picture{number}" for number in range(len(counts)))
    meta = {**META, **more}
    values = np.array(boxes, np.float32).reshape(-1, 4)
    return Predictions(images, np.array(counts, np.int64), values, scores, points, None, meta)


BOXES: list[list[float]] = [[0, 0, 40, 40], [0, 0, 40, 40], [50, 50, 90, 90], [0, 0, 30, 30]]


def _judge(host: Predictions, board: Predictions) -> Verdict:
    return gate_pipelines(host, board, LIMITS, 0.5)


def test_no_picture_differs() -> None:
    verdict = _judge(_found(BOXES, [1, 2, 1]), _found(BOXES, [1, 2, 1]))
    assert verdict.verdict == "passed" and verdict.reason.endswith("no picture differs")
    assert verdict.details["detections"] == [4, 4] and verdict.details["worst"] is None


def test_the_worst_picture_is_the_one_that_loses_faces_then_the_one_of_shifted_boxes() -> None:
    moved = [[1.0, 0, 41, 40], *BOXES[1:]]
    verdict = _judge(_found(BOXES, [1, 2, 1]), _found(moved, [1, 2, 1]))
    assert verdict.details["worst"]["picture"] == "picture0" and "worst picture0" in verdict.reason
    lost = [moved[0], moved[1], moved[3]]
    verdict = _judge(_found(BOXES, [1, 2, 1]), _found(lost, [1, 1, 1]))
    assert verdict.verdict == "failed"
    assert verdict.details["worst"]["picture"] == "picture1" and verdict.details["worst"]["found"] == 0.5
    assert verdict.details["pictures_of_other_counts"] == 1
    extra = [*BOXES, [60.0, 60, 90, 90]]
    verdict = _judge(_found(BOXES, [1, 2, 1]), _found(extra, [1, 2, 2]))
    assert verdict.details["worst"]["picture"] == "picture2" and verdict.details["worst"]["invented"] == 0.5


def _points(shift: float, lost: int | None = None) -> Predictions:
    points = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)
    points[2] += np.float32([shift, 0])
    if lost is not None:
        points[lost] = np.nan
    return _found(BOXES, [1, 2, 1], points=points, resize="crop", scores=[1.0] * 4)


def test_landmark_models_are_judged_by_their_points() -> None:
    same = _judge(_points(0), _points(0))
    assert (same.verdict, same.value) == ("passed", 0.0) and "no point differs" in same.reason
    # One face of four, 40 pixels wide, is 1.2 pixels off: 0.75 % in the mean, 3 % there.
    near = _judge(_points(0), _points(1.2))
    assert near.verdict == "passed" and near.value == pytest.approx(0.0075)
    assert near.details["worst"] == {"picture": "picture1", "apart": pytest.approx(0.03)}
    assert _judge(_points(0), _points(4)).verdict == "failed"


def test_a_face_that_one_pipeline_alone_answers_for_is_lost() -> None:
    for host, board in ((_points(0), _points(0, 3)), (_points(0, 3), _points(0))):
        verdict = _judge(host, board)
        assert verdict.verdict == "failed" and verdict.details["lost"] == 1
        assert verdict.details["worst"]["picture"] == "picture2"
    assert _judge(_points(0, 3), _points(0, 3)).verdict == "passed", "it has no box in either"


def test_points_of_nothing_are_no_pass() -> None:
    empty = _found([], [0], points=np.zeros((0, 3, 2), np.float32), resize="crop")
    assert _judge(empty, empty).verdict == "skipped"
    without = _found(BOXES, [1, 2, 1], resize="crop")
    assert _judge(_points(0), without).verdict == "failed"


def test_the_shipped_limits_have_one_for_points(root: Path) -> None:
    assert set(load_config(root / "config").gates["pipelines"]) == set(LIMITS)
