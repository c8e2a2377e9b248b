"""Scenes with made-up faces, whose boxes, landmarks and poses are exact because they were drawn from them.

The same seed gives the same bytes. Scenes train small detectors, check them on pictures that they never saw,
and stand in for photographs in calibration and parity where none are given.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.features import Sitter
from facekiln.data.head import FIVE, View, random_shape, rotation
from facekiln.data.looks import random_looks
from facekiln.data.portrait import draw_portrait
from facekiln.data.scenery import backdrop, clutter, decoy

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """What scenes are made of.

    Attributes:
        face_size: least and largest longer side of a face box, pixels; sizes are log-uniform between them.
        most_faces: scenes have 0 to this many faces.
        empty: share of scenes without any.
        truncated: share of faces that the picture's edge may cut.
        max_yaw, max_pitch, max_roll: limits of the pose, radians.
    """

    face_size: tuple[float, float] = (12.0, 400.0)
    most_faces: int = 8
    empty: float = 0.08
    truncated: float = 0.08
    max_yaw: float = 1.05
    max_pitch: float = 0.5
    max_roll: float = 0.5


@dataclass(frozen=True)
class Face:
    """One drawn face. Coordinates are pixels of the scene, pixel edges at integers.

    Attributes:
        box: x1, y1, x2, y2 of the face, hairline to chin with all landmarks in it, cut at the picture's edge.
        landmarks5: [5,2] eyes, nose tip, corners of the mouth, from the picture's left.
        landmarks98: [98,2], WFLW order (see `facekiln.data.head`); they may lie outside the picture.
        pose: yaw, pitch, roll in radians, signs as in 300W-LP (see `facekiln.data.head.rotation`).
        size: longer side of the uncut box.
        blur: sigma of the scene's blur, pixels.
        occlusion: share of the face that its own glasses, mask, hand or bar hides, 0..1.
        visible: share of the uncut box inside the picture, 0..1.
    """

    box: Box
    landmarks5: NDArray[np.float64]
    landmarks98: NDArray[np.float64]
    pose: tuple[float, float, float]
    size: float
    blur: float
    occlusion: float
    visible: float


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 [h,w,3] BGR, and the faces in it."""

    image: Image
    faces: list[Face] = field(default_factory=list)

    def boxes(self) -> NDArray[np.float64]:
        """Return the boxes of all faces, [n,4]."""
        return np.array([face.box for face in self.faces], np.float64).reshape(-1, 4)

    def landmarks(self) -> NDArray[np.float64]:
        """Return the five landmarks of all faces, [n,5,2]."""
        return np.array([face.landmarks5 for face in self.faces], np.float64).reshape(-1, 5, 2)


def _lay(picture: Image, image: Image, cover: Image, corner: tuple[int, int]) -> None:
    """Put a cut-out over the picture. Its colours are already weighted by its cover (drawn over black)."""
    height, width = picture.shape[:2]
    x, y = corner
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + cover.shape[1], width), min(y + cover.shape[0], height)
    if x1 <= x0 or y1 <= y0:
        return
    inside = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    under = picture[y0:y1, x0:x1]
    through = cv2.merge([255 - cover[inside]] * 3)
    cv2.add(cv2.multiply(under, through, scale=1 / 255), image[inside], dst=under)


def _pose(rng: np.random.Generator, style: Style) -> tuple[float, float, float]:
    """Mostly frontal, at times turned to the limits."""
    limits = np.array([style.max_yaw, style.max_pitch, style.max_roll])
    spread = rng.choice([0.3, 1.0], p=[0.55, 0.45])
    yaw, pitch, roll = (rng.uniform(-1, 1, 3) * limits * spread).tolist()
    return yaw, pitch, roll


def _sitter(rng: np.random.Generator, size: float, style: Style) -> tuple[Sitter, tuple[float, float, float]]:
    """A head whose box has the longer side `size`, at the origin."""
    shape, looks, pose = random_shape(rng), random_looks(rng), _pose(rng, style)
    turned, distance, seed = rotation(pose), float(rng.uniform(5, 14)), int(rng.integers(2**31))
    outline = Sitter(shape, looks, View(turned, distance), seed).outline()
    scale = size / float(np.ptp(outline, axis=0).max())
    return Sitter(shape, looks, View(turned, distance, scale), seed), pose


def _moved(sitter: Sitter, offset: tuple[float, float]) -> Sitter:
    view = View(sitter.view.rotation, sitter.view.distance, sitter.view.scale, offset)
    return Sitter(sitter.shape, sitter.looks, view, sitter.seed)


def _cut(box: Box, height: int, width: int) -> Box:
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _shared(one: Box, two: Box) -> float:
    return _area((max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3])))


def _head_and_body(box: Box) -> Box:
    """About what a portrait hides around its face: hair above and beside it, shoulders below."""
    width, height = box[2] - box[0], box[3] - box[1]
    return box[0] - 0.3 * width, box[1] - 0.35 * height, box[2] + 0.3 * width, box[3] + 1.0 * height


