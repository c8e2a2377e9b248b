"""Protocol stamps: what is in the id, what is not, and what a record refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.errors import KilnError
from facekiln.evaluation.stamp import Stamp, read_evaluation, stamp_of, write_evaluation

META: dict[str, Any] = {
    "model": "retinaface",
    "artifact": "onnx/retinaface_640.sim.onnx",
    "artifact_sha256": "ab" * 32,
    "precision": "float",
    "backend": "onnxruntime",
    "backend_version": "1.20",
    "emulated": False,
    "dataset": "procedural",
    "dataset_digest": "0123456789abcdef",
    "images": 200,
    "resize": "letterbox",
    "interpolation": "linear",
    "size": [640, 640],
    "score_threshold": 0.02,
    "nms_iou": 0.4,
    "top_k": 5000,
    "keep": 750,
    "extent": 1,
    "nms_epsilon": 0.0,
}


def _stamp(**changes: Any) -> Stamp:
    return stamp_of({**META, **changes}, task="voc_ap", evaluator="voc", evaluator_version="1", boxes="float")


@pytest.mark.parametrize(
    "change",
    [
        {"resize": "stretch"},
        {"interpolation": "area"},
        {"size": [320, 320]},
        {"size": None},
        {"score_threshold": 0.5},
        {"nms_iou": 0.3},
        {"top_k": 400},
        {"keep": 400},
        {"extent": 0},
        {"nms_epsilon": 1e-5},
        {"dataset": "wider_val"},
        {"dataset_digest": "f"},
        {"images": 199},
    ],
)
def test_everything_that_decides_a_figure_is_in_the_id(change: dict[str, Any]) -> None:
    other = _stamp(**change)
    assert other.id() != _stamp().id()
    assert set(_stamp().differences(other)) == set(change)


@pytest.mark.parametrize(
    "change", [{"backend": "nnie-emulator"}, {"precision": "int8"}, {"artifact": "nnie/x.wk"}]
)
def test_what_is_compared_is_not_in_the_id(change: dict[str, Any]) -> None:
    assert _stamp(**change).id() == _stamp().id()


def test_what_the_evaluator_was_told_is_in_the_id() -> None:
    told = stamp_of(META, task="voc_ap", evaluator="voc", evaluator_version="1", settings="IoU from 0.6")
    assert told.id() != _stamp().id()
    assert "IoU from 0.6" in told.words()


def test_all_files_of_ground_truth_are_in_the_id(tmp_path: Path) -> None:
    told = replace(_stamp(), truth="0123456789abcdef")
    assert told.id() != _stamp().id()
    assert "ground truth 0123456789abcdef" in told.words()
    write_evaluation(tmp_path / "x.json", stamp=told, subject=META, results={"ap": 0.5})
    assert read_evaluation(tmp_path / "x.json").stamp == told


def test_the_name_of_an_inference_entry_is_no_protocol() -> None:
    assert _stamp(dataset="procedural@default").id() == _stamp().id()


def test_an_integer_threshold_is_the_same_protocol() -> None:
    assert _stamp(nms_iou=1).id() == _stamp(nms_iou=1.0).id()


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "procedural.json"
    write_evaluation(path, stamp=_stamp(), subject=META, results={"ap": 0.5}, details={"faces": 3})
    first = path.read_bytes()
    evaluation = read_evaluation(path)
    assert evaluation.stamp == _stamp()
    assert evaluation.results == {"ap": 0.5}
    assert evaluation.subject["backend"] == "onnxruntime"
    assert "resize" not in evaluation.subject
    assert evaluation.details == {"faces": 3}
    write_evaluation(path, stamp=_stamp(), subject=META, results={"ap": 0.5}, details={"faces": 3})
    assert path.read_bytes() == first


@pytest.mark.parametrize("results", [{}, {"easy": 0.5}, {"ap": float("nan")}])
def test_a_missing_or_endless_figure_is_refused_and_nothing_is_written(
    tmp_path: Path, results: dict[str, float]
) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(KilnError):
        write_evaluation(path, stamp=_stamp(), subject=META, results=results)
    assert not path.exists()


def test_an_edited_stamp_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_evaluation(path, stamp=_stamp(), subject=META, results={"ap": 0.5})
    value = json.loads(path.read_text())
    value["stamp"]["score_threshold"] = 0.5
    path.write_text(json.dumps(value))
    with pytest.raises(KilnError, match="edited"):
        read_evaluation(path)


def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_evaluation(path, stamp=_stamp(), subject=META, results={"ap": 0.5})
    value = json.loads(path.read_text())
    value["reslts"] = value["results"]
    path.write_text(json.dumps(value))
    with pytest.raises(KilnError, match="did you mean 'results'"):
        read_evaluation(path)


def test_meta_without_a_protocol_key_is_refused() -> None:
    with pytest.raises(KilnError, match="interpolation"):
        stamp_of(
            {key: value for key, value in META.items() if key != "interpolation"},
            task="voc_ap",
            evaluator="voc",
            evaluator_version="1",
            boxes="float",
        )


def test_the_words_tell_the_protocol() -> None:
    words = _stamp().words()
    for word in ("voc_ap", "procedural", "200", "letterbox", "640x640", "linear", "0.02", "NMS 0.4"):
        assert word in words
