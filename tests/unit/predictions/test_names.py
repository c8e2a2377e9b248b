"""Names of predictions and entries of `inference`: what they mean, and what is answered to a wrong one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.config import Config, check
from facekiln.errors import KilnError
from facekiln.predictions.names import (
    BACKENDS,
    PredictionTargets,
    backend_for,
    model_of,
    split_dataset,
)
from facekiln.predictions.settings import inference_of


@dataclass
class Wild:
    backend: str
    artifact: str
    dataset: str


@pytest.fixture(scope="module")
def targets(config: Config, root: Path) -> PredictionTargets:
    return PredictionTargets(config, root / "config")


@pytest.mark.parametrize(
    ("wild", "files"),
    [
        (("torch", "checkpoints/retinaface.pth", "procedural"), []),
        (("torchscript", "torchscript/retinaface_640.pt", "procedural"), []),
        (("onnxruntime", "onnx/retinaface_640.sim.onnx", "procedural@default"), []),
        (("caffe-opencv", "caffe/retinaface_640.caffemodel", "wider_val"), [".prototxt", ".heads.json"]),
        (("caffe-mnn", "caffe/retinaface_640.caffemodel", "wider_val"), [".prototxt", ".heads.json"]),
        (("nnie-emulator", "nnie/retinaface_640_int16.wk", "procedural"), []),
    ],
)
def test_inputs_are_the_artifact_and_what_is_read_with_it(
    targets: PredictionTargets, wild: tuple[str, str, str], files: list[str]
) -> None:
    stem = wild[1].removesuffix(BACKENDS[wild[0]].ending)
    assert targets.files(Wild(*wild)) == {
        "artifact": f"results/{wild[1]}",
        "beside": [f"results/{stem}{ending}" for ending in files],
    }


@pytest.mark.parametrize(
    ("wild", "told"),
    [
        (("onnxruntim", "onnx/retinaface_640.onnx", "procedural"), "did you mean 'onnxruntime'"),
        (("onnxruntime", "onnx/retinafac_640.onnx", "procedural"), "did you mean 'retinaface'"),
        (("onnxruntime", "onnx/retinaface_641.onnx", "procedural"), "did you mean '640'"),
        (("onnxruntime", "onnx/retinaface_640.onnx", "wider_vol"), "did you mean 'wider_val'"),
        (("onnxruntime", "onnx/retinaface_640.onnx", "wider_val@ulf"), "did you mean 'ulfd'"),
        (
            ("onnxruntime", "caffe/retinaface_640.caffemodel", "wider_val"),
            "it runs in: caffe-opencv, caffe-mnn",
        ),
        (("onnxruntime", "caffe/retinaface_640.onnx", "wider_val"), "runs artifacts of results/onnx/"),
        (("torch", "checkpoints/retinaface.tar.gz", "wider_val"), r"of no kind that a backend runs"),
        (("torch", "checkpoints/ghostone.pth", "wider_val"), "it has no checkpoint"),
        (("onnxruntime", "onnx/retinaface_640.onnx", "wider_val@stock_original"), "a size of its own"),
        (("nnie-emulator", "nnie/retinaface_640.wk", "wider_val@1mb_640"), "a size of its own"),
    ],
)
def test_wrong_names_are_answered(targets: PredictionTargets, wild: tuple[str, str, str], told: str) -> None:
    with pytest.raises(KilnError, match=told):
        targets.files(Wild(*wild))


def test_digest_changes_with_what_decides_the_result(config: Config, targets: PredictionTargets) -> None:
    onnx = Wild("onnxruntime", "onnx/retinaface_640.onnx", "procedural")
    model = config.model("retinaface")
    digests = {targets.digest(onnx)}
    for changed in (
        replace(model, input=replace(model.input, colour="rgb")),
        replace(model, priors=replace(model.priors, clip=True)),  # type: ignore[type-var]
        replace(model, decode=replace(model.decode, nms_iou=0.3)),
    ):
        other = replace(config, models={**config.models, "retinaface": changed})
        digests.add(PredictionTargets(other, targets._folder).digest(onnx))
    digests.add(targets.digest(replace(onnx, dataset="procedural@ulfd")))
    digests.add(targets.digest(replace(onnx, dataset="wider_val")))
    assert len(digests) == 6
    # The threshold of `facekiln detect` is not that of predictions.
    same = replace(model, decode=replace(model.decode, score_threshold=0.9), title="other")
    other = replace(config, models={**config.models, "retinaface": same})
    assert PredictionTargets(other, targets._folder).digest(onnx) == targets.digest(onnx)


def test_backends_and_segments() -> None:
    assert backend_for("a.caffemodel") == "caffe-opencv"
    assert backend_for("a.caffemodel", "caffe-mnn") == "caffe-mnn"
    assert split_dataset("wider_val") == ("wider_val", "default")
    assert split_dataset("wider_val@ulfd") == ("wider_val", "ulfd")


def test_model_and_size_come_from_the_name_or_are_given(config: Config) -> None:
    assert model_of("x/retinaface.pth", "torch", config)[1] is None
    assert model_of("any.pth", "torch", config, "retinaface")[0].name == "retinaface"
    model, label = model_of("any.onnx", "onnxruntime", config, "retinaface", "512")
    assert (model.name, label) == ("retinaface", "512")
    with pytest.raises(KilnError, match="of another model or size by its name"):
        model_of("retinaface_640.onnx", "onnxruntime", config, "rfb_1mb")
    with pytest.raises(KilnError, match="built for no size"):
        model_of("retinaface.pth", "torch", config, size="640")


def test_default_is_the_models_own_resize_and_suppression(config: Config) -> None:
    ulfd = inference_of("default", config.model("ulfd_rfb_320"), config, label="320")
    assert (ulfd.resize.policy, ulfd.resize.size) == ("stretch", (240, 320))
    decode = ulfd.decode
    assert (decode.score_threshold, decode.top_k, decode.keep) == (0.02, 5000, 750)
    assert (decode.nms_iou, decode.extent, decode.epsilon) == (0.3, 0, 0.0)
    stock = inference_of("default", config.model("retinaface"), config, label="640")
    assert (stock.resize.policy, stock.decode.nms_iou, stock.decode.extent) == ("letterbox", 0.4, 1)


def test_reference_protocols(config: Config) -> None:
    """The test scripts of three projects: 1600/2150, long side, and 320x240 with score 0.1, IoU 0.3."""
    model = config.model("retinaface")
    names = {
        name: inference_of(name, model, config, label=None).meta()["resize"] for name in config.inference
    }
    assert names == {
        "default": "letterbox",
        "stock_original": "original",
        "stock_1600": "short_1600_max_2150",
        "1mb_320": "long_side_320",
        "1mb_640": "long_side_640",
        "ulfd": "stretch",
    }
    ulfd = inference_of("ulfd", config.model("ulfd_rfb_320"), config, label="320").meta()
    assert ulfd == {
        "inference": "ulfd",
        "resize": "stretch",
        "interpolation": "linear",
        "size": [240, 320],
        "score_threshold": 0.1,
        "nms_iou": 0.3,
        "nms_epsilon": 1e-5,
        "top_k": 800,
        "keep": 400,
        "extent": 0,
    }


def test_a_checkpoint_gets_the_entrys_size_or_the_models_first(config: Config) -> None:
    model = config.model("retinaface")
    sized = replace(config, inference={"big": {"size": 1024}, "odd": {"size": "1000"}, "none": {}})
    assert inference_of("big", model, sized, label=None).resize.size == (1024, 1024)
    assert inference_of("none", model, sized, label=None).resize.size == (512, 512)
    with pytest.raises(KilnError, match="unknown size of model 'retinaface' '1000'"):
        inference_of("odd", model, sized, label=None)
    with pytest.raises(KilnError, match="built for another size"):
        inference_of("big", model, sized, label="640")


def test_a_landmark_model_is_cropped_whatever_the_entry_says(config: Config) -> None:
    meta = inference_of("default", config.model("ghostone"), config, label="112").meta()
    assert (meta["resize"], meta["size"], meta["top_k"]) == ("crop", [112, 112], 0)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"resize": "long_side"}, "'side' is a required property"),
        ({"resize": "short_side", "side": 1600}, "'longest' is a required property"),
        ({"resize": "longside"}, "is not one of"),
        ({"sid": 4}, "did you mean 'side'"),
        ({"interpolation": "cubic"}, "is not one of"),
        ({"extent": 2}, "is not one of"),
    ],
)
def test_wrong_entries_stop_at_the_config(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(KilnError, match=told):
        check({"weights": "synthetic", "inference": {"mine": entry}}, "config", "config.yaml")


def test_every_backend_stands_in_its_page(root: Path) -> None:
    page = (root / "docs/predictions.md").read_text(encoding="utf-8")
    assert [name for name in BACKENDS if f"`{name}`" not in page] == []
