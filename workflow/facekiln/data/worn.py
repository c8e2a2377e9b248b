"""What lies over a face: fringe and hats, glasses, masks, hands and bars. It counts what they hide."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data import head
from facekiln.data.brush import SHIFT, fixed, hull, smooth
from facekiln.data.features import Painter, shade
from facekiln.data.head import Points
from facekiln.data.looks import any_colour, skin_colour


def hair_front(painter: Painter) -> None:
    """A fringe or a hat's brim over the forehead."""
    looks, view = painter.looks, painter.view
    line = head.hairline_3d(painter.shape)
    if looks.hair_style == "fringe":
        depth = painter.rng.uniform(0.15, 0.5) * painter.shape.forehead
        lower = line[1:-1].copy()
        lower[:, 1] = np.maximum(
            lower[:, 1] + depth * painter.rng.uniform(0.6, 1.1, len(lower)), line[1:-1, 1]
        )
        lower[:, 1] = np.minimum(lower[:, 1], -0.38)
        lower[:, 2] += 0.1
        painter.canvas.polygon(np.concatenate([view.project(line), view.project(lower[::-1])]), looks.hair)
    elif looks.hair_style == "hat":
        rim = line.copy()
        rim[:, 1] = np.minimum(rim[:, 1] + 0.12, -0.42)
        rim[:, 2] += 0.12
        crown = np.array([[-0.9, -1.4, -0.3], [0.0, -1.65, -0.2], [0.9, -1.4, -0.3], [0.0, -1.3, 0.4]])
        rim = np.concatenate([rim, rim + np.array([0, -0.3, -0.05])])
        painter.canvas.polygon(smooth(hull(view.project(np.concatenate([rim, crown])))), looks.hat_colour)
        painter.canvas.line(
            view.project(rim[:15]), shade(looks.hat_colour, 0.7), 0.1 * painter.unit, solid=True
        )


def in_front(painter: Painter) -> float:
    """Glasses, a mask, a hand or a bar; returns the share of the face that they hide."""
    face = np.zeros(painter.canvas.cover.shape, np.uint8)
    cv2.fillPoly(face, [fixed(painter.face)], 255, cv2.LINE_8, SHIFT)
    before = np.zeros_like(face)
    if painter.looks.glasses:
        _glasses(painter, before)
    if painter.looks.mask:
        _hide(painter, _mask_outline(painter), painter.looks.mask_colour, before)
    elif painter.rng.random() < 0.12:
        _bar(painter, before)
    region = face > 0
    return float(np.count_nonzero(before[region])) / max(1, int(np.count_nonzero(region)))


def _hide(painter: Painter, points: Points, colour: tuple[float, ...], before: NDArray[np.uint8]) -> None:
    painter.canvas.polygon(points, colour)
    cv2.fillPoly(before, [fixed(points)], 255, cv2.LINE_8, SHIFT)


def _mask_outline(painter: Painter) -> Points:
    top = head.on_surface(np.linspace(-0.8, 0.8, 7), np.array([0.3, 0.26, 0.2, 0.14, 0.2, 0.26, 0.3]), 0.08)
    top[3, 2] += 0.25
    swell = head.on_surface(np.array([0.0, -0.25, 0.25]), np.array([0.55, 0.5, 0.5]), 0.3)
    jaw = painter.points[6:27] * np.array([1.02, 1.0, 1.0])
    return hull(painter.view.project(np.concatenate([top, swell, jaw])))


def _glasses(painter: Painter, before: NDArray[np.uint8]) -> None:
    dark = painter.looks.glasses == "dark"
    frame = any_colour(painter.rng, 5, 90)
    turn = np.linspace(0, 2 * np.pi, 25)
    squareness = painter.rng.uniform(0.6, 1.0)
    for side in (-1.0, 1.0):
        cos, sin = np.cos(turn), np.sin(turn)
        x = side * painter.shape.eye_gap + 0.3 * np.sign(cos) * np.abs(cos) ** squareness
        y = -0.06 + 0.21 * np.sign(sin) * np.abs(sin) ** squareness
        rim = painter.view.project(np.stack([x, y, 0.85 - 0.35 * np.abs(x) ** 2], axis=1))
        if dark:
            _hide(painter, rim, frame, before)
        else:
            painter.canvas.polygon(rim, (235, 235, 235), 0.12)
        painter.canvas.line(rim, frame, 0.045 * painter.unit, solid=True)
        arm = np.array([[side * 0.72, -0.1, 0.65], [side * 1.05, -0.08, -0.4]])
        if painter.view.facing(arm[1], np.array([side, 0.0, 0.1])) > 0:
            painter.canvas.line(painter.view.project(arm), frame, 0.045 * painter.unit, solid=True)
    bridge = painter.view.project(np.array([[-0.12, -0.1, 0.9], [0.12, -0.1, 0.9]]))
    painter.canvas.line(bridge, frame, 0.045 * painter.unit, solid=True)


def _bar(painter: Painter, before: NDArray[np.uint8]) -> None:
    """Something across the face: a hand, a scarf, a post. It hides at most about a third."""
    low, high = painter.face.min(axis=0), painter.face.max(axis=0)
    middle, size = 0.5 * (low + high), high - low
    kind = painter.rng.integers(3)
    if kind == 0:  # from below, like a hand or a scarf
        top = high[1] - painter.rng.uniform(0.12, 0.34) * size[1]
        spread = painter.rng.uniform(0.3, 0.7) * size[0]
        x = middle[0] + painter.rng.uniform(-0.3, 0.3) * size[0]
        points = np.array([[x - spread, high[1] + 9], [x - 0.7 * spread, top], [x + 0.7 * spread, top]])
        points = np.concatenate([points, [[x + spread, high[1] + 9]]])
    elif kind == 1:  # from one side
        left = painter.rng.random() < 0.5
        edge = low[0] if left else high[0]
        inward = (1 if left else -1) * painter.rng.uniform(0.1, 0.32) * size[0]
        outward = -0.25 * inward / abs(inward) * size[0]
        y0, y1 = low[1] - 0.1 * size[1], high[1] + 0.1 * size[1]
        lean = painter.rng.uniform(-0.1, 0.1) * size[0]
        points = np.array(
            [
                [edge + outward, y0],
                [edge + inward - lean, y0],
                [edge + inward + lean, y1],
                [edge + outward, y1],
            ]
        )
    else:  # a thin post
        x = middle[0] + painter.rng.uniform(-0.4, 0.4) * size[0]
        thin, lean = painter.rng.uniform(0.04, 0.1) * size[0], painter.rng.uniform(-0.6, 0.6) * size[0]
        y0, y1 = low[1] - 0.3 * size[1], high[1] + 0.3 * size[1]
        points = np.array(
            [[x - lean - thin, y0], [x - lean + thin, y0], [x + lean + thin, y1], [x + lean - thin, y1]]
        )
    colour = skin_colour(painter.rng) if painter.rng.random() < 0.4 else any_colour(painter.rng)
    _hide(painter, smooth(points, rounds=1), colour, before)
