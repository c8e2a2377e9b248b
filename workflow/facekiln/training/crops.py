"""Training crops: a random window of a picture, resized, mirrored and re-lit, with its faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.head import MIRROR_5
from facekiln.data.landmarks import convert
from facekiln.data.sample import Sample

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
Load = Callable[[float], Picture]

_LARGEST_ZOOM = 2.0  # more only shows blur
_BEYOND = 1.15  # a window may be this much longer than the picture


@dataclass(frozen=True)
class Cut:
    """How crops are cut.

    Attributes:
        size: (height, width) of a crop, pixels.
        faces: least and largest size at which the face that a crop is cut around is shown, pixels.
        on_a_face: share of the crops that are cut around a face.
        least_face: faces whose longer side is smaller in the crop are ignored.
    """

    size: tuple[int, int]
    faces: tuple[float, float]
    on_a_face: float
    least_face: float


@dataclass(frozen=True)
class Crop:
    """A crop.

    Attributes:
        image: uint8 [h,w,3] BGR.
        boxes: [n,4] x1, y1, x2, y2 of the faces to learn, pixels, cut at the crop's edge.
        landmarks: [n,5,2] pixels, NaN where a face has none.
        ignored: [m,4] boxes of faces that are neither to be learned nor background: ignored by annotation,
            too small or mostly cut.
    """

    image: Picture
    boxes: Floats
    landmarks: Floats
    ignored: Floats


def five_points(sample: Sample) -> Floats:
    """Return the five landmarks of a sample's faces, [n,5,2] pixels, NaN where there are none."""
    if sample.landmarks is None:
        return np.full((len(sample), 5, 2), np.nan)
    return convert(sample.landmarks.points, sample.landmarks.scheme, "5")


def _scale(rng: np.random.Generator, sizes: Floats, cut: Cut) -> tuple[float, int | None]:
    """Return crop pixels per picture pixel, and the face around which is cut, if any."""
    if len(sizes) and rng.random() < cut.on_a_face:
        wanted = float(np.exp(rng.uniform(*np.log(cut.faces))))
        wanted = min(wanted, float(sizes.max()) * _LARGEST_ZOOM)
        fit = np.flatnonzero(sizes * _LARGEST_ZOOM >= wanted)
        face = int(fit[rng.integers(len(fit))])
        return wanted / float(sizes[face]), face
    return min(cut.size) * float(np.exp(rng.uniform(0.0, np.log(5.0)))), None


def _window(
    rng: np.random.Generator, boxes: Floats, extent: tuple[int, int], cut: Cut
) -> tuple[Floats, float]:
    """Return the corner (x, y) of a window in picture pixels, and crop pixels per picture pixel."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    size, whole = np.array(cut.size[::-1], float), np.array(extent[::-1], float)
    scale, face = _scale(rng, sizes, cut)
    if face is None:
        scale /= float(whole.min())
        centre = rng.uniform(0, whole)
    else:
        centre = (boxes[face, :2] + boxes[face, 2:]) / 2
    scale = float(np.clip(scale, (size / (_BEYOND * whole)).min(), _LARGEST_ZOOM))
    window = size / scale
    corner = centre - rng.uniform(0.1, 0.9, 2) * window
    # Keep inside the picture where it fits; where it does not, the picture lies somewhere in the window.
    return np.clip(corner, np.minimum(0, whole - window), np.maximum(0, whole - window)), scale


def _resample(
    rng: np.random.Generator, load: Load, corner: Floats, scale: float, extent: tuple[int, int], cut: Cut
) -> tuple[Picture, Floats, Floats]:
    """Cut the window out and resize it.

    Returns the picture, and what maps picture pixels to crop pixels: the corner as cut, and both scales.
    """
    picture = load(scale)
    height, width = picture.shape[:2]
    by = np.array([width / extent[1], height / extent[0]])
    size = np.array(cut.size[::-1])
    x, y = np.floor(corner * by).astype(int).tolist()
    across, down = np.maximum(2, np.rint(size / scale * by)).astype(int).tolist()
    inside = picture[max(0, y) : max(0, y + down), max(0, x) : max(0, x + across)]
    edges = max(0, -y), max(0, y + down - height), max(0, -x), max(0, x + across - width)
    if any(edges):
        inside = np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT), np.uint8)
    # The picture is at most twice as large as needed, where linear is good enough and four times as fast.
    how = cv2.INTER_AREA if across > size[0] and rng.random() < 0.5 else cv2.INTER_LINEAR
    resized = cv2.resize(inside, tuple(size.tolist()), interpolation=how)
    return np.asarray(resized, np.uint8), np.array([x, y]) / by, size / np.array([across, down]) * by


def relit(rng: np.random.Generator, image: Picture) -> Picture:
    """Change a picture's exposure, contrast, colour cast and, at times, saturation; uint8 BGR [h,w,3]."""
    gain = rng.uniform(0.7, 1.35) * rng.uniform(0.9, 1.1, 3)
    table = np.arange(256)[:, None] * gain + rng.uniform(-25, 25)
    changed = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        share = float(rng.uniform(0.0, 0.8))
        changed = cv2.addWeighted(changed, 1 - share, grey, share, 0)
    return np.asarray(changed, np.uint8)


def make_crop(rng: np.random.Generator, sample: Sample, load: Load, cut: Cut) -> Crop:
    """Cut a random window out of a picture.

    Args:
        rng: decides everything.
        sample: the picture's faces; its `size` spares reading more of the picture than is needed.
        load: gives the picture, uint8 BGR, with sides of at least this share of its own.
        cut: how.

    Raises:
        KilnError: the picture cannot be read.
    """
    extent = sample.size or load(1.0).shape[:2]
    corner, scale = _window(rng, sample.boxes[~sample.ignore], (extent[0], extent[1]), cut)
    image, corner, scales = _resample(rng, load, corner, scale, (extent[0], extent[1]), cut)
    boxes = (sample.boxes - np.tile(corner, 2)) * np.tile(scales, 2)
    landmarks = (five_points(sample) - corner) * scales
    width = cut.size[1]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        landmarks = landmarks[:, list(MIRROR_5)] * np.array([-1, 1]) + np.array([width, 0])
    picture = np.ascontiguousarray(image, np.uint8)
    if rng.random() < 0.5:
        picture = relit(rng, picture)
    return _crop_of(picture, boxes, landmarks, sample.ignore, cut.least_face)


def _crop_of(
    picture: Picture, boxes: Floats, landmarks: Floats, ignore: NDArray[np.bool_], least_face: float
) -> Crop:
    """Sort faces into those to learn, those to ignore and those outside."""
    edge = np.array(picture.shape[1::-1], float)
    cut = np.clip(boxes, 0, np.tile(edge, 2))
    whole = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6).prod(axis=1)
    shown = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / whole
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= least_face
    learn = ~ignore & large & (shown >= 0.5) & ((centre >= 0) & (centre <= edge)).all(axis=1)
    return Crop(picture, cut[learn], landmarks[learn], cut[~learn & (shown > 0)])
