"""Priors (anchors) of a detector, in the order of its outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Priors


def feature_sizes(priors: Priors, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of each level's map: ceil(side / step)."""
    return [(-(-size[0] // step), -(-size[1] // step)) for step in priors.steps]


def make_priors(priors: Priors, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the priors of one input size.

    Args:
        priors: box sides and steps per level, in pixels.
        size: (height, width) of the network's input, pixels.

    Returns:
        float32 [N, 4]: centre x, centre y, width, height, as shares of the input's width and height. Order:
        level, row, column, box side. Centres are at (index + 0.5) * step (Pytorch_Retinaface's rule).
    """
    height, width = size
    levels = []
    for (rows, columns), step, sides in zip(
        feature_sizes(priors, size), priors.steps, priors.min_sizes, strict=True
    ):
        level = np.empty((rows, columns, len(sides), 4), dtype=np.float64)
        level[..., 0] = ((np.arange(columns) + 0.5) * step / width)[None, :, None]
        level[..., 1] = ((np.arange(rows) + 0.5) * step / height)[:, None, None]
        level[..., 2] = np.asarray(sides) / width
        level[..., 3] = np.asarray(sides) / height
        levels.append(level.reshape(-1, 4))
    boxes = np.concatenate(levels)
    return (boxes.clip(0, 1) if priors.clip else boxes).astype(np.float32)
