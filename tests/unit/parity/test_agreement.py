"""Agreement of faces: matched once, and not failed by a score at the threshold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.config import load_config
from facekiln.parity.agreement import SCORE_MARGIN, agreement, agreement_of_outputs
from facekiln.vision.detect import Faces


def faces(*rows: tuple[float, float, float, float, float]) -> Faces:
    """Make faces of (x1, y1, x2, y2, score)."""
    table = np.asarray(rows, np.float32).reshape(-1, 5)
    return Faces(boxes=table[:, :4], scores=table[:, 4], landmarks=np.zeros((len(table), 0, 2), np.float32))


A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 70.0, 70.0)


def test_same_faces_agree() -> None:
    both = faces((*A, 0.9), (*B, 0.8))
    result = agreement([(both, both)], 0.5)
    assert (result.parent, result.child, result.found, result.invented) == (2, 2, 1.0, 0.0)
    assert result.mean_iou == pytest.approx(1.0)


def test_lost_and_invented_faces_count() -> None:
    result = agreement([(faces((*A, 0.9), (*B, 0.8)), faces((*A, 0.9))), (faces(), faces((*B, 0.7)))], 0.5)
    assert result.found == 0.5
    assert result.invented == 0.5


def test_a_score_at_the_threshold_is_neither_lost_nor_invented() -> None:
    result = agreement([(faces((*A, 0.52)), faces((*A, 0.45)))], 0.5)
    assert (result.parent, result.child, result.found) == (1, 0, 1.0)
    result = agreement([(faces((*A, 0.45)), faces((*A, 0.52)))], 0.5)
    assert (result.parent, result.child, result.invented) == (0, 1, 0.0)


def test_faces_under_the_threshold_make_up_for_none_above() -> None:
    weak = agreement([(faces((*A, 0.9), (*B, 0.45)), faces((*B, 0.52)))], 0.5)
    assert (weak.parent, weak.child, weak.found, weak.invented) == (1, 1, 0.0, 0.0)
    weak = agreement([(faces((*B, 0.52)), faces((*A, 0.9), (*B, 0.45)))], 0.5)
    assert (weak.parent, weak.child, weak.found, weak.invented) == (1, 1, 1.0, 1.0)


def test_one_face_is_not_matched_twice() -> None:
    result = agreement([(faces((*A, 0.9), (1.0, 0.0, 11.0, 10.0, 0.8)), faces((*A, 0.9)))], 0.5)
    assert result.found == 0.5


def test_no_faces_at_all_agree_and_moved_faces_lower_the_iou() -> None:
    assert agreement([(faces(), faces())], 0.5).mean_iou == 1.0
    moved = agreement([(faces((*A, 0.9)), faces((0.0, 0.0, 10.0, 8.0, 0.9)))], 0.5)
    assert moved.mean_iou == pytest.approx(0.8)


def test_outputs_are_read_at_the_models_own_threshold(root: Path) -> None:
    """The child's one face is under the threshold by less than the margin, then by more."""
    declared = load_config(root / "config").model("ulfd_slim_320")
    model = replace(declared, decode=replace(declared.decode, score_threshold=0.7))
    size = model.size("320")
    boxes = np.zeros((1, 4420, 4), np.float32)

    def outputs(score: float) -> dict[str, np.ndarray]:
        scores = np.zeros((1, 4420, 2), np.float32)
        scores[0, 4000, 1] = score
        return {name: boxes if name == "boxes" else scores for name in model.outputs}

    for lower, found in ((SCORE_MARGIN / 2, 1.0), (SCORE_MARGIN * 2, 0.5)):
        result = agreement_of_outputs(
            [outputs(0.9), outputs(0.8)], [outputs(0.9), outputs(0.7 - lower)], model, size
        )
        assert (result.parent, result.child, result.found) == (2, 1, found)
    with pytest.raises(ValueError, match="zip"):
        agreement_of_outputs([outputs(0.9)], [], model, size)
