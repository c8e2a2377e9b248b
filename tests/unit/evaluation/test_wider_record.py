"""WIDER FACE figures on disk: where a setting has no face, and how many pictures count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekiln.artifact import read_json
from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections
from facekiln.evaluation.stamp import read_evaluation
from facekiln.evaluation.wider import Precision, evaluate
from facekiln.evaluation.wider_record import declared_of, write_figures, write_wider_evaluation
from facekiln.evaluation.wider_truth import Truth
from facekiln.predictions.store import META_KEYS, Predictions, write_predictions

FACES = np.array([[10.0, 10.0, 20.0, 20.0], [50.0, 50.0, 20.0, 20.0]]).T


def judged(*kept: bool) -> tuple[Precision, Truth]:
    """One picture of two faces, both found; a setting keeps them or not."""
    truth = Truth(
        images=("0--Parade/a",),
        counts=np.array([2], np.int64),
        boxes=FACES,
        kept=np.array([[one, one] for one in kept]),
        source="a test",
        digest="d" * 16,
    )
    found = Detections(np.array([2], np.int64), np.concatenate([FACES, [[1.0, 0.0]]]))
    return evaluate(found, truth, "port"), truth


def test_a_setting_without_faces_has_no_figure(tmp_path: Path) -> None:
    precision, truth = judged(False, True, True)
    write_figures(tmp_path / "ap.json", precision, Path("predictions"), truth)
    told = read_json(tmp_path / "ap.json")
    assert told["ap"] == {"easy": None, "medium": 1.0, "hard": 1.0}
    assert told["faces"] == {"easy": 0, "medium": 2, "hard": 2}
    assert (told["protocol"], told["truth"], told["detections"]) == ("port", "d" * 16, 2)


def test_the_record_counts_the_pictures_of_the_ground_truth(tmp_path: Path) -> None:
    """A subset's ground truth may judge predictions of more pictures."""
    precision, truth = judged(True, True, True)
    meta = {
        **dict.fromkeys(META_KEYS, "x"),
        "images": 3,
        "size": [64, 64],
        "emulated": False,
        "precision": "float",
        **dict.fromkeys(("score_threshold", "nms_iou", "nms_epsilon"), 0.5),
        **dict.fromkeys(("top_k", "keep", "extent"), 1),
    }
    nothing = np.zeros((0, 4), np.float32)
    names = ("a.jpg", "b.jpg", "c.jpg")
    three = Predictions(names, np.zeros(3, np.int64), nothing, nothing[:, 0], None, None, meta)
    write_predictions(tmp_path / "predictions", three)
    write_wider_evaluation(tmp_path / "record.json", precision, tmp_path / "predictions", truth, "float")
    stamp = read_evaluation(tmp_path / "record.json").stamp
    assert (stamp.images, stamp.truth, stamp.task) == (1, "d" * 16, "wider_ap")


def test_a_dataset_is_found_behind_its_inference_entry(root: Path) -> None:
    assert declared_of("wider_val@ulfd", None, root / "config").name == "wider_val"
    with pytest.raises(KilnError, match="did you mean 'wider_val'"):
        declared_of("wider_vl", None, root / "config")
    with pytest.raises(KilnError, match="ground truth is not named"):
        declared_of(None, None, root / "config")
