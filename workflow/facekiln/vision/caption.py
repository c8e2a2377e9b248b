"""Words on pictures for people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)


def write_line(
    sheet: NDArray[np.uint8], text: str, at: tuple[int, int], *, scale: float = 0.36, room: int
) -> None:
    """Write one line of plain text, cut at the end to `room` pixels.

    Args:
        sheet: uint8 BGR [h, w, 3], written on.
        text: other than ASCII is shown as `?`.
        at: (x, y) of its lower left corner, pixels.
        scale: of OpenCV's Hershey font.
        room: its greatest width, pixels.
    """
    plain = text.encode("ascii", "replace").decode()
    while plain and cv2.getTextSize(plain, _FONT, scale, 1)[0][0] > room:
        plain = plain[:-1]
    cv2.putText(sheet, plain, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
