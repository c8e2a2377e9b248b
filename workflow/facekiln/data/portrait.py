"""Drawing one head: from the skull behind to the glasses in front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.data.brush import shrink
from facekiln.data.features import Painter, Sitter
from facekiln.data.worn import hair_front, in_front

_LEAST = 72.0  # pixels: smaller faces are drawn larger and averaged down, so that their features survive


@dataclass(frozen=True)
class Portrait:
    """A drawn head, cut out.

    Attributes:
        image: uint8 [h,w,3] BGR.
        cover: uint8 [h,w], 255 where the head hides what is behind it.
        corner: where pixel (0, 0) of the cut-out lies in the scene, (x, y).
        occlusion: share of the face region that glasses, masks and things in front hide, 0..1.
    """

    image: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    corner: tuple[int, int]
    occlusion: float


def draw_portrait(sitter: Sitter) -> Portrait:
    """Draw one head by its view; see `Portrait`."""
    outline = sitter.outline()
    low, high = outline.min(axis=0), outline.max(axis=0)
    side = float((high - low).max())
    zoom = max(1, int(np.ceil(_LEAST / side)))
    reach = np.array([[0.75, 0.5], [0.75, 1.0]]) * side
    corner = np.floor(low - reach[0]).astype(int)
    end = np.ceil(high + reach[1]).astype(int)
    width, height = (end - corner).tolist()
    painter = Painter(sitter, (int(corner[0]), int(corner[1])), zoom, height, width)
    painter.behind()
    painter.skin()
    painter.eyes()
    painter.mouth()
    painter.nose()
    hair_front(painter)
    painter.light()
    occlusion = in_front(painter)
    image, cover = shrink(painter.canvas.image, zoom), shrink(painter.canvas.cover, zoom)
    return Portrait(image, cover, (int(corner[0]), int(corner[1])), occlusion)
