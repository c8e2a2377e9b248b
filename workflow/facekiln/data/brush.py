"""Painting on a small canvas: soft polygons, ellipses and lines with sub-pixel edges (cv2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = Sequence[float]
Image = NDArray[np.uint8]
Points = NDArray[np.float64]

_TURN = 2 * np.pi * np.arange(32) / 32
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
SHIFT = 4  # cv2's fixed point: sixteenths of a pixel


def fixed(points: Points) -> NDArray[np.int32]:
    """Return cv2's fixed-point form of [n,2] coordinates whose integers are pixel edges.

    cv2 counts from pixel centres, half a pixel later.
    """
    return np.rint((np.asarray(points) - 0.5) * (1 << SHIFT)).astype(np.int32)


def hull(points: Points) -> Points:
    """Return the convex hull of [n,2] points, [m,2]."""
    return cv2.convexHull(np.asarray(points, np.float32))[:, 0].astype(np.float64)


def smooth(points: Points, *, closed: bool = True, rounds: int = 2) -> Points:
    """Round the corners of a polygon by Chaikin's corner cutting; `closed=False` keeps the two ends."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        pairs = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
        cut = pairs.reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut[:-2], points[-1:]])
    return points


class Canvas:
    """A BGR picture of its own, with a cover (0 nothing .. 255 opaque) that says where it was painted.

    Attributes:
        image: uint8 [h,w,3].
        cover: uint8 [h,w].
    """

    def __init__(self, height: int, width: int) -> None:
        self.image: Image = np.zeros((height, width, 3), np.uint8)
        self.cover: Image = np.zeros((height, width), np.uint8)

    def _window(self, points: Points, margin: float) -> tuple[int, int, int, int] | None:
        low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
        height, width = self.cover.shape
        x0, y0 = max(int(low[0]) - 1, 0), max(int(low[1]) - 1, 0)
        x1, y1 = min(int(high[0]) + 2, width), min(int(high[1]) + 2, height)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _lay(
        self, mask: Image, window: tuple[int, int, int, int], colour: Colour, alpha: float, solid: bool
    ) -> None:
        x0, y0, x1, y1 = window
        under = self.image[y0:y1, x0:x1]
        weight = cv2.convertScaleAbs(mask, alpha=alpha) if alpha < 1 else mask
        tint = cv2.merge([cv2.convertScaleAbs(weight, alpha=min(255.0, max(0.0, c)) / 255) for c in colour])
        through = cv2.bitwise_not(weight)
        cv2.add(cv2.multiply(under, cv2.merge([through] * 3), scale=1 / 255), tint, dst=under)
        if solid:
            cover = self.cover[y0:y1, x0:x1]
            cv2.max(cover, weight, dst=cover)

    def polygon(
        self, points: Points, colour: Colour, alpha: float = 1.0, soft: float = 0.0, *, solid: bool = True
    ) -> None:
        """Fill a polygon; `soft` is the sigma of its edge in pixels, `solid=False` tints without covering."""
        window = self._window(points, 3 * soft)
        if window is None or len(points) < 3:
            return
        x0, y0, x1, y1 = window
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [fixed(points - np.array([x0, y0]))], 255, cv2.LINE_AA, SHIFT)
        if soft > 0.3:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.uint8)
        self._lay(mask, window, colour, alpha, solid)

    def line(
        self, points: Points, colour: Colour, width: float, alpha: float = 1.0, *, solid: bool = False
    ) -> None:
        """Draw an open line `width` pixels wide; thinner than a pixel becomes fainter."""
        window = self._window(points, width)
        if window is None or len(points) < 2:
            return
        x0, y0, x1, y1 = window
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        thick = max(1, round(width))
        cv2.polylines(mask, [fixed(points - np.array([x0, y0]))], False, 255, thick, cv2.LINE_AA, SHIFT)
        self._lay(mask, window, colour, alpha * min(1.0, width), solid)

    def ellipse(
        self,
        centre: Sequence[float] | Points,
        axes: Sequence[float] | Points,
        angle: float,
        colour: Colour,
        alpha: float = 1.0,
        soft: float = 0.0,
        *,
        solid: bool = True,
    ) -> None:
        """Fill an ellipse: half axes in pixels, angle in radians clockwise."""
        cos, sin = math.cos(angle), math.sin(angle)
        turned = np.array([[axes[0] * cos, axes[0] * sin], [-axes[1] * sin, axes[1] * cos]])
        points = _CIRCLE @ turned + np.asarray(centre)
        self.polygon(points, colour, alpha, soft, solid=solid)


def shrink(image: Image, factor: int) -> Image:
    """Average blocks of `factor` pixels; the size must be a multiple of it."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
