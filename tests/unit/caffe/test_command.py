"""`facekiln caffe`: files, records and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from facekiln.artifact import read_json
from facekiln.caffe.reader import read_net
from facekiln.cli import main
from facekiln.provenance import read_record
from facekiln.vision.heads import heads_from_json

MODEL = """
title: a test
network: retinaface_mobilenet025
licence: MIT
options: {leaky_slope: 0.1}
sizes: {"64": [64, 64]}
input: {name: input, colour: bgr, mean: [0, 0, 0], scale: [1, 1, 1]}
outputs: [loc]
priors: {min_sizes: [[16]], steps: [8], variances: [0.1, 0.2]}
recipe: none
"""


@pytest.fixture
def workplace(tmp_path: Path, root: Path, onnx_model: Callable[..., Any]) -> Path:
    """A config folder with one model, and its ONNX file."""
    (tmp_path / "config/models").mkdir(parents=True)
    (tmp_path / "config/config.yaml").write_text((root / "config/config.yaml").read_text())
    (tmp_path / "config/models/tiny.yaml").write_text(MODEL)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="/head/Conv", strides=[8, 8]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "shape"], ["loc"]),
    ]
    constants = {"w": np.ones((4, 3, 8, 8), np.float32), "shape": np.array([1, -1, 4])}
    onnx.save(onnx_model(nodes, {"input": (1, 3, 64, 64)}, ["loc"], constants), tmp_path / "tiny.onnx")
    return tmp_path


def _convert(folder: Path, **changes: str) -> int:
    options = {"model": "tiny", "size": "64", "config": str(folder / "config")} | changes
    options |= {"prototxt": f"{folder}/o/n.prototxt", "caffemodel": f"{folder}/o/n.caffemodel"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return main(
        ["caffe", "convert", str(folder / "tiny.onnx"), "--heads", f"{folder}/o/n.heads.json", *words]
    )


def test_convert_writes_the_pair_the_heads_and_records(
    workplace: Path, capsys: pytest.CaptureFixture[str], sha256: Callable[[Path], str]
) -> None:
    assert _convert(workplace) == 0
    net = read_net(workplace / "o/n.prototxt", workplace / "o/n.caffemodel")
    assert net.name == "tiny_64" and net.outputs == ["loc_s8"]
    (head,) = heads_from_json(read_json(workplace / "o/n.heads.json"))
    assert (head.stride, head.cells, head.anchors) == (8, (8, 8), 1)
    for name in ("n.prototxt", "n.caffemodel", "n.heads.json"):
        record = read_record(workplace / "o" / name)
        assert record is not None and record.sha256 == sha256(workplace / "o" / name)
        assert record.facts["tensor_of_blob"] == {"input": "input", "loc_s8": "c"}
        assert [edit["rule"] for edit in record.edits] == ["CAFFE-CUT-HEAD"]
        assert record.inputs[0]["sha256"] == sha256(workplace / "tiny.onnx")
    printed = capsys.readouterr().err
    assert "1 layers: Convolution 1" in printed and "CAFFE-CUT-HEAD 1" in printed
    assert sorted(path.name for path in (workplace / "o").iterdir()) == sorted(
        f"n.{ending}{record}"
        for ending in ("prototxt", "caffemodel", "heads.json")
        for record in ("", ".kiln.json")
    )


def test_convert_twice_gives_the_same_bytes(workplace: Path) -> None:
    assert _convert(workplace) == 0
    first = {path.name: path.read_bytes() for path in (workplace / "o").iterdir()}
    assert _convert(workplace) == 0
    assert {path.name: path.read_bytes() for path in (workplace / "o").iterdir()} == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tinny"}, "did you mean 'tiny'"),
        ({"size": "65"}, "unknown size of model 'tiny'"),
    ],
)
def test_wrong_names_get_suggestions(
    workplace: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    assert _convert(workplace, **change) == 1
    assert message in capsys.readouterr().err
    assert not (workplace / "o").exists()


def test_a_file_of_another_size_or_with_other_outputs_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = workplace / "config/models/tiny.yaml"
    model.write_text(MODEL.replace("[64, 64]", "[64, 128]"))
    assert _convert(workplace) == 1
    assert "exported for another size" in capsys.readouterr().err
    model.write_text(MODEL.replace("[loc]", "[loc, conf]"))
    assert _convert(workplace) == 1
    assert "its outputs are not those of 'tiny'" in capsys.readouterr().err
    assert not (workplace / "o").exists()


def test_a_refused_op_names_file_node_and_next_step(
    workplace: Path, onnx_model: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("HardSwish", ["input"], ["loc"], name="act")
    onnx.save(onnx_model([node], {"input": (1, 3, 64, 64)}, ["loc"], opset=14), workplace / "tiny.onnx")
    assert _convert(workplace) == 1
    printed = capsys.readouterr().err
    assert "tiny.onnx: node 'act' (HardSwish)" in printed and "next step:" in printed
    assert not (workplace / "o").exists()


def test_inspect(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _convert(workplace) == 0
    capsys.readouterr()
    assert main(["caffe", "inspect", f"{workplace}/o/n.prototxt"]) == 0
    printed = capsys.readouterr().out
    assert "output loc_s8 [1, 4, 8, 8]" in printed and "weights not read" in printed
    assert main(["caffe", "inspect", f"{workplace}/o/n.prototxt", f"{workplace}/o/n.caffemodel"]) == 0
    assert "n.caffemodel fit" in capsys.readouterr().out
    assert main(["caffe", "inspect", f"{workplace}/o/n.caffemodel"]) == 1


def test_records_are_plain_json(workplace: Path) -> None:
    assert _convert(workplace) == 0
    record = json.loads((workplace / "o/n.caffemodel.kiln.json").read_text())
    assert record["facts"]["layers"] == {"Convolution": 1}
    assert record["settings"] == {"model": "tiny", "size": [64, 64], "steps": [8]}
