"""Pictures for crops: no larger than a crop needs them, and the last ones kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.sample import Sample
from facekiln.vision.image import SHRINKS, read_image

Picture = NDArray[np.uint8]

BUDGET = 1 << 30  # bytes; a picture that a rare crop needs again is soon read again


class PictureCache:
    """Reads the pictures of samples, and keeps what was used last."""

    def __init__(self, budget: int = BUDGET) -> None:
        """Keep at most `budget` bytes of pictures."""
        self._budget, self._held = budget, 0
        self._pictures: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, index: int, sample: Sample, scale: float) -> Picture:
        """Return a sample's picture, uint8 BGR, with sides of at least `scale` of its own.

        Args:
            index: the sample's number; equal numbers, equal pictures.
            sample: of which.
            scale: crop pixels per picture pixel; below 1/2 the picture is a fraction of its size, which a
                JPEG's decoder gives for less time.

        Raises:
            KilnError: the file is missing or not a whole picture.
        """
        # A size is needed to know where in the smaller picture a face lies.
        shrink = max((by for by in SHRINKS if by * scale <= 1), default=1) if sample.size else 1
        key = index, shrink
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        picture = _read(sample, shrink)
        with self._lock:
            if key not in self._pictures and picture.nbytes <= self._budget:
                self._pictures[key] = picture
                self._held += picture.nbytes
                while self._held > self._budget:
                    self._held -= self._pictures.popitem(last=False)[1].nbytes
        return picture


def _read(sample: Sample, shrink: int) -> Picture:
    if isinstance(sample.picture, Path):
        return read_image(sample.picture, shrink)
    picture = sample.load()
    if shrink == 1:
        return picture
    height, width = (-(-side // shrink) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
