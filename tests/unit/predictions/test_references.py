"""Published weights give the reference figures on 183 WIDER FACE pictures, through our own pipeline.

The pictures are the first, middle and last of each of the 61 events of the validation set. The figures are
those of Ultra-Light-Fast-Generic-Face-Detector-1MB's evaluation_on_widerface.py (dffdddd) and the Python port
of the official evaluation, on CPU; torch and ONNX Runtime gave the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.config import Config
from facekiln.data.declared import Annotation, Declared, Expected
from facekiln.evaluation.read_text import read_text
from facekiln.evaluation.wider import evaluate
from facekiln.evaluation.wider_truth import read_truth
from facekiln.predictions.export import export
from facekiln.predictions.run import predict
from facekiln.predictions.settings import inference_of
from facekiln.predictions.shards import Shard
from facekiln.predictions.store import Predictions

Find = Callable[[str], Path]

pytestmark = [pytest.mark.published, pytest.mark.slow]

ULFD_RFB_320 = {"easy": 0.835375, "medium": 0.711894, "hard": 0.450387}


def run(
    artifact: Path, model: str, backend: str, entry: str, data: Find, config: Config, output: Path
) -> Predictions:
    annotation = "subset183/ground_truth/wider_face_val.mat"
    declared = Declared(
        name="subset183",
        kind="wider_mat",
        licence="research only",
        expected=Expected(images=183, folders=61),
        folder=data("wider"),
        images="images",
        annotations=(
            Annotation(annotation, hashlib.sha256(data(f"wider/{annotation}").read_bytes()).hexdigest()),
        ),
    )
    label = None if backend == "torch" else "320"
    return predict(
        artifact,
        config.model(model),
        config,
        backend=backend,
        inference=inference_of(entry, config.model(model), config, label=label),
        declared=declared,
        shard=Shard(),
        output=output,
    )


def figures(found: Predictions, boxes: str, digits: int | None, data: Find, folder: Path) -> dict[str, float]:
    """Through the result files that the reference script would write."""
    export(found, folder / "text", boxes=boxes, digits=digits)
    truth = read_truth(data("wider/subset183/ground_truth"), None)
    return evaluate(read_text(folder / "text", truth), truth, "port").ap


@pytest.mark.parametrize(
    ("file", "backend"),
    [("ulfd_rfb_320.pth", "torch"), ("ulfd_rfb_320_upstream_simplified.onnx", "onnxruntime")],
)
def test_ultra_light_rfb_320(
    file: str, backend: str, mirror: Find, data: Find, config: Config, tmp_path: Path
) -> None:
    """The checkpoint, and the project's own ONNX file: six digits of each figure."""
    found = run(mirror(file), "ulfd_rfb_320", backend, "ulfd", data, config, tmp_path / "out")
    assert figures(found, "floor_ceil", 3, data, tmp_path) == pytest.approx(ULFD_RFB_320, abs=1e-6)


def test_areas_instead_of_bilinear_is_another_protocol(
    mirror: Find, data: Find, config: Config, tmp_path: Path
) -> None:
    """The figures above can fail: resampling alone moves them."""
    entry = {key: value for key, value in config.inference["ulfd"].items() if key != "interpolation"}
    changed = replace(config, inference={**config.inference, "areas": entry})
    artifact = mirror("ulfd_rfb_320_upstream_simplified.onnx")
    found = run(artifact, "ulfd_rfb_320", "onnxruntime", "areas", data, changed, tmp_path / "out")
    other = figures(found, "floor_ceil", 3, data, tmp_path)
    assert abs(other["hard"] - ULFD_RFB_320["hard"]) > 1e-4
