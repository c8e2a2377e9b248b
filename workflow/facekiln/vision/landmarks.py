"""Landmark models: the square cut around a face's box, and raw outputs to points and pose in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Crop, Model
from facekiln.errors import KilnError
from facekiln.vision.preprocess import Picture, fit

_POSE_VALUES = 3
# A box so much larger than its picture is a mistake, and its square would not fit the memory.
_LARGEST = 8


@dataclass(frozen=True)
class Square:
    """A square of a picture, in whole pixels; it may reach beyond the picture."""

    x: int
    y: int
    side: int


@dataclass(frozen=True)
class Landmarks:
    """What a landmark model says of one face.

    Attributes:
        points: float32 [P, 2] of x, y in pixels of the picture that the square was cut from.
        pose: float32 [3]: yaw, pitch and roll, degrees; None where the model has none.
    """

    points: NDArray[np.float32]
    pose: NDArray[np.float32] | None


def square_around(box: NDArray[np.floating], crop: Crop) -> Square:
    """Return the square that a model wants around a face.

    PFPLD: a side of 0.9 of the box's longer one, 0.4 of it above the box's centre (nniefacelib's samples).

    Args:
        box: [4]: x1, y1, x2, y2, pixels.
        crop: the model's.

    Raises:
        KilnError: the box is not finite or has no area.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1:
        raise KilnError("is no box of a face", value=[x1, y1, x2, y2], limit="x1 < x2, y1 < y2, pixels")
    side = crop.side * max(x2 - x1, y2 - y1)
    left, top = (x1 + x2) / 2 - side / 2, (y1 + y2) / 2 - side * crop.above
    return Square(round(left), round(top), max(1, round(side)))


def cut(image: Picture, square: Square, size: tuple[int, int], interpolation: str = "auto") -> Picture:
    """Cut a square out of a picture and resize it; what lies beyond the picture is black.

    Args:
        image: uint8 BGR [H, W, 3].
        square: where.
        size: (height, width) of the network's input, pixels.
        interpolation: see `facekiln.vision.preprocess.Resize`.

    Returns:
        uint8 BGR [height, width, 3].

    Raises:
        KilnError: the square is far larger than the picture, or that is no picture.
    """
    limit = _LARGEST * max(image.shape[:2])
    if square.side > limit:
        raise KilnError("the square is far larger than its picture", value=square.side, limit=limit)
    canvas = np.zeros((square.side, square.side, 3), np.uint8)
    left, top = max(0, square.x), max(0, square.y)
    right = min(image.shape[1], square.x + square.side)
    bottom = min(image.shape[0], square.y + square.side)
    if left < right and top < bottom:
        part = image[top:bottom, left:right]
        canvas[top - square.y : bottom - square.y, left - square.x : right - square.x] = part
    return fit(canvas, size, "stretch", interpolation)[0]


def landmarks_from_outputs(
    outputs: Mapping[str, NDArray[np.float32]], model: Model, square: Square
) -> Landmarks:
    """Turn a landmark model's outputs for one face into points and pose.

    Args:
        outputs: by name, float32 with [1, 2 * P] values, shares of the square (x and y of each point), and,
            where the model has it, [1, 3]: yaw, pitch and roll in radians. The number of values says which
            is which, so that names and order may be any; others than `model.outputs` are ignored.
        model: its output names.
        square: that the network's input was cut from.

    Raises:
        KilnError: an output is missing, is of more than one face, or holds neither points nor pose.
    """
    points = pose = None
    for name in model.outputs:
        if name not in outputs:
            raise KilnError(f"output '{name}' is missing", value=list(outputs), limit=list(model.outputs))
        value = outputs[name]
        count = value.size
        if value.shape[:1] != (1,) or count == 0 or (count != _POSE_VALUES and count % 2):
            raise KilnError(
                f"output '{name}' is not of one face's points or pose",
                value=list(value.shape),
                limit="[1, 2 * points] or [1, 3]",
            )
        if count == _POSE_VALUES:
            pose = np.degrees(value.reshape(_POSE_VALUES)).astype(np.float32)
        else:
            points = value.reshape(-1, 2)
    if points is None:
        raise KilnError("no output holds points", file=f"config/models/{model.name}.yaml", where="outputs")
    return Landmarks((points * square.side + [square.x, square.y]).astype(np.float32), pose)
