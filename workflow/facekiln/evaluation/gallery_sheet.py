"""A sheet of captioned pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.vision.caption import write_line

Picture = NDArray[np.uint8]

_GAP, _HEAD, _LINE = 8, 52, 15
_PAPER = 255


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture, uint8 BGR [h,w,3], and up to two lines below it."""

    picture: Picture
    lines: tuple[str, ...]


def draw_tiles(
    heading: tuple[str, str], tiles: Sequence[Tile], *, side: int = 220, columns: int = 4
) -> Picture:
    """Draw tiles in rows below a heading; without any, only the heading.

    Args:
        heading: two lines.
        tiles: in order; each picture is brought to `side` pixels, its aspect kept.
        side: pixels of a tile.
        columns: tiles in a row.

    Returns:
        uint8 BGR [h,w,3], the same bytes for the same tiles.
    """
    foot = 2 * _LINE + 4
    rows = -(-len(tiles) // columns)
    width = _GAP + columns * (side + _GAP)
    sheet = np.full((_HEAD + rows * (side + foot + _GAP), width, 3), _PAPER, np.uint8)
    for index, line in enumerate(heading):
        write_line(sheet, line, (_GAP, 20 + 20 * index), scale=0.5, room=width - 2 * _GAP)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = _HEAD + row * (side + foot + _GAP), _GAP + column * (side + _GAP)
        scale = side / max(tile.picture.shape[:2])
        height, across = (max(1, round(length * scale)) for length in tile.picture.shape[:2])
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = np.asarray(cv2.resize(tile.picture, (across, height), interpolation=how), np.uint8)
        sheet[top : top + height, left : left + across] = small
        for index, line in enumerate(tile.lines[:2]):
            write_line(sheet, line, (left, top + side + _LINE * (index + 1)), room=side)
    return sheet
