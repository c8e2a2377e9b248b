"""Golden counts: the published files on real pictures, in their own network and in the wrong one.

The counts were recorded before this network was written, from Pytorch_Retinaface (b984b4b) and
Face-Detector-1MB-with-landmark (2b07565), on their own sample pictures and nniefacelib's det41.jpg: original
size, score above 0.5, NMS 0.4.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facekiln.config import Model, load_config
from facekiln.models.checkpoint import load_network, read_state
from facekiln.models.registry import build_network
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.image import read_image
from facekiln.vision.preprocess import to_tensor

PICTURES = ("images/test.jpg", "images/sample.jpg", "images/det41.jpg")


@pytest.mark.published
@pytest.mark.parametrize(
    ("weights", "name", "slope", "counts"),
    [
        ("retinaface_mnet025.pth", "retinaface", 0.1, (28, 400, 3)),
        ("retinaface_1mb_mnet025.pth", "retinaface_1mb", 0.0, (27, 519, 3)),
        # The silent failure: both load strictly.
        ("retinaface_mnet025.pth", "retinaface", 0.0, (15, 93, 2)),
        ("retinaface_1mb_mnet025.pth", "retinaface", 0.1, (48, 521, 7)),
    ],
)
def test_the_published_files_find_the_recorded_number_of_faces(
    root: Path,
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    weights: str,
    name: str,
    slope: float,
    counts: tuple[int, int, int],
) -> None:
    model = replace(load_config(root / "config").model(name), options={"leaky_slope": slope})
    network = build_network(model)
    network.load_state_dict(read_state(mirror(weights))[0], strict=True)
    network.eval()
    assert tuple(_count(network, model, read_image(data(picture))) for picture in PICTURES) == counts


def _count(network: torch.nn.Module, model: Model, image: np.ndarray) -> int:
    return len(_faces(network, model, image))


def _faces(network: torch.nn.Module, model: Model, image: np.ndarray) -> Faces:
    with torch.inference_mode():
        outputs = network(torch.from_numpy(to_tensor(image, model.input)))
    by_name = {key: value.numpy() for key, value in zip(model.outputs, outputs, strict=True)}
    return faces_from_outputs(by_name, model, (image.shape[0], image.shape[1]))


@pytest.mark.published
@pytest.mark.parametrize(
    ("weights", "name", "counts"),
    [
        # Face-Detector-1MB-with-landmark's own code (2b07565), run as for the counts above.
        ("retinaface_1mb_slim.pth", "slim_1mb", (23, 473, 3)),
        ("retinaface_1mb_rfb.pth", "rfb_1mb", (23, 492, 3)),
    ],
)
def test_slim_and_rfb_find_the_recorded_number_of_faces(
    root: Path,
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    weights: str,
    name: str,
    counts: tuple[int, int, int],
) -> None:
    config = load_config(root / "config")
    model = config.model(name)
    network = load_network(mirror(weights), model, config)
    assert tuple(_count(network, model, read_image(data(picture))) for picture in PICTURES) == counts


@pytest.mark.published
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # ULFD's own predictor (dffdddd): score 0.7, IoU 0.3, 1500 candidates; it shrinks pictures bilinearly.
        ("ulfd_slim_320", (21, 87, 3)),
        ("ulfd_rfb_320", (22, 74, 3)),
        ("ulfd_slim_640", (27, 87, 3)),
        ("ulfd_rfb_640", (23, 141, 3)),
    ],
)
def test_ulfd_finds_the_recorded_number_of_faces(
    root: Path,
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    name: str,
    counts: tuple[int, int, int],
) -> None:
    config = load_config(root / "config")
    model = config.model(name)
    ((height, width),) = model.sizes.values()
    network = load_network(mirror(f"{name}.pth"), model, config)
    pictures = [cv2.resize(read_image(data(picture)), (width, height)) for picture in PICTURES]
    assert tuple(_count(network, model, picture) for picture in pictures) == counts


@pytest.mark.published
def test_ulfd_finds_faces_where_its_own_predictor_does(
    root: Path, mirror: Callable[[str], Path], data: Callable[[str], Path]
) -> None:
    config = load_config(root / "config")
    model = config.model("ulfd_rfb_320")
    network = load_network(mirror("ulfd_rfb_320.pth"), model, config)
    image = cv2.resize(read_image(data("images/det41.jpg")), (320, 240))
    boxes = _faces(network, model, image).boxes * [640 / 320, 640 / 240, 640 / 320, 640 / 240]
    assert np.allclose(
        boxes,
        [
            [139.9655, 243.5518, 192.2596, 343.2323],
            [462.6109, 81.3480, 518.6654, 176.0092],
            [232.3447, 311.9446, 267.5305, 384.3614],
        ],
        atol=0.01,
    )
