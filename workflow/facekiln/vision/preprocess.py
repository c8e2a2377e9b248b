"""The one preprocessing: bring a picture to the input's size, then `(x - mean) * scale` in colour order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.config import Input, known
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces

Picture = NDArray[np.uint8]
# All networks are built for one size but checkpoints, which take any: only they take the second group.
FIXED_POLICIES = ("letterbox", "stretch")
FREE_POLICIES = ("original", "long_side", "short_side")
INTERPOLATIONS = ("auto", "linear", "linear_float")
_NEEDS: dict[str, tuple[str, ...]] = {
    "letterbox": ("size",),
    "stretch": ("size",),
    "original": (),
    "long_side": ("side",),
    "short_side": ("side", "longest"),
}


class Unrounded(np.ndarray[Any, np.dtype[np.float32]]):
    """A picture that was resampled without rounding: float32 BGR [H, W, 3], 0..255, not normalised.

    A class of its own tells it from a picture that is normalised already.
    """


@dataclass(frozen=True)
class Fit:
    """How a picture was fitted: network pixels = picture pixels * (x_scale, y_scale).

    Padding is at the right and bottom, so it moves nothing. A coordinate is a place on the plane (pixel i
    covers i to i + 1), so that a mere division is exact; the scales are those of the rounded size where a
    size is given, else the ratio itself, which is what the pixels are resampled by.
    """

    x_scale: float
    y_scale: float

    def back(self, faces: Faces) -> Faces:
        """Return the faces in pixels of the original picture."""
        scale = np.array([self.x_scale, self.y_scale], dtype=np.float32)
        boxes = (faces.boxes.reshape(-1, 2, 2) / scale).reshape(-1, 4)
        return Faces(boxes=boxes, scores=faces.scores, landmarks=faces.landmarks / scale)


@dataclass(frozen=True)
class Resize:
    """A way to bring any picture to a network's input.

    Attributes:
        policy: `letterbox` keeps the aspect and pads right and bottom with black (zeros, before the mean is
            taken off), as SOPHON's sample and insightface do; `stretch` does not keep it; `original` leaves
            the picture as it is; `long_side` scales the longer side to `side` (test_widerface.py of
            Face-Detector-1MB-with-landmark); `short_side` scales the shorter one to `side`, or the longer one
            to `longest` where it would be more (Pytorch_Retinaface's test: 1600, 2150). The last three keep
            the aspect, pad nothing, and need a network that takes any size (see `pad_to_multiple`).
        size: (height, width) of the input, pixels; of `letterbox` and `stretch` only.
        side: pixels, see `policy`.
        longest: pixels, see `policy`.
        interpolation: `auto`, areas are averaged when shrinking, so that small faces do not alias away, and
            enlarging is bilinear; `linear` is bilinear always, as the reference scripts are; `linear_float`
            does not round the result to whole values either, as those that resize float32 pictures
            (Pytorch_Retinaface, Face-Detector-1MB-with-landmark), and gives `Unrounded` pictures.
    """

    policy: str
    size: tuple[int, int] | None = None
    side: int | None = None
    longest: int | None = None
    interpolation: str = "auto"

    def __post_init__(self) -> None:
        """Refuse an unknown policy or interpolation, and one without what it needs.

        Raises:
            KilnError: names the policy and what it lacks.
        """
        known(self.policy, _NEEDS, "resize policy")
        known(self.interpolation, INTERPOLATIONS, "interpolation")
        for name in _NEEDS[self.policy]:
            if getattr(self, name) is None:
                raise KilnError(f"resize policy '{self.policy}' needs `{name}`")

    def __str__(self) -> str:
        """Name the policy with its pixels: `letterbox`, `long_side_320`, `short_1600_max_2150`."""
        if self.policy == "long_side":
            return f"long_side_{self.side}"
        if self.policy == "short_side":
            return f"short_{self.side}_max_{self.longest}"
        return self.policy

    def __call__(self, image: Picture) -> tuple[Picture, Fit]:
        """Bring a picture, uint8 BGR [H, W, 3], to the input: another such, and how to go back.

        Raises:
            KilnError: not a picture.
        """
        _check(image)
        height, width = image.shape[:2]
        if self.policy == "original" or (height, width) == self.size:
            return image, Fit(1.0, 1.0)
        if self.size is None:
            return self._scaled(image)
        if self.policy == "stretch":
            scales = Fit(self.size[1] / width, self.size[0] / height)
            return _resize(image, self.size, self.interpolation), scales
        ratio = min(self.size[0] / height, self.size[1] / width)
        inner = (
            min(self.size[0], max(1, round(height * ratio))),
            min(self.size[1], max(1, round(width * ratio))),
        )
        scaled = _resize(image, inner, self.interpolation)
        fitted = np.zeros((*self.size, 3), dtype=scaled.dtype)
        fitted[: inner[0], : inner[1]] = scaled
        return _picture(fitted), Fit(inner[1] / width, inner[0] / height)

    def _scaled(self, image: Picture) -> tuple[Picture, Fit]:
        """Scale both axes by one ratio; pixels are resampled by it exactly, whatever the size rounds to."""
        assert self.side is not None
        short, long = sorted(image.shape[:2])
        ratio = self.side / long
        if self.policy == "short_side":
            assert self.longest is not None
            ratio = self.side / short
            if round(ratio * long) > self.longest:
                ratio = self.longest / long
        if round(ratio * short) < 1:
            raise KilnError(f"the picture is too thin for {self}", value=f"{short} by {long}")
        how = _flag(self.interpolation, ratio < 1)
        values = image.astype(np.float32) if self.interpolation == "linear_float" else image
        scaled = cv2.resize(values, None, fx=ratio, fy=ratio, interpolation=how)
        return _picture(scaled), Fit(ratio, ratio)


def fit(
    image: Picture, size: tuple[int, int], policy: str = "letterbox", interpolation: str = "auto"
) -> tuple[Picture, Fit]:
    """Bring a picture to a network's size (see `Resize`).

    Args:
        image: uint8 BGR [H, W, 3].
        size: (height, width) of the network's input, pixels.
        policy: `letterbox`, `stretch`, or `original`, which looks at no size.
        interpolation: see `Resize`.

    Returns:
        The fitted picture, uint8 BGR, and how to go back.

    Raises:
        KilnError: unknown policy, or not a picture.
    """
    return Resize(policy, None if policy == "original" else size, interpolation=interpolation)(image)


def pad_to_multiple(image: Picture, multiple: int) -> Picture:
    """Pad a picture at the right and bottom with black, to the least size that is a multiple in both axes.

    A stage whose feature pyramid has no Crop layer needs a multiple of its largest step.
    """
    height, width = (-(-side // multiple) * multiple for side in image.shape[:2])
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))


def _check(image: Picture) -> None:
    # A picture that was normalised before it came here would be normalised twice, and quietly find nothing.
    right = np.float32 if isinstance(image, Unrounded) else np.uint8
    if image.dtype != right or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise KilnError("not a picture", value=f"{image.dtype} {list(image.shape)}", limit="uint8 [H, W, 3]")


def _flag(interpolation: str, shrinking: bool) -> int:
    return int(cv2.INTER_AREA if shrinking and interpolation == "auto" else cv2.INTER_LINEAR)


def _resize(image: Picture, size: tuple[int, int], interpolation: str) -> Picture:
    shrinking = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = _flag(interpolation, shrinking)
    values = image.astype(np.float32) if interpolation == "linear_float" else image
    return _picture(cv2.resize(values, (size[1], size[0]), interpolation=how))


def _picture(values: Any) -> Picture:
    """Mark float32 values as a picture; uint8 ones are one."""
    return values.view(Unrounded) if values.dtype == np.float32 else values


def to_tensor(image: Picture, declared: Input) -> NDArray[np.float32]:
    """Return a fitted picture as the network takes it.

    Args:
        image: uint8 BGR [H, W, 3], or `Unrounded`.
        declared: the model's `input`: colour order, and mean and scale in that order.

    Returns:
        float32 [1, 3, H, W], contiguous.

    Raises:
        KilnError: not such a picture: above all one that is normalised already.
    """
    _check(image)
    planes = cv2.split(np.asarray(image))
    tensor = np.empty((1, 3, *image.shape[:2]), np.float32)
    # Plane by plane, straight into the tensor: 15 times as fast as arithmetic on the interleaved picture.
    for out, plane, mean, scale in zip(
        tensor[0],
        planes[::-1] if declared.colour == "rgb" else planes,
        np.asarray(declared.mean, np.float32),
        np.asarray(declared.scale, np.float32),
        strict=True,
    ):
        np.subtract(plane, mean, out=out, dtype=np.float32)
        np.multiply(out, scale, out=out)
    return tensor
