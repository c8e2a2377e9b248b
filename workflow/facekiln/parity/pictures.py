"""The pictures that two stages, or two settings, are compared on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Crop
from facekiln.data.calibration_pool import drawn_sample, fit_sample
from facekiln.data.pictures import PROCEDURAL, pictures
from facekiln.vision.preprocess import fit


def choose_pictures(
    source: str, count: int, seed: int, size: tuple[int, int], policy: str, crop: Crop | None = None
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return named pictures, uint8 BGR [h, w, 3], fitted to the network's size.

    A landmark model has a `crop`: it gets squares around drawn faces; a folder's pictures count as crops.

    Args:
        source: `procedural` or a folder, see `facekiln.data.pictures`.
        count: how many.
        seed: decides drawn scenes.
        size: (height, width) of the network's input, pixels.
        policy: how a picture is fitted, see `facekiln.vision.preprocess.fit`.
        crop: of a landmark model.

    Raises:
        KilnError: the folder holds no pictures, or one cannot be read.
    """
    if crop and source == PROCEDURAL:
        drawn = (drawn_sample(index, seed, size, crop) for index in range(count))
        return [(one.source, fit_sample(one, one.load(), size, policy, crop)) for one in drawn]
    policy = "stretch" if crop else policy
    return [(name, fit(image, size, policy)[0]) for name, image in pictures(source, count, seed, size)]
