"""Published RetinaFace at 320 on photographs: what the methods and the correction do to a real network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from facekiln.config import Model, load_config
from facekiln.data.pictures import folder_pictures
from facekiln.quant.bias import correct_biases, mean_errors
from facekiln.quant.estimate import compare_methods
from facekiln.quant.qdq import build_qdq, with_biases
from facekiln.quant.ranges import Ranges, measure_ranges
from facekiln.quant.run import Pictures, pictures_in_memory
from facekiln.vision.preprocess import fit

Found = Callable[[str], Path]
pytestmark = [pytest.mark.published, pytest.mark.slow]


@pytest.fixture(scope="module")
def subject(root: Path, mirror: Found) -> tuple[onnx.ModelProto, Model]:
    from facekiln.graph.export import export_onnx
    from facekiln.graph.simplify import simplify
    from facekiln.models.checkpoint import load_network

    config = load_config(root / "config")
    model = config.model("retinaface_1mb")
    network = load_network(mirror("retinaface_1mb_mnet025.pth"), model, config)
    return simplify(export_onnx(network, model, "320", 13)), model


@pytest.fixture(scope="module")
def photos(subject: tuple[onnx.ModelProto, Model], data: Found) -> tuple[Pictures, Pictures]:
    """Sixteen photographs to calibrate on, and sixteen others."""
    _, model = subject
    images = [fit(image, (320, 320))[0] for _, image in folder_pictures(data("wider/images"), 32, 1)]
    return pictures_in_memory(images[::2], model), pictures_in_memory(images[1::2], model)


@pytest.fixture(scope="module")
def ranges(subject: tuple[onnx.ModelProto, Model], photos: tuple[Pictures, Pictures]) -> Ranges:
    return measure_ranges(subject[0], photos[0], percentile=99.99)


def test_int8_is_close_to_float(
    subject: tuple[onnx.ModelProto, Model], photos: tuple[Pictures, Pictures], ranges: Ranges
) -> None:
    network, model = subject
    rows = {
        (row["method"], row["scheme"]): row
        for row in compare_methods(network, ranges, photos[1], model, "320")
    }
    assert all(row["faces"]["parent"] > 10 for row in rows.values())
    for method in ("percentile", "kl", "mse"):
        assert rows[method, "asymmetric"]["faces"]["found"] >= 0.85
    # Clipping pays on this network: its extremes are those of a few places in a few pictures.
    least = {key: min(row["sqnr_db"].values()) for key, row in rows.items()}
    assert least["kl", "symmetric"] > least["minmax", "symmetric"]
    assert least["minmax", "asymmetric"] > least["minmax", "symmetric"]


def test_bias_correction_takes_out_the_mean_error_of_boxes(
    subject: tuple[onnx.ModelProto, Model], photos: tuple[Pictures, Pictures], ranges: Ranges
) -> None:
    network, _ = subject
    quantised = build_qdq(network, ranges, "minmax", "symmetric")
    corrected = with_biases(quantised, correct_biases(network, quantised, list(photos[0])[:8]))
    judged = list(photos[1])[:8]
    before, after = (mean_errors(network, one, judged) for one in (quantised, corrected))
    assert np.mean([after["loc"] / before["loc"], after["landms"] / before["landms"]]) < 0.7
