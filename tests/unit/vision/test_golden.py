"""Golden counts: the published files on real pictures, in their own network and in the wrong one.

The counts were recorded before this network was written, from Pytorch_Retinaface (b984b4b) and
Face-Detector-1MB-with-landmark (2b07565), on their own sample pictures and nniefacelib's det41.jpg: original
size, score above 0.5, NMS 0.4.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from facekiln.config import load_config
from facekiln.models.checkpoint import read_state
from facekiln.models.registry import build_network
from facekiln.vision.detect import faces_from_outputs
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
    found = []
    for picture in PICTURES:
        image = read_image(data(picture))
        with torch.inference_mode():
            outputs = network(torch.from_numpy(to_tensor(image, model.input)))
        by_name = {key: value.numpy() for key, value in zip(model.outputs, outputs, strict=True)}
        found.append(len(faces_from_outputs(by_name, model, (image.shape[0], image.shape[1]))))
    assert tuple(found) == counts
