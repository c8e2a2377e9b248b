"""Calibration sets: pictures at the network's size, fitted as the model declares."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.artifact import read_json
from facekiln.config import load_config
from facekiln.data.calibration import make_calibration
from facekiln.vision.image import read_image, write_image


@pytest.mark.parametrize(
    ("name", "size", "policy"), [("retinaface_1mb", "320", "letterbox"), ("ulfd_rfb_320", "320", "stretch")]
)
def test_pictures_are_fitted_as_the_model_declares(
    root: Path, tmp_path: Path, name: str, size: str, policy: str
) -> None:
    model = load_config(root / "config").model(name)
    write_image(tmp_path / "in" / "tall.png", np.full((300, 50, 3), 200, np.uint8))
    facts = make_calibration(tmp_path / "out", model, size, source=str(tmp_path / "in"), count=1, seed=0)
    assert facts["policy"] == read_json(tmp_path / "out" / "calibration.json")["policy"] == policy
    picture = read_image(tmp_path / "out" / "images" / "0000.png")
    assert picture.shape[:2] == model.size(size)
    assert (picture[:, -1] == (200 if policy == "stretch" else 0)).all()
