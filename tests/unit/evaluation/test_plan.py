"""What the rules of tables and gates are made from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.config import Config, Golden, load_config
from facekiln.errors import KilnError
from facekiln.evaluation.plan import EvaluationTargets, float_parent_of, parent_of


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


def _table(config: Config, *evaluations: str, **more: Any) -> EvaluationTargets:
    return EvaluationTargets(replace(config, tables={"own": {"evaluations": list(evaluations), **more}}))


def test_quantised_artifacts_have_a_float_parent() -> None:
    assert float_parent_of("nnie/retinaface_640_int16.wk") == "caffe/retinaface_640.caffemodel"
    assert float_parent_of("caffe/retinaface_640.caffemodel") is None
    assert parent_of("caffe/retinaface_640.caffemodel") == "onnx/retinaface_640.sim.onnx"


def test_the_float_evaluation_is_by_the_parents_own_backend(config: Config) -> None:
    targets = EvaluationTargets(config)
    assert targets.float_evaluation_of("voc", "nnie/retinaface_640.wk", "procedural") == (
        "results/eval/voc/caffe-opencv/caffe/retinaface_640.caffemodel/procedural.json"
    )
    assert targets.float_predictions_of("nnie/retinaface_640.wk", "procedural@ulfd") == (
        "results/predictions/caffe-opencv/caffe/retinaface_640.caffemodel/procedural@ulfd"
    )
    with pytest.raises(KilnError, match="no float parent"):
        targets.float_evaluation_of("voc", "onnx/retinaface_640.onnx", "procedural")


def test_the_shipped_table_has_the_float_parents_of_its_quantised_rows(config: Config) -> None:
    targets = EvaluationTargets(config)
    evaluations = targets.evaluations_of("accuracy")
    for name in ("nnie/retinaface_640.wk", "nnie/retinaface_640_int16.wk"):
        assert targets.float_evaluation_of("voc", name, "procedural") in evaluations
    assert targets.evaluations_of("accuracy", ".curves.npz")[0].endswith("procedural.curves.npz")


def test_an_unknown_table_and_a_wrong_entry_are_told(config: Config) -> None:
    with pytest.raises(KilnError, match="did you mean 'accuracy'"):
        EvaluationTargets(config).evaluations_of("acuracy")
    for entry in ("voc/onnxruntime/x.onnx", "voc/onnxruntim/onnx/x.onnx/d", "voc/torch/onnx/x/d.json"):
        with pytest.raises(KilnError, match=r"tables\.own\.evaluations: is no evaluation"):
            _table(config, entry).evaluations_of("own")


def test_every_artifact_of_a_table_has_its_gates(config: Config) -> None:
    targets = _table(config, "voc/nnie-emulator/nnie/retinaface_640.wk/procedural")
    assert targets.gates() == [
        "results/gates/golden/nnie/retinaface_640.wk.json",
        "results/parity/nnie/retinaface_640.wk.json",
        "results/gates/accuracy/voc/nnie-emulator/nnie/retinaface_640.wk/procedural.json",
        "results/gates/board_decode/nnie/retinaface_640.wk.json",
        "results/gates/batch/checkpoints/retinaface.pth.json",
    ]
    born = _table(config, "nme/onnxruntime/onnx/ghostone_112.onnx/wflw")
    # Born as ONNX: there is nothing above it to be compared with.
    assert born.gates() == ["results/gates/golden/onnx/ghostone_112.onnx.json"]


def test_without_a_table_there_is_nothing_to_judge(config: Config) -> None:
    with pytest.raises(KilnError, match="no table is declared"):
        EvaluationTargets(replace(config, tables={})).gates()


def test_what_a_gate_takes_from_the_model_decides_its_digest(config: Config) -> None:
    def digest(**changes: Any) -> str:
        model = replace(config.model("retinaface"), **changes)
        changed = replace(config, models={**config.models, "retinaface": model})
        return EvaluationTargets(changed).declared_of("nnie/retinaface_640_int16.wk")

    decode = replace(config.model("retinaface").decode, score_threshold=0.4)
    changes: list[dict[str, Any]] = [
        {},
        {"decode": decode},
        {"golden": Golden("ab" * 32, (1, 2))},
        {"weights": "local"},
        {"sizes": {"640": (640, 320)}},
    ]
    assert len({digest(**change) for change in changes}) == len(changes)
    assert digest(title="another") == digest()
    with pytest.raises(KilnError, match="did you mean 'retinaface'"):
        EvaluationTargets(config).declared_of("nnie/retinafac_640.wk")


def test_titles_and_names(config: Config) -> None:
    assert _table(config, "a/torch/b/c/d", title="Own").title_of("own") == "Own"
    assert _table(config, "a/torch/b/c/d").title_of("own") == "Accuracy"
    pattern = EvaluationTargets(config).tables()
    assert re.fullmatch(pattern, "acuracy")  # told, with the nearest name
    assert re.match(pattern, "latency_of_mine.md")
    for other in ("latency", "magicmind", "magicmind_ap", "sophon"):  # another rule's
        assert not re.match(pattern, f"{other}.md")
    for wrong, near in (("latncy", "latency"), ("sophn", "sophon"), ("acuracy", "accuracy")):
        with pytest.raises(KilnError, match=f"did you mean '{near}'"):
            EvaluationTargets(config).title_of(wrong)
    with pytest.raises(KilnError, match="unknown table 'magicmind'"):
        EvaluationTargets(config).title_of("magicmind")


def test_a_pair_is_read_with_its_structure(config: Config) -> None:
    files = EvaluationTargets(config).files_of("caffe/retinaface_640.caffemodel")
    assert files["artifact"] == "results/caffe/retinaface_640.caffemodel"
    assert "results/caffe/retinaface_640.prototxt" in files["beside"]
