"""What a calibration set can be chosen from: samples of a source, looked at one by one, in a seeded order."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.config import DEFAULT_FOLDER, Crop
from facekiln.data.calibration_rule import DATASET
from facekiln.data.declared import declared_set, open_dataset
from facekiln.data.near import fingerprint
from facekiln.data.pictures import PROCEDURAL, picture_names
from facekiln.data.procedural import Scene, Style, draw_scene, scene_seed
from facekiln.data.procedural_set import scene_sample
from facekiln.data.sample import Listing, Sample, sample_of
from facekiln.errors import KilnError
from facekiln.vision.landmarks import cut, square_around
from facekiln.vision.preprocess import Picture, fit

# Scenes that a landmark model's crops are cut from: one face each, as large as annotated faces are.
_CROP_SIZE = (480, 480)
_CROP_STYLE = Style(face_size=(48.0, 300.0), most_faces=1, empty=0.0, truncated=0.2)


@dataclass(frozen=True)
class Source:
    """Where pictures come from.

    Attributes:
        name: "procedural", the folder, or the dataset's name.
        digest: of a dataset's declaration; empty otherwise.
        annotated: faces are known, so that pictures can be told apart by them.
        samples: the listing; None where they are drawn without end.
    """

    name: str
    digest: str
    annotated: bool
    samples: Listing | None


def _folder(folder: Path) -> Listing:
    """List the pictures of a folder as samples without annotation."""
    if not folder.is_dir():
        raise KilnError(
            "is not a folder",
            file=folder,
            hint=f"name a folder of pictures, `{DATASET}NAME`, or `{PROCEDURAL}` to draw some",
        )
    names = picture_names(folder)
    if not names:
        raise KilnError("holds no picture", file=folder, hint=f"or use `{PROCEDURAL}`")
    return Listing(
        str(folder), names, lambda index: sample_of(names[index], folder / names[index], []), folder
    )


def open_source(source: str, config: Path | str = DEFAULT_FOLDER) -> Source:
    """Open a source of pictures; none is read yet.

    Args:
        source: "procedural", `dataset:NAME` (of datasets.yaml), or a folder of pictures.
        config: the config folder.

    Raises:
        KilnError: no such dataset or folder, or it is empty or not what was declared.
    """
    if source == PROCEDURAL:
        return Source(PROCEDURAL, "", True, None)
    if source.startswith(DATASET):
        declared = declared_set(source.removeprefix(DATASET), config)
        return Source(declared.name, declared.digest(), True, open_dataset(declared))
    return Source(source, "", False, _folder(Path(source)))


@functools.lru_cache(maxsize=2)
def _scene(index: int, seed: int, size: tuple[int, int], style: Style | None) -> Scene:
    return draw_scene(scene_seed("pictures", seed, index), size, style)


def drawn_sample(index: int, seed: int, size: tuple[int, int], crop: Crop | None) -> Sample:
    """Draw one scene: at `size`, or with one face to be cut out where a landmark model's crop is meant.

    The picture is drawn again when it is wanted later, so that a large pool holds none.
    """
    shape, style = (_CROP_SIZE, _CROP_STYLE) if crop else (size, None)
    sample = scene_sample(f"{PROCEDURAL}_{seed}_{index:04d}", _scene(index, seed, shape, style))
    return replace(sample, picture=lambda: _scene(index, seed, shape, style).image)


def samples_in_order(
    source: Source, seed: int, size: tuple[int, int], crop: Crop | None = None, most: int = 0
) -> Iterator[Sample]:
    """Yield a source's samples in an order that the seed decides; drawn ones in their own.

    Args:
        source: opened.
        seed: decides the order, and what is drawn.
        size: (height, width) of drawn scenes.
        crop: of a landmark model.
        most: how many are drawn; a stored source is yielded whole.
    """
    if source.samples is None:
        yield from (drawn_sample(index, seed, size, crop) for index in range(most))
        return
    for index in np.random.default_rng(seed).permutation(len(source.samples)).tolist():
        yield source.samples[index]


@dataclass(frozen=True, eq=False)
class Looked:
    """A sample that was looked at.

    Attributes:
        sample: itself; the picture is read again when it is wanted.
        sha256: of the file, or of a drawn picture's bytes.
        near: 64-bit difference hash of the whole picture, None where it has no contrast.
        shape: (height, width) of the stored picture.
        light: mean luminance of what the network sees of it, 0..255.
    """

    sample: Sample
    sha256: str
    near: int | None
    shape: tuple[int, int]
    light: float


def largest_face(sample: Sample) -> int | None:
    """Return the index of the face that counts whose longer side is largest; None where none counts."""
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).max(axis=1, initial=0)
    sides = np.where(sample.ignore | (sides <= 0), -1.0, sides)
    return int(sides.argmax()) if len(sides) and sides.max() > 0 else None


def fit_sample(
    sample: Sample, image: Picture, size: tuple[int, int], policy: str, crop: Crop | None
) -> Picture:
    """Return a sample's picture as the network takes it: the scene fitted, or the square around its largest
    face where the model declares a crop (a picture without a face is taken for a crop already).

    Args:
        sample: its boxes.
        image: its picture, uint8 BGR [h, w, 3].
        size: (height, width) of the network's input.
        policy: how scenes are fitted.
        crop: the model's, if it is a landmark model.

    Returns:
        uint8 BGR [height, width, 3].
    """
    face = largest_face(sample) if crop else None
    if crop is None or face is None:
        return fit(image, size, "stretch" if crop else policy)[0]
    return cut(image, square_around(sample.boxes[face], crop), size)


def luminance(image: NDArray[np.uint8]) -> float:
    """Return the mean of Y (ITU-R BT.601, as OpenCV's grey), 0..255."""
    return float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())


def look(sample: Sample, crop: Crop | None = None) -> Looked:
    """Read a sample's picture once and keep what choosing needs.

    Raises:
        KilnError: it cannot be read.
    """
    image = sample.load()
    face = largest_face(sample) if crop else None
    seen = image
    if crop and face is not None:
        seen = cut(image, square_around(sample.boxes[face], crop), (64, 64))
    return Looked(sample, sample.sha256(image), fingerprint(image), image.shape[:2], luminance(seen))


def is_missing(sample: Sample) -> bool:
    """Whether a sample's picture is a file that is not here."""
    return not callable(sample.picture) and not sample.picture.is_file()


def network_scale(shape: tuple[int, int], size: tuple[int, int], policy: str) -> tuple[float, float]:
    """Return (x, y): network pixels per stored pixel under a resize policy (see `vision.preprocess.fit`)."""
    x, y = size[1] / shape[1], size[0] / shape[0]
    if policy == "original":
        return 1.0, 1.0
    return (x, y) if policy == "stretch" else (min(x, y), min(x, y))
