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
        level, row, column, box side. Centres are at (index + 0.5) * distance: with `centre: step` the level's
        step (Pytorch_Retinaface, and the C++ samples of Ultra-Light-Fast-Generic-Face-Detector-1MB), with
        `centre: even` the input's side over the number of cells (that project's training and ONNX files).
    """
    height, width = size
    levels = []
    for (rows, columns), step, sides in zip(
        feature_sizes(priors, size), priors.steps, priors.min_sizes, strict=True
    ):
        level = np.empty((rows, columns, len(sides), 4), dtype=np.float64)
        level[..., 0] = (_centres(columns, step, width, priors.centre) / width)[None, :, None]
        level[..., 1] = (_centres(rows, step, height, priors.centre) / height)[:, None, None]
        level[..., 2] = np.asarray(sides) / width
        level[..., 3] = np.asarray(sides) / height
        levels.append(level.reshape(-1, 4))
    boxes = np.concatenate(levels)
    return (boxes.clip(0, 1) if priors.clip else boxes).astype(np.float32)


def _centres(cells: int, step: int, side: int, rule: str) -> NDArray[np.float64]:
    """Return the centres of a level's cells along one axis, pixels."""
    distance = side / cells if rule == "even" else float(step)
    return (np.arange(cells, dtype=np.float64) + 0.5) * distance


def centre_gap(priors: Priors, size: tuple[int, int]) -> float:
    """Return how far a prior's centre moves along an axis where the other `centre` rule is taken, at most.

    The number of priors is the same, so that nothing but shifted boxes tells: big faces low or right in the
    picture. 15 pixels at 320x240 with steps 8 to 64; 0 where every step divides both sides.

    Args:
        priors: of a model; its own `centre` does not matter.
        size: (height, width) of the network's input, pixels.

    Returns:
        Pixels of the network's input.
    """
    gaps = [
        np.abs(_centres(cells, step, side, "even") - _centres(cells, step, side, "step")).max()
        for level, step in zip(feature_sizes(priors, size), priors.steps, strict=True)
        for cells, side in zip(level, size, strict=True)
    ]
    return float(max(gaps, default=0.0))


def centre_note(priors: Priors, size: tuple[int, int]) -> str | None:
    """Return what to mind about the centres at one size, in words; None where both rules agree there."""
    gap = centre_gap(priors, size)
    if gap == 0.0:
        return None
    ours, other = ("even spacing", "nominal steps")
    if priors.centre == "step":
        ours, other = other, ours
    return f"centres are by {ours}; {other} would move boxes by up to {gap:g} pixels, without another sign"
