"""The one preprocessing: fit a picture to the network's size, then `(x - mean) * scale` in the declared colour order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.config import Input, known
from facekiln.vision.detect import Faces

Picture = NDArray[np.uint8]
POLICIES = ("letterbox", "stretch", "original")


@dataclass(frozen=True)
class Fit:
    """How a picture was fitted: network pixels = picture pixels * (x_scale, y_scale).

    Padding is at the right and bottom, so it moves nothing.
    """

    x_scale: float
    y_scale: float

    def back(self, faces: Faces) -> Faces:
        """Return the faces in pixels of the original picture."""
        scale = np.array([self.x_scale, self.y_scale], dtype=np.float32)
        return replace(faces, boxes=faces.boxes / np.tile(scale, 2), landmarks=faces.landmarks / scale)


def fit(image: Picture, size: tuple[int, int], policy: str = "letterbox") -> tuple[Picture, Fit]:
    """Fit a picture to the network's size.

    Args:
        image: uint8 BGR [H, W, 3].
        size: (height, width) of the network's input, pixels.
        policy: `letterbox` keeps the aspect and pads right and bottom with zeros before the mean is taken off, as
            board runtimes do; `stretch` does not keep it; `original` leaves the picture as it is (the network
            must take any size).

    Returns:
        The fitted picture, uint8 BGR, and how to go back.

    Raises:
        KilnError: unknown policy.
    """
    known(policy, POLICIES, "resize policy")
    height, width = image.shape[:2]
    if policy == "original" or (height, width) == size:
        return image, Fit(1.0, 1.0)
    if policy == "stretch":
        return _resize(image, size), Fit(size[1] / width, size[0] / height)
    ratio = min(size[0] / height, size[1] / width)
    inner = (min(size[0], max(1, round(height * ratio))), min(size[1], max(1, round(width * ratio))))
    fitted = np.zeros((*size, 3), dtype=np.uint8)
    fitted[: inner[0], : inner[1]] = _resize(image, inner)
    return fitted, Fit(inner[1] / width, inner[0] / height)


def _resize(image: Picture, size: tuple[int, int]) -> Picture:
    shrinking = size[0] < image.shape[0]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=how).astype(np.uint8, copy=False)


def to_tensor(image: Picture, declared: Input) -> NDArray[np.float32]:
    """Return a fitted picture as the network takes it.

    Args:
        image: uint8 BGR [H, W, 3].
        declared: the model's `input`: colour order, and mean and scale in that order.

    Returns:
        float32 [1, 3, H, W], contiguous.
    """
    ordered = image[..., ::-1] if declared.colour == "rgb" else image
    values = (ordered.astype(np.float32) - np.float32(declared.mean)) * np.float32(declared.scale)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
