"""Pictures in and out: uint8 BGR arrays [H, W, 3]."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_bytes, write_bytes
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces

Picture = NDArray[np.uint8]

_JPEG_START = b"\xff\xd8\xff"
# A marker inside entropy-coded data: no stuffed zero, no restart, no fill byte (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


# A JPEG's decoder gives these fractions of its size for a fraction of the time.
SHRINKS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_image(path: Path | str, shrink: int = 1) -> Picture:
    """Read a picture as uint8 BGR [H, W, 3]; grey becomes three equal channels, EXIF orientation is ignored.

    Orientation is ignored because annotations and vendor tools count pixels as they are stored.

    Args:
        path: the file.
        shrink: 1, 2, 4 or 8: the picture's sides are divided by it, rounded up.

    Raises:
        KilnError: missing, unreadable, or not a whole picture.
    """
    data = read_bytes(path)
    # libjpeg may fill what is missing with grey and only warn, so look for the end marker ourselves.
    if data.startswith(_JPEG_START) and not _jpeg_ends(data):
        raise KilnError(
            "is a truncated JPEG: it has no end marker", file=path, hint="fetch it again or remove it"
        )
    try:
        image = _decode(data, SHRINKS[shrink])
    except cv2.error as error:  # so it does for kinds of files that it was built without
        if "CV_IO_MAX" in str(error):
            raise KilnError(
                "is larger than any picture should be",
                file=path,
                limit=f"{os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS', 'OpenCV')} pixels",
                hint="make it smaller, or set OPENCV_IO_MAX_IMAGE_PIXELS to a higher number",
            ) from error
        image = None
    if image is None:
        looks = (
            "a web page"
            if data.lstrip()[:1] == b"<"
            else "empty"
            if not data
            else "no picture OpenCV can read"
        )
        raise KilnError(f"is {looks}", file=path, hint="replace or remove it")
    return image.astype(np.uint8, copy=False)


def _decode(data: bytes, how: int) -> Any:
    if not data:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)


def _jpeg_ends(data: bytes) -> bool:
    """Walk the segments to the end marker: one in an EXIF thumbnail is not it, bytes after it do no harm."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                return False
            at = found.start()
    return data[at : at + 2] == b"\xff\xd9"


def write_image(path: Path | str, image: Picture) -> None:
    """Write a uint8 BGR picture atomically; the ending chooses the format (PNG is lossless).

    Raises:
        KilnError: OpenCV has no writer for the ending, or the disk is full.
    """
    suffix = Path(path).suffix.lower()
    try:
        done, data = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise KilnError(
            "OpenCV writes no pictures of this kind", file=path, value=suffix, hint="use .png or .jpg"
        )
    write_bytes(path, data.tobytes())


def draw_faces(image: Picture, faces: Faces) -> Picture:
    """Return a copy with boxes, scores and landmarks drawn."""
    drawn = image.copy()
    # OpenCV takes 32-bit coordinates: a wild box of a broken stage must not stop the drawing.
    far = 4 * max(image.shape[:2])
    thick = max(1, round(max(image.shape[:2]) / 500))
    for box, score, points in zip(faces.boxes, faces.scores, faces.landmarks, strict=True):
        x1, y1, x2, y2 = (round(float(value)) for value in box.clip(-far, far))
        cv2.rectangle(drawn, (x1, y1), (x2, y2), (0, 220, 0), thick)
        cv2.putText(
            drawn, f"{score:.2f}", (x1, y1 - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thick, (0, 220, 0), thick
        )
        for x, y in points.clip(-far, far):
            cv2.circle(drawn, (round(float(x)), round(float(y))), thick, (0, 0, 255), -1)
    return drawn
