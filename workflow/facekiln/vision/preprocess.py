"""The one preprocessing: fit a picture to the network's size, then `(x - mean) * scale` in colour order."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.config import Input, known
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces

Picture = NDArray[np.uint8]
POLICIES = ("letterbox", "stretch", "original")


@dataclass(frozen=True)
class Fit:
    """How a picture was fitted: network pixels = picture pixels * (x_scale, y_scale).

    Padding is at the right and bottom, so it moves nothing. A coordinate is a place on the plane (pixel i
    covers i to i + 1), so that a mere division is exact; the scales are those of the rounded size.
    """

    x_scale: float
    y_scale: float

    def back(self, faces: Faces) -> Faces:
        """Return the faces in pixels of the original picture."""
        scale = np.array([self.x_scale, self.y_scale], dtype=np.float32)
        boxes = (faces.boxes.reshape(-1, 2, 2) / scale).reshape(-1, 4)
        return Faces(boxes=boxes, scores=faces.scores, landmarks=faces.landmarks / scale)


def fit(image: Picture, size: tuple[int, int], policy: str = "letterbox") -> tuple[Picture, Fit]:
    """Fit a picture to the network's size.

    Args:
        image: uint8 BGR [H, W, 3].
        size: (height, width) of the network's input, pixels.
        policy: `letterbox` keeps the aspect and pads right and bottom with black (zeros, before the mean is
            taken off), as SOPHON's sample and insightface do; `stretch` does not keep it; `original` leaves
            the picture as it is (the network must take any size; see `pad_to_multiple`).

    A smaller picture is enlarged bilinearly; shrinking averages areas, so that small faces do not alias away.

    Returns:
        The fitted picture, uint8 BGR, and how to go back.

    Raises:
        KilnError: unknown policy, or not a picture.
    """
    known(policy, POLICIES, "resize policy")
    _check(image)
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


def pad_to_multiple(image: Picture, multiple: int) -> Picture:
    """Pad a picture at the right and bottom with black, to the least size that is a multiple in both axes.

    A stage whose feature pyramid has no Crop layer needs a multiple of its largest step.
    """
    height, width = (-(-side // multiple) * multiple for side in image.shape[:2])
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))


def _check(image: Picture) -> None:
    # A picture that was normalised before it came here would be normalised twice, and quietly find nothing.
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise KilnError("not a picture", value=f"{image.dtype} {list(image.shape)}", limit="uint8 [H, W, 3]")


def _resize(image: Picture, size: tuple[int, int]) -> Picture:
    shrinking = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=how).astype(np.uint8, copy=False)


def to_tensor(image: Picture, declared: Input) -> NDArray[np.float32]:
    """Return a fitted picture as the network takes it.

    Args:
        image: uint8 BGR [H, W, 3].
        declared: the model's `input`: colour order, and mean and scale in that order.

    Returns:
        float32 [1, 3, H, W], contiguous.

    Raises:
        KilnError: not uint8 [H, W, 3]: above all a picture that is normalised already.
    """
    _check(image)
    ordered = image[..., ::-1] if declared.colour == "rgb" else image
    mean, scale = np.asarray(declared.mean, np.float32), np.asarray(declared.scale, np.float32)
    values = (ordered.astype(np.float32) - mean) * scale
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
