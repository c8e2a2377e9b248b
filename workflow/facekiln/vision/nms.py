"""Non-maximum suppression and overlaps: the one of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Boxes compared with each other at once: large enough to be quick, small enough for little memory.
_BLOCK = 128


def iou_matrix(a: Floats, b: Floats, extent: float = 0.0, epsilon: float = 0.0) -> Floats:
    """Return the IoU of every pair: [len(a), len(b)] for corner boxes [.., 4].

    Args:
        a: x1, y1, x2, y2.
        b: x1, y1, x2, y2.
        extent: added to each side's length: 1 for the convention in which corners are pixel indices (WIDER
            FACE's evaluator, Pytorch_Retinaface's NMS), 0 for points of the plane.
        epsilon: added to each union (an area).
    """
    # A coordinate at a time: numpy is slow along an axis of two.
    rows, columns = a.T[:, :, None], b.T[:, None, :]
    common = np.ones((), np.result_type(a, b))
    for low, high in ((0, 2), (1, 3)):
        length = np.minimum(rows[high], columns[high]) - np.maximum(rows[low], columns[low]) + extent
        common = common * np.maximum(length, 0)
    union = _areas(a, extent)[:, None] + _areas(b, extent) - common + epsilon
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _areas(boxes: Floats, extent: float) -> Floats:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2] + extent, 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def nms(
    boxes: Floats, scores: Floats, iou: float, extent: float = 1.0, epsilon: float = 0.0
) -> NDArray[np.int64]:
    """Keep the best box of each cluster (greedy).

    Args:
        boxes: [N, 4] corners, pixels.
        scores: [N].
        iou: boxes that overlap a kept one by more than this are dropped.
        extent: see `iou_matrix`; 1 as in Pytorch_Retinaface, whose published counts depend on it.
        epsilon: see `iou_matrix`; the Ultra-Light detector's predictor adds 1e-5 of the picture's area.

    Returns:
        Indices of the kept boxes, best score first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while order.size:
        block, order = order[:_BLOCK], order[_BLOCK:]
        falls = iou_matrix(boxes[block], boxes[block], extent, epsilon) > iou
        standing = np.ones(len(block), dtype=bool)
        for row in range(len(block)):
            if standing[row]:
                standing[row + 1 :] &= ~falls[row, row + 1 :]
        survivors = block[standing]
        kept.extend(survivors)
        order = order[~(iou_matrix(boxes[survivors], boxes[order], extent, epsilon) > iou).any(axis=0)]
    return np.asarray(kept, dtype=np.int64)


def best_pairs(a: Floats, b: Floats, iou: float) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of boxes of two sets, each box used once, best overlaps first: index in `a`, in `b`, IoU.

    Args:
        a: corner boxes [n, 4].
        b: corner boxes [m, 4].
        iou: least IoU of a pair.
    """
    if not len(a) or not len(b):
        return
    overlaps = iou_matrix(a, b)
    while overlaps.max() >= iou:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        yield int(row), int(column), float(overlaps[row, column])
        overlaps[row, :] = -1
        overlaps[:, column] = -1
