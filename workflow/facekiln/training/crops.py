"""Training crops: a random window of a scene, resized, mirrored and re-lit, with its faces."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.head import MIRROR_5
from facekiln.data.procedural import Scene

Floats = NDArray[np.float64]

_LARGEST_ZOOM = 2.0  # more only shows blur


@dataclass(frozen=True)
class Crop:
    """A square crop.

    Attributes:
        image: uint8 [side,side,3] BGR.
        boxes: [n,4] x1, y1, x2, y2 of the faces to learn, pixels, cut at the crop's edge.
        landmarks: [n,5,2] pixels.
        ignored: [m,4] boxes of faces that are neither to be learned nor background: too small or mostly cut.
    """

    image: NDArray[np.uint8]
    boxes: Floats
    landmarks: Floats
    ignored: Floats


def _window(rng: np.random.Generator, scene: Scene, side: int, least_face: float) -> tuple[int, int, int]:
    """Return (x, y, side) of a window that shows some face at a size log-uniform over the crop's."""
    extent = scene.image.shape[0]
    if scene.faces and rng.random() < 0.9:
        wanted = float(np.exp(rng.uniform(np.log(max(least_face, side / 16)), np.log(0.95 * side))))
        largest = max(face.size for face in scene.faces)
        wanted = min(wanted, largest * _LARGEST_ZOOM)
        fit = [face for face in scene.faces if face.size * _LARGEST_ZOOM >= wanted]
        face = fit[int(rng.integers(len(fit)))]
        centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
        window = side * face.size / wanted
    else:
        centre = rng.uniform(0, extent, 2)
        window = extent * rng.uniform(0.2, 1.0)
    window = float(np.clip(window, side / _LARGEST_ZOOM, 1.15 * extent))
    corner = centre - rng.uniform(0.1, 0.9, 2) * window
    # Keep inside the scene where it fits; where it does not, the scene lies somewhere in the window.
    low, high = min(0.0, extent - window), max(0.0, extent - window)
    corner = np.clip(corner, low, high)
    return int(corner[0]), int(corner[1]), max(2, round(window))


def _cut_out(image: NDArray[np.uint8], x: int, y: int, window: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = max(0, y + window - height), max(0, x + window - width)
    inside = image[max(0, y) : y + window, max(0, x) : x + window]
    if top or left or bottom or right:
        framed = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT)
        inside = np.asarray(framed, np.uint8)
    return inside


def _relit(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gain = rng.uniform(0.7, 1.35) * rng.uniform(0.9, 1.1, 3)
    table = np.arange(256)[:, None] * gain + rng.uniform(-25, 25)
    return np.asarray(cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None]), np.uint8)


def make_crop(rng: np.random.Generator, scene: Scene, side: int, least_face: float) -> Crop:
    """Cut a random square out of a scene.

    Args:
        rng: decides everything.
        scene: a square scene.
        side: of the crop, pixels.
        least_face: faces whose longer side is smaller in the crop are ignored.
    """
    x, y, window = _window(rng, scene, side, least_face)
    scale = side / window
    how = cv2.INTER_AREA if scale < 1 and rng.random() < 0.7 else cv2.INTER_LINEAR
    image = cv2.resize(_cut_out(scene.image, x, y, window), (side, side), interpolation=how)
    boxes = (scene.boxes() - np.array([x, y, x, y])) * scale
    landmarks = (scene.landmarks() - np.array([x, y])) * scale
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], axis=1)
        landmarks = landmarks[:, list(MIRROR_5)] * np.array([-1, 1]) + np.array([side, 0])
    picture = np.ascontiguousarray(image, np.uint8)
    if rng.random() < 0.5:
        picture = _relit(rng, picture)

    cut = np.clip(boxes, 0, side)
    whole = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6).prod(axis=1)
    shown = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / whole
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= least_face
    learn = large & (shown >= 0.5) & (centre >= 0).all(axis=1) & (centre <= side).all(axis=1)
    return Crop(picture, cut[learn], landmarks[learn], cut[~learn & (shown > 0)])
