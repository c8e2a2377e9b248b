"""facekiln quant and calibration: from a network and a folder of pictures to every report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper, numpy_helper

from facekiln.artifact import read_json
from facekiln.cli import main
from facekiln.vision.image import read_image, write_image


@pytest.fixture
def place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with the landmark model `small` at 16x16, its network and ten pictures."""
    shutil.copytree(root / "config", tmp_path / "config")
    small = yaml.safe_load((root / "config/models/ghostone.yaml").read_text())
    small.update(title="small", sizes={16: [16, 16]}, outputs=["points"])
    (tmp_path / "config/models/small.yaml").write_text(yaml.safe_dump(small))
    rng = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(size=(8, 4, 16, 16)).astype(np.float32), "w2"),
        numpy_helper.from_array(np.array([1, 8], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], name="one", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="two"),
        helper.make_node("Reshape", ["c", "shape"], ["points"], name="flat"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("input", 1, [1, 3, 16, 16])], [value("points", 1, [1, 8])], stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "small_16.sim.onnx")
    for index in range(10):
        write_image(tmp_path / f"in/{index}.png", rng.integers(0, 256, (20, 24, 3)).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    return main(list(words))


SUBJECT = ("--model", "small", "--size", "16")


def test_the_whole_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibration", "make", *SUBJECT, "--source", "in", "--count", "6", "--output", "set") == 0
    said = capsys.readouterr().err
    assert "6 pictures" in said and "compared with no evaluation set" in said
    assert run("calibration", "check", "set") == 0
    assert run("calibration", "check", "set", "--exclude", "in") == 1
    assert "6 faults" in capsys.readouterr().err
    assert run("calibration", "sheet", "set", "--output", "sheet.png") == 0
    assert read_image(place / "sheet.png").shape[1] == 8 + 8 * 158

    assert run("quant", "ranges", "small_16.sim.onnx", "--calibration", "set", "--output", "ranges.json") == 0
    ranges = read_json(place / "ranges.json")
    assert ranges["set_sha256"] == read_json(place / "set/calibration.json")["set_sha256"]
    assert ranges["settings"]["percentile"] == 99.99 and ranges["pictures"] == 6

    given = ("small_16.sim.onnx", "--ranges", "ranges.json")
    assert run("quant", "qdq", *given, "--method", "mse", "--correct-bias", "set", "--output", "q.onnx") == 0
    record = read_json(place / "q.onnx.kiln.json")
    assert record["emulated"] and record["settings"]["bias_corrected"]
    onnx.checker.check_model(onnx.load(place / "q.onnx"))

    assert run("quant", "methods", *given, "--count", "2", "--output", "methods.json") == 0
    assert len(read_json(place / "methods.json")["rows"]) == 8
    assert run("quant", "sensitivity", *given, "--count", "2", "--output", "sens.json") == 0
    report = read_json(place / "sens.json")
    assert report["simulated"] and {row["node"] for row in report["layers"]} == {"(all)", "one", "two"}
    assert (place / "sens.csv").is_file() and (place / "sens.png").is_file()

    study = ("--source", "in", "--count", "4", "--sizes", "2", "4", "--output", "stability.json")
    assert run("calibration", "stability", "small_16.sim.onnx", *SUBJECT, *study) == 0
    assert read_json(place / "stability.json")["draws"]["pictures"] == 4
    assert (place / "stability.png").is_file()


def test_ranges_of_another_file_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("calibration", "make", *SUBJECT, "--source", "in", "--count", "2", "--output", "set")
    run("quant", "ranges", "small_16.sim.onnx", "--calibration", "set", "--output", "ranges.json")
    other = onnx.load(place / "small_16.sim.onnx")
    other.producer_name = "another"
    onnx.save(other, place / "small_16.sim.onnx")
    given = ("small_16.sim.onnx", "--ranges", "ranges.json", "--output", "q.onnx")
    assert run("quant", "qdq", *given) == 1
    assert "ranges of another network" in capsys.readouterr().err
    assert not (place / "q.onnx").exists()


def test_a_set_of_another_model_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ("--model", "ghostone", "--size", "112")
    run("calibration", "make", *other, "--source", "in", "--count", "2", "--output", "set")
    assert run("quant", "ranges", "small_16.sim.onnx", "--calibration", "set", "--output", "r.json") == 1
    assert "calibration set of another model or size" in capsys.readouterr().err


def test_config_decides_what_is_not_given(place: Path) -> None:
    file = place / "config/config.yaml"
    value = yaml.safe_load(file.read_text())
    value["calibration"] = {"source": "in", "count": 3, "seed": 5, "strata": [], "exclude": []}
    file.write_text(yaml.safe_dump(value))
    assert run("calibration", "make", *SUBJECT, "--output", "set") == 0
    facts = read_json(place / "set/calibration.json")
    assert (facts["source"], facts["count"], facts["seed"], facts["strata"]) == ("in", 3, 5, [])
