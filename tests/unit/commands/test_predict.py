"""`facekiln predict`: names by default, records, merged and exported, errors in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from facekiln.cli import main
from facekiln.config import Model
from facekiln.provenance import read_record
from facekiln.vision.priors import make_priors


class Stage:
    """Finds the prior whose number the picture's brightness says."""

    name, precision, emulated = "onnxruntime", "float", True

    def __init__(self, _path: Path, model: Model, *_: object, **__: object) -> None:
        self.model = model

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        assert self.model.priors
        count = len(make_priors(self.model.priors, picture.shape[:2]))
        conf = np.tile(np.array([1, 0], np.float32), (1, count, 1))
        conf[0, int(picture.mean()) % count] = [0.25, 0.75]
        zeros = np.zeros((1, count, 4), np.float32)
        return {"loc": zeros, "conf": conf, "landms": np.zeros((1, count, 10), np.float32)}


@pytest.fixture
def there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the shipped config, five scenes and an artifact."""
    shutil.copytree(root / "config", tmp_path / "config")
    path = tmp_path / "config/datasets.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["datasets"]["procedural"].update(
        expected={"images": 5}, options={"purpose": "dataset", "seed": 60, "size": [64, 96]}
    )
    path.write_text(yaml.safe_dump(declared))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facekiln.predictions.run.open_stage", Stage)
    Path("results/onnx").mkdir(parents=True)
    Path("results/onnx/retinaface_512.onnx").write_bytes(b"artifact")
    return tmp_path


RUN = ["predict", "run", "--stage", "results/onnx/retinaface_512.onnx", "--dataset", "procedural"]
FOLDER = Path("results/predictions/onnxruntime/onnx/retinaface_512.onnx/procedural")


def test_run_merge_and_export(there: Path) -> None:
    assert main(RUN) == 0
    record = read_record(FOLDER / "predictions.npz")
    assert record is not None
    assert (record.verb, record.emulated) == ("predict run", True)
    assert record.inputs[0]["path"] == "results/onnx/retinaface_512.onnx"
    assert record.facts == {"pictures": 5, "detections": 5}
    for shard in ("1/2", "2-of-2"):
        assert main([*RUN, "--shard", shard, "--output", f"shard{shard[0]}"]) == 0
    assert main(["predict", "merge", "shard1", "shard2", "--output", "merged"]) == 0
    for name in ("predictions.npz", "predictions.json"):
        assert Path("merged", name).read_bytes() == (FOLDER / name).read_bytes()
    merged = read_record("merged/predictions.npz")
    assert merged is not None
    # The shards go; the story goes on with what they were made from.
    assert merged.inputs == record.inputs
    assert main(["predict", "export", "merged", "--format", "json", "--output", "all.json"]) == 0
    value = json.loads(Path("all.json").read_text())
    assert [len(rows) for rows in value.values()] == [1] * 5
    assert main(["predict", "export", "merged", "--boxes", "truncate", "--output", "text"]) == 0
    assert len(list(Path("text").rglob("*.txt"))) == 5


def test_an_export_of_a_missing_folder_tells_the_next_step(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "export", str(FOLDER), "--output", "text"]) == 1
    assert f"next step: make them: snakemake --cores 4 {FOLDER}" in capsys.readouterr().err
    assert not Path("text").exists()


def test_an_inference_entry_is_named_in_either_way(there: Path) -> None:
    assert main([*RUN, "--inference", "ulfd"]) == 0
    first = (FOLDER.with_name("procedural@ulfd") / "predictions.json").read_bytes()
    assert main([*RUN[:-1], "procedural@ulfd", "--output", "other"]) == 0
    assert Path("other/predictions.json").read_bytes() == first
    assert json.loads(first)["score_threshold"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shard", "3/2"], "is no shard"),
        (["--backend", "onnx"], "did you mean 'onnxruntime'"),
        (["--backend", "torch"], "it runs in: onnxruntime"),
        (["--inference", "ulfdd"], "did you mean 'ulfd'"),
        (["--inference", "1mb_640"], "a size of its own"),
        (["--model", "rfb_1mb"], "of another model or size by its name"),
        (["--dataset", "procedurl"], "did you mean 'procedural'"),
        (["--dataset", "procedural@ulfd", "--inference", "default"], "two inference entries"),
        (["--stage", "results/onnx/none_1.onnx"], "unknown model 'none'"),
        (["--dataset", "wider_val"], "is not here"),
    ],
)
def test_errors_are_told_and_nothing_is_written(
    there: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, *arguments]) == 1
    assert told in capsys.readouterr().err
    assert not Path("results/predictions").exists()
