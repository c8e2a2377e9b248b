"""Tiny datasets made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.data.declared import Annotation, Declared, Expected, hash_of
from facekiln.vision.image import write_image

MakePicture = Callable[..., Path]
Declare = Callable[..., Declared]


@pytest.fixture
def make_picture() -> MakePicture:
    """Return a function that writes a picture of soft blobs; equal seeds give equal pictures."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
        import cv2

        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        write_image(path, np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8))
        return path

    return make


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Return a function that declares what lies in tmp_path, with true hashes."""

    def make(kind: str, *annotations: str, images: int, ending: str = "", **more: Any) -> Declared:
        counts = {key: more.pop(key) for key in ("faces", "counted", "folders") if key in more}
        return Declared(
            name="tiny",
            kind=kind,
            licence="made here",
            folder=tmp_path,
            expected=Expected(images, **counts),
            annotations=tuple(Annotation(path, hash_of(tmp_path / path, ending)) for path in annotations),
            **{"images": "images", **more},
        )

    return make
