"""Pictures in and out: uint8 BGR arrays [H, W, 3]."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import write_bytes
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces

Picture = NDArray[np.uint8]


def read_image(path: Path | str) -> Picture:
    """Read a picture as uint8 BGR [H, W, 3]; grey becomes three equal channels, EXIF orientation is ignored.

    Orientation is ignored because annotations and vendor tools count pixels as they are stored.

    Raises:
        KilnError: missing, unreadable, or not a whole picture.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise KilnError(f"cannot be read: {error.strerror}", file=path) from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        looks = "a web page" if data.lstrip()[:1] == b"<" else "empty" if not data else "no picture OpenCV can read"
        raise KilnError(f"is {looks}", file=path, hint="replace or remove it")
    # libjpeg fills what is missing with grey and only warns, so look for the end marker ourselves.
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
        raise KilnError("is a truncated JPEG: it has no end marker", file=path, hint="fetch it again or remove it")
    return image.astype(np.uint8, copy=False)


def write_image(path: Path | str, image: Picture) -> None:
    """Write a uint8 BGR picture atomically; the ending chooses the format (PNG is lossless and deterministic).

    Raises:
        KilnError: OpenCV has no writer for the ending, or the disk is full.
    """
    suffix = Path(path).suffix.lower()
    try:
        done, data = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise KilnError("OpenCV writes no pictures of this kind", file=path, value=suffix, hint="use .png or .jpg")
    write_bytes(path, data.tobytes())


def draw_faces(image: Picture, faces: Faces) -> Picture:
    """Return a copy with boxes, scores and landmarks drawn."""
    drawn = image.copy()
    thick = max(1, round(max(image.shape[:2]) / 500))
    for box, score, points in zip(faces.boxes, faces.scores, faces.landmarks, strict=True):
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), (0, 220, 0), thick)
        cv2.putText(drawn, f"{score:.2f}", (x1, y1 - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thick, (0, 220, 0), thick)
        for x, y in points:
            cv2.circle(drawn, (round(float(x)), round(float(y))), thick, (0, 0, 255), -1)
    return drawn
