"""A chart of two rows of bars, drawn with OpenCV so that no plotting library is needed."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PALE, _FULL, _RULE = (40, 40, 40), (200, 190, 180), (150, 90, 30), (225, 225, 225)


def _write(
    picture: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, centred: bool = False
) -> None:
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    x = at[0] - width // 2 if centred else at[0]
    cv2.putText(picture, text, (x, at[1]), _FONT, scale, _INK, 1, cv2.LINE_AA)


def draw_bars(
    title: str, labels: Sequence[str], before: Sequence[int], after: Sequence[int]
) -> NDArray[np.uint8]:
    """Draw pale bars with full bars in front of them, each with its count.

    Args:
        title: one line of plain ASCII.
        labels: one per bar.
        before: counts of the pale bars.
        after: counts of the full bars, at most `before`.

    Returns:
        uint8 BGR [420,w,3].
    """
    step, left, top, floor, foot = 72, 24, 70, 360, 420
    width = max(left * 2 + step * len(labels), 900)
    picture = np.full((foot, width, 3), 255, np.uint8)
    _write(picture, title, (left, 28), 0.5)
    for at, (colour, text) in enumerate(((_PALE, "before"), (_FULL, "after"))):
        x = left + 110 * at
        cv2.rectangle(picture, (x, 42), (x + 14, 54), colour, -1)
        _write(picture, text, (x + 22, 53), 0.42)
    cv2.line(picture, (left, floor), (width - left, floor), _RULE, 1)
    most = max([1, *map(int, before)])
    for at, (label, all_of, some) in enumerate(zip(labels, before, after, strict=True)):
        x0 = left + at * step + 8
        for count, colour in ((int(all_of), _PALE), (int(some), _FULL)):
            height = round((floor - top - 20) * count / most)
            if count:
                cv2.rectangle(picture, (x0, floor - max(height, 1)), (x0 + step - 16, floor - 1), colour, -1)
        height = round((floor - top - 20) * int(all_of) / most)
        _write(picture, str(int(all_of)), (x0 + step // 2 - 8, floor - height - 6), 0.38, centred=True)
        _write(picture, label, (x0 + step // 2 - 8, floor + 18), 0.38, centred=True)
        if some != all_of:
            _write(
                picture, f"-{int(all_of) - int(some)}", (x0 + step // 2 - 8, floor + 36), 0.36, centred=True
            )
    return picture