def _place(
    rng: np.random.Generator, sitter: Sitter, height: int, width: int, taken: list[Box], style: Style
) -> tuple[Sitter, Box] | None:
    """Find a place for a head behind those of `taken` where none of them hides its face, or None."""
    outline = sitter.outline()
    low, high = outline.min(axis=0), outline.max(axis=0)
    span = high - low
    for _ in range(12):
        slack = 0.3 * span if rng.random() < style.truncated else np.zeros(2)
        room = np.array([width, height]) - span
        if (room < 0).any() and not slack.any():
            slack = np.maximum(-room, 0)
        at = rng.uniform(np.minimum(-slack, room + slack), np.maximum(room + slack, -slack))
        box = (float(at[0]), float(at[1]), float(at[0] + span[0]), float(at[1] + span[1]))
        if _area(_cut(box, height, width)) < 0.6 * _area(box):
            continue
        if all(_shared(_head_and_body(other), box) < 0.12 * _area(box) for other in taken):
            return _moved(sitter, (float(at[0] - low[0]), float(at[1] - low[1]))), box
    return None


def _camera(rng: np.random.Generator, picture: Image, smallest: float) -> tuple[Image, float]:
    """Blur, exposure, colour cast, grey pictures and noise; returns the picture and the blur's sigma.

    Blur stays small beside the smallest face, so that each remains one.
    """
    sigma = 0.0
    if rng.random() < 0.5:
        sigma = float(rng.uniform(0.3, min(2.5, max(0.4, 0.035 * smallest))))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    gain = rng.uniform(0.65, 1.3) * rng.uniform(0.92, 1.08, 3)
    table = np.arange(256)[:, None] * gain + rng.uniform(-18, 18)
    picture = np.asarray(cv2.LUT(picture, np.clip(table, 0, 255).astype(np.uint8)[None]), np.uint8)
    if rng.random() < 0.07:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        picture = np.asarray(cv2.merge([grey] * 3), np.uint8)
    if rng.random() < 0.6:
        height, width = picture.shape[:2]
        grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(1, 9))
        picture = np.asarray(cv2.add(picture, cv2.merge([grain] * 3), dtype=cv2.CV_8U), np.uint8)
    return picture, sigma


def _decoys(rng: np.random.Generator, picture: Image, count: int, style: Style) -> None:
    height, width = picture.shape[:2]
    for _ in range(count):
        largest = max(style.face_size[0] + 1, min(style.face_size[1], 0.5 * min(height, width)))
        side = float(np.exp(rng.uniform(np.log(style.face_size[0]), np.log(largest))))
        shape = decoy(rng, side)
        corner = rng.uniform(-0.5 * side, [width - 0.5 * side, height - 0.5 * side]).astype(int)
        _lay(picture, shape.image, shape.cover, (int(corner[0]), int(corner[1])))


def scene_seed(purpose: str, seed: int, index: int) -> int:
    """Return the seed of picture `index` of a set, 63 bits.

    Sets of different purposes ("train", "held-out", "pictures") or seeds share no scene.
    """
    return int.from_bytes(hashlib.sha256(f"{purpose}:{seed}:{index}".encode()).digest()[:8], "big") >> 1


def draw_scene(seed: int, size: tuple[int, int], style: Style | None = None) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative integer; equal seeds, sizes and styles give equal bytes.
        size: (height, width) in pixels.
        style: what to draw; its largest face is cut to 0.9 of the picture's shorter side.
    """
    style = style or Style()
    rng = np.random.default_rng([0x6B696C6E, seed])
    height, width = size
    picture = backdrop(rng, height, width)
    clutter(rng, picture, int(rng.integers(0, 14)))
    _decoys(rng, picture, int(rng.integers(0, 4)), style)

    least = style.face_size[0]
    largest = max(least, min(style.face_size[1], 0.9 * min(height, width)))
    count = 0 if rng.random() < style.empty else int(rng.integers(1, style.most_faces + 1))
    sizes = np.sort(np.exp(rng.uniform(np.log(least), np.log(largest), count)))[::-1]
    placed: list[tuple[Sitter, Box, tuple[float, float, float]]] = []
    for wanted in sizes.tolist():
        sitter, pose = _sitter(rng, wanted, style)
        place = _place(rng, sitter, height, width, [box for _, box, _ in placed], style)
        if place:
            placed.append((*place, pose))
    portraits = []
    for sitter, _, _ in reversed(placed):  # the smallest head is the farthest
        portrait = draw_portrait(sitter)
        _lay(picture, portrait.image, portrait.cover, portrait.corner)
        portraits.append(portrait)
    picture, blur = _camera(rng, picture, float(sizes[-1]) if placed else 40.0)

    faces = []
    for (sitter, box, pose), portrait in zip(reversed(placed), portraits, strict=True):
        points, inside = sitter.landmarks(), _cut(box, height, width)
        faces.append(
            Face(
                box=inside,
                landmarks5=points[list(FIVE)],
                landmarks98=points,
                pose=pose,
                size=max(box[2] - box[0], box[3] - box[1]),
                blur=blur,
                occlusion=portrait.occlusion,
                visible=_area(inside) / _area(box),
            )
        )
    return Scene(picture, faces)
