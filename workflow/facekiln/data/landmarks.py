"""Landmark schemes of 5, 68, 98 and 106 points: parts, mirroring, common subsets, eyes.

Left and right are as the picture shows them. Sources: the WFLW annotation scheme (98); iBUG 300-W (68); the
LaPa data set (106); hanson-young/nniefacelib `PFPLD/data` for the correspondence of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.config import known
from facekiln.data.head import FIVE, MIRROR_5, MIRROR_98
from facekiln.errors import KilnError

Points = NDArray[np.float64]

# Point i of the 68 is point SUBSET_68[i] of the 98 (nniefacelib create_300W_LP.py; contour every other
# point).
SUBSET_68: tuple[int, ...] = (
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),
)

# LaPa's points that the 98 do not have: sides of the nose, and the eye centres that 104 and 105 repeat
# (nniefacelib view_lapa.py drops the same, counted from 1).
_ONLY_106 = {55: 65, 56: 64, 57: 63, 63: 57, 64: 56, 65: 55, 74: 83, 83: 74}

# Point i of the 98 is point SUBSET_98_OF_106[i] of LaPa's 106.
SUBSET_98_OF_106: tuple[int, ...] = tuple(index for index in range(106) if index not in _ONLY_106)

# Points of the 98 that mean the same place when a 68-point annotation fills them: no contour (spaced
# otherwise) and no lids, only the eyes' corners. The list that PFPLD's wing loss compares 300W-LP on.
COMPATIBLE_68: tuple[int, ...] = (
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 64, 68, 72),
    *range(76, 96),
)

_MIRROR_68 = tuple(SUBSET_68.index(MIRROR_98[index]) for index in SUBSET_68)
_MIRROR_106 = tuple(
    _ONLY_106[index] if index in _ONLY_106 else SUBSET_98_OF_106[MIRROR_98[SUBSET_98_OF_106.index(index)]]
    for index in range(106)
)


@dataclass(frozen=True)
class Scheme:
    """One way to number landmarks.

    Attributes:
        name: the number of points, as text.
        mirror: point i of a mirrored picture is point mirror[i] of the original.
        parts: indices by part: contour, brows, nose, eyes, lips, pupils.
        eyes: the two rings of lid points (left, right), each from one corner over the upper lid; empty where
            the scheme has no lids.
        ocular: the outer corners of the eyes (left, right), whose distance scales a landmark error; the eye
            centres in the 5-point scheme.
        pupils: the centres of the eyes (left, right), where the scheme has them.
    """

    name: str
    mirror: tuple[int, ...]
    parts: Mapping[str, tuple[int, ...]]
    ocular: tuple[int, int]
    eyes: tuple[tuple[int, ...], ...] = ()
    pupils: tuple[int, int] | None = None
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", int(self.name))


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


SCHEMES: dict[str, Scheme] = {
    "5": Scheme(
        "5",
        MIRROR_5,
        {"left_eye": (0,), "right_eye": (1,), "nose": (2,), "mouth_left": (3,), "mouth_right": (4,)},
        ocular=(0, 1),
        pupils=(0, 1),
    ),
    "68": Scheme(
        "68",
        _MIRROR_68,
        {
            "contour": _span(0, 16),
            "left_brow": _span(17, 21),
            "right_brow": _span(22, 26),
            "nose": _span(27, 35),
            "left_eye": _span(36, 41),
            "right_eye": _span(42, 47),
            "outer_lips": _span(48, 59),
            "inner_lips": _span(60, 67),
        },
        ocular=(36, 45),
        eyes=(_span(36, 41), _span(42, 47)),
    ),
    "98": Scheme(
        "98",
        MIRROR_98,
        {
            "contour": _span(0, 32),
            "left_brow": _span(33, 41),
            "right_brow": _span(42, 50),
            "nose": _span(51, 59),
            "left_eye": _span(60, 67),
            "right_eye": _span(68, 75),
            "outer_lips": _span(76, 87),
            "inner_lips": _span(88, 95),
            "pupils": (96, 97),
        },
        ocular=(60, 72),
        eyes=(_span(60, 67), _span(68, 75)),
        pupils=(96, 97),
    ),
    "106": Scheme(
        "106",
        _MIRROR_106,
        {
            "contour": _span(0, 32),
            "left_brow": _span(33, 41),
            "right_brow": _span(42, 50),
            "nose": _span(51, 65),
            "left_eye": (*_span(66, 73), 74),
            "right_eye": (*_span(75, 82), 83),
            "outer_lips": _span(84, 95),
            "inner_lips": _span(96, 103),
            "pupils": (104, 105),
        },
        ocular=(66, 79),
        eyes=(_span(66, 73), _span(75, 82)),
        pupils=(104, 105),
    ),
}


def scheme(name: str) -> Scheme:
    """Return a scheme by its number of points.

    Raises:
        KilnError: there is none of that name.
    """
    return SCHEMES[known(name, SCHEMES, "landmark scheme")]


def mirror(points: Points, width: float, name: str) -> Points:
    """Return [...,k,2] points of the picture mirrored left to right; `width` in pixels, edges at integers."""
    turned = np.asarray(points, np.float64)[..., scheme(name).mirror, :].copy()
    turned[..., 0] = width - turned[..., 0]
    return turned


def convert(points: Points, source: str, target: str) -> Points:
    """Return [...,k,2] points in another scheme: a documented subset, or the five of any scheme.

    From 68 to 5 the eyes are the means of their lids, since that scheme has no pupils.

    Raises:
        KilnError: the target has points that the source lacks (see `fill_98` for 68 to 98).
    """
    scheme(source), scheme(target)
    points = np.asarray(points, np.float64)
    if source == target:
        return points
    if source == "106":
        return convert(points[..., SUBSET_98_OF_106, :], "98", target)
    if (source, target) == ("98", "68"):
        return points[..., SUBSET_68, :]
    if (source, target) == ("98", "5"):
        return points[..., FIVE, :]
    if (source, target) == ("68", "5"):
        left, right = (points[..., ring, :].mean(axis=-2) for ring in SCHEMES["68"].eyes)
        return np.stack([left, right, *(points[..., index, :] for index in (30, 48, 54))], axis=-2)
    raise KilnError(f"{source} landmarks do not hold all {target}", hint="use a scheme with fewer points")


def fill_98(points: Points) -> Points:
    """Return [...,98,2] points with the compatible ones of [...,68,2] filled in and NaN elsewhere."""
    points = np.asarray(points, np.float64)
    filled = np.full((*points.shape[:-2], 98, 2), np.nan)
    filled[..., COMPATIBLE_68, :] = points[..., [SUBSET_68.index(index) for index in COMPATIBLE_68], :]
    return filled


def inter_ocular(points: Points, name: str) -> NDArray[Any]:
    """Return the distance of the outer eye corners, [...] pixels (98: 60, 72; 68: 36, 45; 106: 66, 79)."""
    left, right = scheme(name).ocular
    points = np.asarray(points, np.float64)
    return np.asarray(np.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1))


def eye_aspect(points: Points, name: str) -> NDArray[Any]:
    """Return how open each eye is: mean lid distance over corner distance, [...,2] (left, right).

    NaN where a lid point is missing, an eye has no width, or the scheme has no lids. Source: the ratio that
    PFPLD's authors choose closed-eye pictures by (view_lapa.py).
    """
    points = np.asarray(points, np.float64)
    rings = scheme(name).eyes
    if not rings:
        return np.full((*points.shape[:-2], 2), np.nan)
    ratios = []
    for ring in rings:
        eye, half = points[..., ring, :], len(ring) // 2
        upper, lower = eye[..., 1:half, :], eye[..., :half:-1, :]
        lids = np.linalg.norm(upper - lower, axis=-1).mean(axis=-1)
        corners = np.linalg.norm(eye[..., 0, :] - eye[..., half, :], axis=-1)
        ratios.append(lids / np.where(corners > 0, corners, np.nan))
    return np.stack(ratios, axis=-1)
