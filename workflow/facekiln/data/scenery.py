"""Backgrounds and things that are no faces: textures, clutter, skin-coloured shapes, heads from behind."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.brush import Canvas, Image, smooth
from facekiln.data.looks import any_colour, hair_colour, skin_colour


def _cloud(
    rng: np.random.Generator, height: int, width: int, grain: int, channels: int
) -> NDArray[np.float32]:
    """Smooth noise around 0, about -1..1, whose features are `grain` pixels wide."""
    rows, columns = max(2, height // grain + 2), max(2, width // grain + 2)
    small = rng.standard_normal((rows, columns, channels), dtype=np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32).reshape(height, width, channels)


def _gradient(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    corners = rng.uniform(10, 240, (2, 2, 3)).astype(np.float32)
    if rng.random() < 0.5:
        corners = 0.35 * corners + 0.65 * corners.mean(axis=(0, 1))
    return np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))


def _tiles(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Bricks, checks or boards, at any size."""
    tall, wide = int(rng.integers(6, 70)), int(rng.integers(6, 120))
    shift = int(rng.integers(0, wide))
    one, two = np.array(any_colour(rng)), np.array(any_colour(rng))
    two = one + (two - one) * rng.uniform(0.1, 1.0)
    seam = rng.uniform(0.4, 1.0) * one
    table = np.concatenate([one + (two - one) * np.arange(17)[:, None] / 16, seam[None]]).astype(np.float32)

    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None, :]
    row = y // tall
    column = (x + row * shift) // wide
    shade = (row * 7919 + column * 104729) % 17
    shade[((y % tall) < max(1, tall // 12)) | (((x + row * shift) % wide) < max(1, wide // 16))] = 17
    return np.asarray(table[shade])


def _waves(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Stripes and ripples: cloth, blinds, leaves from afar."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    angle, length = rng.uniform(0, np.pi), rng.uniform(5, 80)
    turn = 2 * np.pi / length
    phase = x * float(np.cos(angle) * turn) + y * float(np.sin(angle) * turn)
    if rng.random() < 0.5:
        phase = phase + 2 * _cloud(rng, height, width, 60, 1)[:, :, 0]
    wave = 0.5 + 0.5 * np.sin(phase)[:, :, None]
    one, two = np.array(any_colour(rng), np.float32), np.array(any_colour(rng), np.float32)
    return np.asarray(one + (two - one) * wave)


def backdrop(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a background of one of several kinds, uint8 [h,w,3]."""
    kind = rng.integers(5)
    if kind == 0:
        picture = _tiles(rng, height, width)
    elif kind == 1:
        picture = _waves(rng, height, width)
    else:
        picture = _gradient(rng, height, width)
    if kind >= 3 or rng.random() < 0.3:
        for grain in (90, 24, 7)[: int(rng.integers(1, 4))]:
            strength = float(rng.uniform(4, 26))
            picture = picture + strength * _cloud(rng, height, width, grain, 1 if rng.random() < 0.5 else 3)
    clipped: Image = np.clip(picture, 0, 255).astype(np.uint8)
    return clipped


def clutter(rng: np.random.Generator, picture: Image, count: int) -> None:
    """Draw `count` everyday shapes into a picture: boxes, discs, lines, blobs and letters."""
    height, width = picture.shape[:2]
    reach = min(height, width)
    for _ in range(count):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        size = float(np.exp(rng.uniform(np.log(5), np.log(0.5 * reach + 6))))
        colour = any_colour(rng)
        centre, kind = (round(x), round(y)), rng.integers(6)
        if kind == 0:
            box = cv2.boxPoints(((x, y), (size, size * rng.uniform(0.2, 3)), float(rng.uniform(0, 90))))
            cv2.fillConvexPoly(picture, np.rint(box).astype(np.int32), colour, cv2.LINE_AA)
        elif kind == 1:
            wide = (max(1, round(size * 0.5)), max(1, round(size * rng.uniform(0.3, 0.7))))
            cv2.ellipse(picture, centre, wide, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 2:
            end = (round(x + rng.normal(0, 2 * size)), round(y + rng.normal(0, 2 * size)))
            cv2.line(picture, centre, end, colour, max(1, round(size * 0.06)), cv2.LINE_AA)
        elif kind == 3:
            text = "".join(chr(int(c)) for c in rng.integers(48, 91, 4))
            cv2.putText(
                picture,
                text,
                centre,
                int(rng.integers(0, 8)),
                size / 40,
                colour,
                max(1, round(size / 16)),
                16,
            )
        elif kind == 4:
            radius = max(1, round(0.5 * size))
            cv2.circle(picture, centre, radius, colour, max(1, round(0.1 * size)), cv2.LINE_AA)
        else:
            turn = np.sort(rng.uniform(0, 2 * np.pi, 8))
            far = rng.uniform(0.3, 1.0, 8) * size * 0.6
            blob = smooth(np.stack([x + far * np.cos(turn), y + far * np.sin(turn)], axis=1))
            cv2.fillPoly(picture, [np.rint(blob).astype(np.int32)], colour, cv2.LINE_AA)


def decoy(rng: np.random.Generator, side: float) -> Canvas:
    """Return a cut-out about `side` pixels high that shares something with a face and is none.

    Plain skin-coloured ovals and hands, heads from behind, discs with dots in the wrong places, dark ovals.
    """
    box = round(1.5 * side) + 4
    canvas = Canvas(box, box)
    middle = np.array([box / 2, box / 2])
    kind = rng.integers(5)
    skin = skin_colour(rng)
    lean = float(rng.uniform(-0.5, 0.5))
    if kind == 0:  # an oval of skin colour with a soft light on it
        canvas.ellipse(middle, (0.38 * side, 0.5 * side), lean, skin)
        canvas.ellipse(
            middle - 0.1 * side,
            (0.2 * side, 0.25 * side),
            lean,
            [min(255, c * 1.2) for c in skin],
            0.5,
            0.1 * side,
            solid=False,
        )
    elif kind == 1:  # the back of a head
        neck = middle + np.array([[-0.2, 0.2], [0.2, 0.2], [0.22, 0.7], [-0.22, 0.7]]) * side
        canvas.polygon(neck, [0.75 * c for c in skin])
        for sign in (-1, 1):
            canvas.ellipse(
                middle + np.array([sign * 0.4, 0.05]) * side,
                (0.06 * side, 0.11 * side),
                0,
                [0.85 * c for c in skin],
            )
        hair = hair_colour(rng)
        canvas.ellipse(middle, (0.4 * side, 0.5 * side), 0, hair)
        for _ in range(6):
            start = middle + rng.uniform(-0.25, 0.25, 2) * side
            strand = np.stack([start, start + np.array([rng.uniform(-0.1, 0.1), 0.3]) * side])
            canvas.line(strand, [c * 0.7 for c in hair], max(1.0, 0.03 * side), 0.6)
    elif kind == 2:  # a disc with spots that are no eyes
        colour = skin if rng.random() < 0.5 else any_colour(rng)
        canvas.ellipse(middle, (0.42 * side, 0.5 * side), lean, colour)
        for _ in range(int(rng.integers(1, 6))):
            at = middle + rng.uniform(-0.28, 0.28, 2) * side
            size = rng.uniform(0.03, 0.12, 2) * side
            canvas.ellipse(at, size, float(rng.uniform(0, 3)), any_colour(rng, 0, 120), 0.9, solid=False)
    elif kind == 3:  # an open hand or an arm
        canvas.ellipse(middle + np.array([0, 0.15]) * side, (0.22 * side, 0.28 * side), lean, skin)
        for finger in range(int(rng.integers(2, 6))):
            at = np.array([-0.2 + 0.1 * finger, rng.uniform(-0.35, -0.15)]) * side
            stroke = np.stack([middle + np.array([at[0], 0.1 * side]), middle + at])
            canvas.line(
                stroke, [c * rng.uniform(0.85, 1.05) for c in skin], max(1.0, 0.08 * side), solid=True
            )
    else:  # a lamp, a ball, a dark window
        colour = any_colour(rng)
        canvas.ellipse(middle, (rng.uniform(0.2, 0.5) * side, 0.48 * side), lean, colour)
        canvas.ellipse(
            middle, (0.18 * side, 0.25 * side), lean, any_colour(rng), 0.8, 0.04 * side, solid=False
        )
    return canvas
