"""Landmark predictions against drawn scenes, whose 98 points and poses are exact."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.cli import main
from facekiln.data.declared import load_datasets
from facekiln.data.procedural_set import procedural_set
from facekiln.data.sample import Listing, Sample
from facekiln.errors import KilnError
from facekiln.evaluation.landmarks_record import evaluate_landmarks
from facekiln.evaluation.stamp import read_evaluation
from facekiln.predictions.store import META_KEYS, Predictions, write_predictions

SCENES = procedural_set("procedural", 6, seed=5, size=(160, 200))
SAMPLES = [SCENES[index] for index in range(6)]
LISTED = Listing.of("procedural", SAMPLES)


def _predicted(
    change: Callable[[np.ndarray, Sample], np.ndarray] = lambda points, _: points, **more: Any
) -> Predictions:
    points = [change(sample.landmarks.points.copy(), sample) for sample in SAMPLES if sample.landmarks]
    boxes = np.concatenate([sample.boxes for sample in SAMPLES]).astype(np.float32)
    return Predictions(
        images=tuple(SCENES.sources),
        counts=np.array([len(sample) for sample in SAMPLES], np.int64),
        boxes=boxes,
        scores=np.ones(len(boxes), np.float32),
        points=np.concatenate(points).astype(np.float32),
        pose=more.pop("pose", np.concatenate([s.pose for s in SAMPLES]).astype(np.float32)),
        meta={"artifact": "onnx/x.onnx"},
    )


def test_exact_points_have_no_error() -> None:
    figures = evaluate_landmarks(_predicted(), LISTED)
    assert figures.results["nme"] < 1e-6
    assert figures.results["failure_rate"] == 0
    assert figures.results["auc"] > 0.999
    assert figures.results["pose_mae_deg"] < 1e-4
    assert figures.details["counts"]["faces"] == sum(map(len, SAMPLES)) > 5
    assert figures.details["scheme"] == "98"


def test_a_known_shift_gives_the_known_nme() -> None:
    def shift(points: np.ndarray, _: Sample) -> np.ndarray:
        ocular = np.linalg.norm(points[:, 60] - points[:, 72], axis=1)
        return points + 0.05 * ocular[:, None, None] * np.array([0.6, 0.8])

    figures = evaluate_landmarks(_predicted(shift), LISTED)
    assert figures.results["nme"] == pytest.approx(0.05, abs=1e-5)
    assert figures.results["nme_inter_ocular"] == figures.results["nme"]
    assert figures.results["failure_rate"] == 0
    assert figures.results["auc"] == pytest.approx(0.5, abs=2e-3)
    assert evaluate_landmarks(_predicted(shift), LISTED, limit=0.04).results["failure_rate"] == 1.0


def test_the_chosen_normaliser_is_the_main_figure() -> None:
    shifted = _predicted(lambda points, _: points + 2.0)
    by_box = evaluate_landmarks(shifted, LISTED, kind="box")
    assert by_box.results["nme"] == by_box.results["nme_box"] < by_box.results["nme_inter_ocular"]
    assert by_box.details["normaliser"] == "box"


def test_pose_error_is_in_degrees() -> None:
    pose = np.concatenate([sample.pose for sample in SAMPLES]).astype(np.float32)
    pose += np.radians([1.0, 2.0, 6.0]).astype(np.float32)
    results = evaluate_landmarks(_predicted(pose=pose), LISTED).results
    assert results["yaw_mae_deg"] == pytest.approx(1.0, abs=1e-3)
    assert results["roll_mae_deg"] == pytest.approx(6.0, abs=1e-3)
    assert results["pose_mae_deg"] == pytest.approx(3.0, abs=1e-3)
    assert "pose_mae_deg" not in evaluate_landmarks(_predicted(pose=None), LISTED).results


def test_a_lost_face_is_a_failure_and_leaves_the_mean() -> None:
    whole = _predicted()
    at = int(np.flatnonzero(whole.counts)[0])
    counts = whole.counts.copy()
    counts[at] -= 1
    keep = np.ones(len(whole.scores), bool)
    keep[whole.starts[at]] = False
    lacking = replace(
        whole,
        counts=counts,
        boxes=whole.boxes[keep],
        scores=whole.scores[keep],
        points=whole.points[keep] if whole.points is not None else None,
        pose=whole.pose[keep] if whole.pose is not None else None,
    )
    figures = evaluate_landmarks(lacking, LISTED)
    faces = sum(map(len, SAMPLES))
    assert figures.details["counts"]["lost"] == 1
    assert figures.results["failure_rate"] == pytest.approx(1 / faces)
    assert figures.results["nme"] < 1e-6


def test_the_order_of_predictions_in_a_picture_does_not_matter() -> None:
    whole = _predicted(lambda points, _: points + 1.0)
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(whole.starts, whole.starts[1:], strict=False)]
    )
    turned = replace(
        whole,
        boxes=whole.boxes[order],
        points=whole.points[order] if whole.points is not None else None,
        pose=whole.pose[order] if whole.pose is not None else None,
    )
    assert evaluate_landmarks(turned, LISTED).results == pytest.approx(
        evaluate_landmarks(whole, LISTED).results
    )


def test_unlabelled_points_are_counted_and_ignored_faces_do_not_count() -> None:
    first = next(index for index, sample in enumerate(SAMPLES) if len(sample) > 1)
    sample = SAMPLES[first]
    assert sample.landmarks is not None
    points = sample.landmarks.points.copy()
    points[0, 3] = np.nan
    ignore = sample.ignore.copy()
    ignore[1] = True
    changed = replace(sample, landmarks=replace(sample.landmarks, points=points), ignore=ignore)
    listing = Listing.of("procedural", [changed if i == first else s for i, s in enumerate(SAMPLES)])
    counts = evaluate_landmarks(_predicted(), listing).details["counts"]
    assert counts["points_without_annotation"] == 1
    assert counts["faces"] == sum(map(len, SAMPLES)) - 1


def test_subsets_by_turn_partition_the_faces() -> None:
    figures = evaluate_landmarks(_predicted(), LISTED)
    turned = {name: part for name, part in figures.details["subsets"].items() if name.startswith("yaw_")}
    assert sum(part["faces"] for part in turned.values()) == figures.details["counts"]["faces"]


def test_predictions_of_other_pictures_or_without_points_are_refused() -> None:
    with pytest.raises(KilnError, match="no such picture"):
        evaluate_landmarks(replace(_predicted(), images=tuple(f"x{i}" for i in range(6))), LISTED)
    with pytest.raises(KilnError, match="no landmarks"):
        evaluate_landmarks(replace(_predicted(), points=None), LISTED)


def test_the_command_writes_record_and_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "datasets.yaml").write_text(
        "datasets:\n  drawn:\n    kind: procedural\n    licence: none\n    expected: {images: 6}\n"
        "    options: {purpose: dataset, seed: 5, size: [160, 200]}\n"
    )
    (tmp_path / "models").mkdir()
    root = Path(__file__).resolve().parents[3]
    for name in ("config.yaml", "models/ghostone.yaml"):
        (tmp_path / name).write_text((root / "config" / name).read_text())
    meta = dict.fromkeys(META_KEYS, "x") | {
        "precision": "float",
        "emulated": False,
        "dataset": "drawn@default",
        "dataset_digest": load_datasets(tmp_path)["drawn"].digest(),
        "images": 6,
        "interpolation": "auto",
        "size": [112, 112],
        "score_threshold": 0.0,
        "nms_iou": 0.0,
        "top_k": 1,
        "keep": 1,
        "extent": 0,
        "nms_epsilon": 0.0,
    }
    write_predictions(tmp_path / "p", replace(_predicted(lambda points, _: points + 1.0), meta=meta))
    record, curves = tmp_path / "drawn.json", tmp_path / "drawn.curves.npz"
    arguments = ["eval", "landmarks", str(tmp_path / "p"), "--config", str(tmp_path)]
    assert main([*arguments, "--output", str(record), "--curves", str(curves)]) == 0
    assert "inter-ocular distance, failure above 0.1" in capsys.readouterr().out
    evaluation = read_evaluation(record)
    assert evaluation.stamp.settings == "inter_ocular, failure above 0.1"
    assert evaluation.stamp.dataset == "drawn"
    assert evaluation.results["nme"] > 0
    with np.load(curves) as stored:
        assert stored["shares"][-1] == pytest.approx(1 - evaluation.results["failure_rate"])
    # Another failure limit is another protocol.
    assert main([*arguments, "--failure-limit", "0.08", "--output", str(record)]) == 0
    assert read_evaluation(record).stamp.id() != evaluation.stamp.id()
    # NaN of a face that has no square stands for lost; any other is the network's, and no figure.
    assert _predicted().points is not None
    for name, at in (("points", (1, 3, 0)), ("pose", (1, 0)), ("boxes", (1, 2))):
        wrong = getattr(_predicted(), name).copy()
        wrong[at] = np.nan
        write_predictions(tmp_path / "p", replace(_predicted(), meta=meta, **{name: wrong}))
        record.unlink(missing_ok=True)
        assert main([*arguments, "--output", str(record)]) == 1
        told = capsys.readouterr().err
        assert re.search(rf"{re.escape(str(tmp_path))}/p: .*: face \d, {name}: is no finite number", told)
        assert "next step" in told and not record.exists()
    flat, points, pose = (getattr(_predicted(), name).copy() for name in ("boxes", "points", "pose"))
    flat[1, 2], points[1], pose[1] = flat[1, 0], np.nan, np.nan
    write_predictions(tmp_path / "p", replace(_predicted(), meta=meta, boxes=flat, points=points, pose=pose))
    assert main([*arguments, "--output", str(record)]) == 0
    assert read_evaluation(record).details["counts"]["lost"] == 1
    write_predictions(tmp_path / "p", replace(_predicted(), meta=meta | {"dataset_digest": "other"}))
    assert main(arguments) == 1
    assert "predict again" in capsys.readouterr().err
