"""The pictures of a comparison are brought to the input as the model declares."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.config import Crop
from facekiln.data.calibration_pool import drawn_sample
from facekiln.parity.compare import choose_pictures
from facekiln.vision.image import write_image
from facekiln.vision.landmarks import cut, square_around


@pytest.mark.parametrize(("policy", "below"), [("letterbox", 0), ("stretch", 200)])
def test_pictures_are_fitted_by_the_declared_policy(tmp_path: Path, policy: str, below: int) -> None:
    write_image(tmp_path / "wide.png", np.full((50, 200, 3), 200, np.uint8))
    ((name, picture),) = choose_pictures(str(tmp_path), 1, 0, (64, 64), policy)
    assert (name, picture.shape) == ("wide.png", (64, 64, 3))
    assert (picture[:16] == 200).all()
    assert (picture[20:] == below).all()


def test_landmark_models_are_compared_on_crops(tmp_path: Path) -> None:
    crop = Crop(side=1.0, above=0.5)
    (_, whole), (name, cut_out) = (
        choose_pictures("procedural", 1, 5, (112, 112), "letterbox", one)[0] for one in (None, crop)
    )
    assert name == "procedural_5_0000" and cut_out.shape == whole.shape == (112, 112, 3)
    sample = drawn_sample(0, 5, (112, 112), crop)
    expected = cut(sample.load(), square_around(sample.boxes[0], crop), (112, 112))
    assert np.array_equal(cut_out, expected)
    write_image(tmp_path / "face.png", np.full((50, 200, 3), 200, np.uint8))
    ((_, picture),) = choose_pictures(str(tmp_path), 1, 0, (64, 64), "letterbox", crop)
    assert (picture == 200).all()  # a folder's pictures are crops already
