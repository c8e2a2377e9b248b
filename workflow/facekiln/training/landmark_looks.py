"""What light, lens and hands do to a face crop without moving a landmark."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.training.landmark_settings import LookSettings

Picture = NDArray[np.uint8]


def _relit(rng: np.random.Generator, image: Picture) -> Picture:
    """Exposure, contrast, gamma and colour cast."""
    gain = rng.uniform(0.65, 1.35) * rng.uniform(0.9, 1.1, 3)
    curve = 255 * (np.arange(256)[:, None] / 255) ** np.exp(rng.uniform(-0.35, 0.35))
    table = np.clip(curve * gain + rng.uniform(-25, 25), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def _grey(image: Picture) -> Picture:
    return np.asarray(cv2.merge([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3), np.uint8)


def _blurred(rng: np.random.Generator, image: Picture) -> Picture:
    """Out of focus, moved, or seen from far: enlarged from a smaller picture."""
    side = image.shape[0]
    how = int(rng.integers(3))
    if how == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.004, 0.018) * side), np.uint8)
    if how == 1:
        length = int(rng.integers(3, max(4, side // 14)))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
        ends = [tuple(np.rint((length - 1) / 2 + sign * reach).astype(int).tolist()) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
    small = max(8, round(side * float(rng.uniform(0.25, 0.7))))
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _noisy(rng: np.random.Generator, image: Picture) -> Picture:
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 12))
    return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), np.uint8)


def _patched(rng: np.random.Generator, image: Picture) -> Picture:
    """Hide a part behind a bar, a disc or a piece of the same picture."""
    side = image.shape[0]
    picture = image.copy()
    sides = rng.uniform(0.12, 0.4, 2) * side
    centre = rng.uniform(0.1, 0.9, 2) * side
    colour = rng.integers(0, 256, 3).tolist()
    if rng.random() < 0.5:
        axes = (max(1, round(sides[0] / 2)), max(1, round(sides[1] / 2)))
        at = (round(centre[0]), round(centre[1]))
        cv2.ellipse(picture, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        return picture
    low = np.clip(centre - sides / 2, 0, side - 2).astype(int)
    high = np.clip(centre + sides / 2, low + 1, side).astype(int)
    (x1, y1), (x2, y2) = low.tolist(), high.tolist()
    if rng.random() < 0.5:
        picture[y1:y2, x1:x2] = colour
        return picture
    from_x, from_y = (int(rng.integers(0, side - (b - a) + 1)) for a, b in ((x1, x2), (y1, y2)))
    picture[y1:y2, x1:x2] = image[from_y : from_y + y2 - y1, from_x : from_x + x2 - x1]
    return picture


def change_looks(rng: np.random.Generator, image: Picture, settings: LookSettings) -> Picture:
    """Return a square uint8 BGR crop as it might also have looked: each change in its share of crops."""
    if rng.random() < settings.patch:
        image = _patched(rng, image)
    if rng.random() < settings.blur:
        image = _blurred(rng, image)
    if rng.random() < settings.light:
        image = _relit(rng, image)
    if rng.random() < settings.grey:
        image = _grey(image)
    return _noisy(rng, image) if rng.random() < settings.noise else image
