"""Predictions in two shards on a real graph: the bytes of a whole run; made again when a setting changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from support.checkout import Checkout, copy_checkout

TARGET = "results/predictions/onnxruntime/onnx/tiny_64.onnx/procedural"
FREE = "results/predictions/torch/checkpoints/tiny.pth/procedural@1mb_320"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("predicted")]


@pytest.fixture(scope="module")
def predicted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy_checkout(root, tmp_path_factory.mktemp("predicted"))
    path = checkout.folder / "config/datasets.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["datasets"]["procedural"].update(
        expected={"images": 7}, options={"purpose": "dataset", "seed": 60, "size": [96, 128]}
    )
    path.write_text(yaml.safe_dump(declared))
    checkout.edit_yaml("config/config.yaml", prediction_shards=2)
    checkout.snakemake("--", TARGET, FREE)
    return checkout


def test_shards_give_the_bytes_of_a_whole_run(predicted: Checkout) -> None:
    for target, artifact in ((TARGET, "onnx/tiny_64.onnx"), (FREE, "checkpoints/tiny.pth")):
        done = predicted.facekiln(
            *("predict", "run", "--stage", f"results/{artifact}", "--output", "whole"),
            *("--dataset", target.rsplit("/", 1)[1]),
        )
        assert done.returncode == 0, done.stderr
        for name in ("predictions.npz", "predictions.json"):
            whole, merged = ((predicted.folder / place / name).read_bytes() for place in ("whole", target))
            assert whole == merged, (target, name)
        meta = json.loads((predicted.folder / target / "predictions.json").read_text())
        assert (meta["images"], meta["artifact"]) == (7, artifact)
    assert not (predicted.folder / "results/prediction_shards/onnxruntime/onnx/tiny_64.onnx").exists()


def test_second_run_does_nothing_and_a_setting_predicts_again(predicted: Checkout) -> None:
    assert predicted.planned(TARGET, FREE) == {}
    path = predicted.folder / "config/config.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("score_threshold: 0.02", "score_threshold: 0.03"))
        assert predicted.planned(TARGET, FREE) == {"predict_shard": 2, "merge_predictions": 1}
    finally:
        path.write_text(before)


def test_a_setting_predicts_again_also_while_the_golden_gate_is_due(predicted: Checkout) -> None:
    """A gate that was only waited for, not depended on, hid every other change behind it."""
    path = predicted.folder / "config/config.yaml"
    before = path.read_text()
    try:
        changed = yaml.safe_load(before)
        changed["inference"]["default"]["score_threshold"] = 0.03
        changed["gates"]["golden"]["seed"] = 99
        path.write_text(yaml.safe_dump(changed))
        planned = predicted.planned(TARGET)
        assert (planned["predict_shard"], planned["merge_predictions"]) == (2, 1)
    finally:
        path.write_text(before)


def test_a_failed_golden_verdict_stops_before_the_run(predicted: Checkout) -> None:
    verdict = predicted.folder / "verdict.json"
    verdict.write_text(json.dumps({"verdict": "failed", "reason": "nothing found"}))
    done = predicted.facekiln(
        *("predict", "run", "--stage", "results/onnx/tiny_64.onnx", "--dataset", "procedural"),
        *("--golden", str(verdict), "--output", "never"),
    )
    assert done.returncode == 3 and "nothing found" in done.stderr
    assert not (predicted.folder / "never").exists()


def test_explain_goes_on_with_the_artifact(predicted: Checkout) -> None:
    done = predicted.facekiln("explain", f"{TARGET}/predictions.npz")
    assert done.returncode == 0, done.stderr
    assert "results/onnx/tiny_64.onnx" in done.stdout
    assert "results/checkpoints/tiny.pth" in done.stdout


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("onnxruntim/onnx/tiny_64.onnx/procedural", "did you mean 'onnxruntime'?"),
        ("onnxruntime/onnx/tiny_64.onnx/procedral", "did you mean 'procedural'?"),
        ("onnxruntime/onnx/tini_64.onnx/procedural", "did you mean 'tiny'?"),
        ("onnxruntime/checkpoints/tiny.pth/procedural", "it runs in: torch"),
        ("onnxruntime/onnx/tiny_64.onnx/procedural@ulfdd", "did you mean 'ulfd'?"),
        ("onnxruntime/onnx/tiny_64.onnx/procedural@1mb_320", "gives each picture a size of its own"),
    ],
)
def test_wrong_names_are_answered_in_words(predicted: Checkout, target: str, answer: str) -> None:
    done = predicted.snakemake("-n", "--", f"results/predictions/{target}", check=False)
    assert done.returncode == 1
    assert answer in done.stdout + done.stderr
    assert "MissingRuleException" not in done.stdout + done.stderr
