"""A contact sheet of a calibration set: every picture small, with its stratum below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.data.calibration import read_calibration
from facekiln.vision.caption import write_line
from facekiln.vision.image import read_image

_SIDE, _FOOT, _GAP, _HEAD = 150, 34, 8, 40
_COLUMNS = 8
_PAPER, _FRAME = 255, (190, 190, 190)
MOST = 400  # thumbnails: a larger sheet is no longer looked at, and a browser may refuse it


def _write(sheet: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float = 0.36) -> None:
    write_line(sheet, text, at, scale=scale, room=sheet.shape[1] - at[0] - _GAP)


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def _tile(item: dict[str, Any], folder: Path) -> NDArray[np.uint8]:
    tile = np.full((_SIDE + _FOOT, _SIDE, 3), _PAPER, np.uint8)
    small = _thumbnail(read_image(folder / item["path"]))
    tile[: small.shape[0], : small.shape[1]] = small
    cv2.rectangle(tile, (0, 0), (small.shape[1] - 1, small.shape[0] - 1), _FRAME, 1)
    parts = str(item.get("stratum", "")).split(", ")
    _write(tile, parts[0], (0, _SIDE + 13))
    _write(tile, ", ".join(parts[1:]), (0, _SIDE + 27))
    return tile


def draw_sheet(folder: Path) -> NDArray[np.uint8]:
    """Draw a set's contact sheet, pictures sorted by stratum.

    Args:
        folder: of the set. Beyond `MOST` pictures, only the first are shown, and the heading says so.

    Returns:
        uint8 BGR [h, w, 3].

    Raises:
        KilnError: there is no set, or a picture cannot be read.
    """
    facts = read_calibration(folder, ("size", "source", "model", "count"))
    items = sorted(facts["pictures"], key=lambda item: (str(item.get("stratum", "")), item["path"]))[:MOST]
    rows = max(1, -(-len(items) // _COLUMNS))
    width = _GAP + _COLUMNS * (_SIDE + _GAP)
    sheet = np.full((_HEAD + rows * (_SIDE + _FOOT + _GAP), width, 3), _PAPER, np.uint8)
    shown = f", the first {MOST} shown" if len(facts["pictures"]) > MOST else ""
    height, across = facts["size"]
    head = f"{facts.get('name', facts['source'])} for {facts['model']} {height}x{across}"
    _write(
        sheet, f"{head}: {facts['count']} pictures{shown}, set {facts['set_sha256'][:12]}", (_GAP, 25), 0.5
    )
    for number, item in enumerate(items):
        row, column = divmod(number, _COLUMNS)
        top, left = _HEAD + row * (_SIDE + _FOOT + _GAP), _GAP + column * (_SIDE + _GAP)
        sheet[top : top + _SIDE + _FOOT, left : left + _SIDE] = _tile(item, folder)
    return sheet
