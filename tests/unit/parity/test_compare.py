"""The pictures of a comparison are brought to the input as the model declares."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.parity.compare import choose_pictures
from facekiln.vision.image import write_image


@pytest.mark.parametrize(("policy", "below"), [("letterbox", 0), ("stretch", 200)])
def test_pictures_are_fitted_by_the_declared_policy(tmp_path: Path, policy: str, below: int) -> None:
    write_image(tmp_path / "wide.png", np.full((50, 200, 3), 200, np.uint8))
    ((name, picture),) = choose_pictures(str(tmp_path), 1, 0, (64, 64), policy)
    assert (name, picture.shape) == ("wide.png", (64, 64, 3))
    assert (picture[:16] == 200).all()
    assert (picture[20:] == below).all()
