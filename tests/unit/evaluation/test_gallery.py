"""Galleries: the worst come first, ignored faces are no misses, the same figures give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.cli import main
from facekiln.data.declared import load_datasets
from facekiln.data.procedural_set import procedural_set
from facekiln.data.sample import Listing
from facekiln.errors import KilnError
from facekiln.evaluation.curves import draw_curves, read_curves
from facekiln.evaluation.gallery import (
    draw_misses,
    draw_samples,
    draw_shifts,
    worst_misses,
    worst_shifts,
)
from facekiln.evaluation.gallery_sheet import Tile, draw_tiles
from facekiln.evaluation.stamp import Evaluation, read_evaluation, stamp_of, write_evaluation
from facekiln.predictions.store import META_KEYS, Predictions, write_predictions
from facekiln.vision.image import read_image

SCENES = procedural_set("drawn", 4, seed=5, size=(160, 200))
SAMPLES = [SCENES[index] for index in range(4)]
LISTED = Listing.of("drawn", SAMPLES)
META: dict[str, Any] = dict.fromkeys(META_KEYS, "x") | {
    "artifact": "onnx/x.onnx",
    "backend": "onnxruntime",
    "precision": "float",
    "emulated": False,
    "dataset": "drawn",
    "images": 4,
    "interpolation": "auto",
    "size": [160, 200],
    "score_threshold": 0.02,
    "nms_iou": 0.4,
    "top_k": 5000,
    "keep": 750,
    "extent": 1,
    "nms_epsilon": 0.0,
}


def _predicted(boxes: list[np.ndarray] | None = None, score: float = 0.9, **meta: Any) -> Predictions:
    placed = [sample.boxes for sample in SAMPLES] if boxes is None else boxes
    whole = np.concatenate(placed).astype(np.float32)
    return Predictions(
        images=tuple(SCENES.sources),
        counts=np.array([len(item) for item in placed], np.int64),
        boxes=whole,
        scores=np.full(len(whole), score, np.float32),
        points=None,
        pose=None,
        meta={**META, **meta},
    )


def _sizes() -> list[float]:
    sides = [(box[2:] - box[:2]).max() for sample in SAMPLES for box in sample.boxes]
    return sorted((float(side) for side in sides), reverse=True)


def test_found_faces_are_no_misses() -> None:
    assert worst_misses(_predicted(), LISTED, 5, 0.5) == []


def test_the_largest_miss_comes_first() -> None:
    nothing = _predicted([np.zeros((0, 4)) for _ in SAMPLES])
    misses = worst_misses(nothing, LISTED, 3, 0.5)
    assert [miss.size for miss in misses] == pytest.approx(_sizes()[:3])
    assert misses[0].nearest == (0.0, 0.0)


def test_a_detection_below_the_score_is_a_miss_that_names_it() -> None:
    misses = worst_misses(_predicted(score=0.3), LISTED, 100, 0.5)
    assert len(misses) == len(_sizes())
    assert misses[0].nearest == (pytest.approx(1.0, abs=1e-3), pytest.approx(0.3))


def test_ignored_faces_are_no_misses() -> None:
    ignored = Listing.of("drawn", [replace(s, ignore=np.ones(len(s), bool)) for s in SAMPLES])
    assert worst_misses(_predicted([np.zeros((0, 4)) for _ in SAMPLES]), ignored, 5, 0.5) == []


def test_shifts_are_ranked_by_share_of_the_face() -> None:
    moved = [sample.boxes.copy() for sample in SAMPLES]
    at = next(index for index, boxes in enumerate(moved) if len(boxes) > 1)
    sides = (moved[at][:, 2:] - moved[at][:, :2]).max(axis=1)
    moved[at][0] += 0.10 * sides[0]
    moved[at][1, 2] += 0.05 * sides[1]
    shifts = worst_shifts(_predicted(moved), _predicted(), LISTED, 2, 0.5)
    assert [shift.share for shift in shifts] == pytest.approx([0.10, 0.05], abs=1e-3)
    assert shifts[0].pixels == pytest.approx(0.10 * sides[0], rel=1e-3)


def test_predictions_of_other_pictures_are_refused() -> None:
    other = replace(_predicted(), images=("a", "b", "c", "d"))
    with pytest.raises(KilnError, match="other pictures"):
        worst_shifts(other, _predicted(), LISTED, 2, 0.5)
    with pytest.raises(KilnError, match="no such picture"):
        worst_misses(other, LISTED, 2, 0.5)


def test_pictures_are_the_same_every_time_and_none_is_said() -> None:
    nothing = _predicted([np.zeros((0, 4)) for _ in SAMPLES], emulated=True)
    first = draw_misses(nothing, LISTED, 3, 0.5)
    assert (first == draw_misses(nothing, LISTED, 3, 0.5)).all()
    assert first.shape[0] > 200
    assert draw_misses(_predicted(), LISTED, 3, 0.5).shape[0] < 60  # a heading only
    assert draw_samples(_predicted(), LISTED, 9, 0.5).shape[1] > 1200
    assert draw_shifts(_predicted(), _predicted(), LISTED, 2, 0.5).shape[0] > 200


def test_a_tile_keeps_its_aspect() -> None:
    white = np.full((50, 100, 3), 7, np.uint8)
    sheet = draw_tiles(("x", "y"), [Tile(white, ("a line", "\u6f22 not ascii"))], side=100, columns=1)
    assert (sheet == 7).all(axis=2).sum() == 50 * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "datasets.yaml").write_text(
        "datasets:\n  drawn:\n    kind: procedural\n    licence: none\n    expected: {images: 4}\n"
        "    options: {purpose: dataset, seed: 5, size: [160, 200]}\n"
    )
    meta = {**META, "dataset_digest": load_datasets(tmp_path)["drawn"].digest()}
    for name, boxes in (("a", None), ("b", [np.zeros((0, 4)) for _ in SAMPLES])):
        write_predictions(tmp_path / name, replace(_predicted(boxes), meta=meta))
    return tmp_path


@pytest.mark.parametrize("verb", ["samples", "misses", "shifts"])
def test_the_commands_write_a_picture_and_its_record(folder: Path, verb: str) -> None:
    output = folder / "out" / f"{verb}.png"
    stages = ["b", "a"] if verb == "shifts" else ["b"]
    arguments = ["gallery", verb, *(str(folder / name) for name in stages), "--output", str(output)]
    assert main([*arguments, "--config", str(folder)]) == 0
    first = output.read_bytes()
    assert read_image(output).ndim == 3
    assert output.with_name(f"{verb}.png.kiln.json").exists()
    assert main([*arguments, "--config", str(folder)]) == 0
    assert output.read_bytes() == first


def _evaluation(folder: Path, name: str, task: str, **changes: Any) -> Evaluation:
    evaluator = {"wider_ap": "port", "voc_ap": "voc", "landmarks": "nme"}[task]
    meta = {**META, **changes}
    results = {
        "wider_ap": {"easy": 0.9, "medium": 0.8, "hard": 0.7},
        "voc_ap": {"ap": 0.8},
        "landmarks": {"nme": 0.05, "failure_rate": 0.1, "auc": 0.5},
    }[task]
    line = np.linspace(0, 1, 50)
    curves: dict[str, Any] = {
        "wider_ap": {
            "settings": np.array(["easy", "medium", "hard"]),
            "recall": np.stack([line] * 3),
            "precision": np.stack([1 - line / 2, 1 - line / 3, np.where(line < 0.1, np.nan, 1 - line / 4)]),
        },
        "voc_ap": {"recall": line, "precision": 1 - line / 2},
        "landmarks": {"limits": line / 10, "shares": line},
    }[task]
    stamp = stamp_of(meta, task=task, evaluator=evaluator, evaluator_version="1")
    write_evaluation(folder / f"{name}.json", stamp=stamp, subject=meta, results=results)
    np.savez(folder / f"{name}.curves.npz", **curves)
    return read_evaluation(folder / f"{name}.json")


@pytest.mark.parametrize(("task", "panels"), [("wider_ap", 3), ("voc_ap", 1), ("landmarks", 1)])
def test_curves_of_several_backends_in_one_picture(tmp_path: Path, task: str, panels: int) -> None:
    both = [
        _evaluation(tmp_path, "a", task),
        _evaluation(tmp_path, "b", task, backend="nnie-emulator", emulated=True),
    ]
    assert len(read_curves(both[0])) == panels
    draw_curves(both, tmp_path / "1.png")
    draw_curves(both, tmp_path / "2.png")
    data = (tmp_path / "1.png").read_bytes()
    assert data == (tmp_path / "2.png").read_bytes()
    assert b"matplotlib" not in data
    assert read_image(tmp_path / "1.png").shape[1] > 400 * panels


def test_curves_of_two_protocols_or_without_a_file_are_refused(tmp_path: Path) -> None:
    one = _evaluation(tmp_path, "a", "voc_ap")
    other = _evaluation(tmp_path, "b", "voc_ap", score_threshold=0.5)
    with pytest.raises(KilnError, match="score_threshold"):
        draw_curves([one, other], tmp_path / "x.png")
    (tmp_path / "a.curves.npz").unlink()
    with pytest.raises(KilnError, match=r"a\.curves\.npz"):
        draw_curves([one], tmp_path / "x.png")
    (tmp_path / "a.curves.npz").write_bytes(b"nothing")
    with pytest.raises(KilnError, match="holds no curves"):
        draw_curves([one], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>"])
def test_damaged_curves_are_told(tmp_path: Path, content: bytes) -> None:
    evaluation = _evaluation(tmp_path, "a", "voc_ap")
    (tmp_path / "a.curves.npz").write_bytes(content)
    with pytest.raises(KilnError, match=r"a\.curves\.npz: holds no curves"):
        read_curves(evaluation)
