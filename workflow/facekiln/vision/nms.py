"""Non-maximum suppression and overlaps: the one of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Boxes compared with all others at once: their overlaps with 4000 fit the second-level cache.
_BLOCK = 32


def iou_matrix(a: Floats, b: Floats, extent: float = 0.0, epsilon: float = 0.0) -> Floats:
    """Return the IoU of every pair: [len(a), len(b)] for corner boxes [.., 4].

    Args:
        a: x1, y1, x2, y2.
        b: x1, y1, x2, y2.
        extent: added to each side's length: 1 for the convention in which corners are pixel indices (WIDER
            FACE's evaluator, Pytorch_Retinaface's NMS), 0 for points of the plane.
        epsilon: added to each union (an area).
    """
    # A coordinate at a time, in place: numpy is slow along an axis of two, and in fresh memory.
    ax1, ay1, ax2, ay2 = (np.ascontiguousarray(column)[:, None] for column in a.T)
    bx1, by1, bx2, by2 = (np.ascontiguousarray(column)[None, :] for column in b.T)
    common = _length(np.maximum(ax1, bx1), np.minimum(ax2, bx2), extent)
    common *= _length(np.maximum(ay1, by1), np.minimum(ay2, by2), extent)
    areas = _length(ax1, ax2, extent) * _length(ay1, ay2, extent)
    union = areas + _length(bx1, bx2, extent) * _length(by1, by2, extent)
    union -= common
    union += epsilon
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(common, union, out=common)
    common[~(union > 0)] = 0
    return common


def _length(low: Floats, high: Floats, extent: float) -> Floats:
    length = high - low
    length += extent
    return np.maximum(length, 0, out=length)


def nms(
    boxes: Floats,
    scores: Floats,
    iou: float,
    extent: float = 1.0,
    epsilon: float = 0.0,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Keep the best box of each cluster (greedy).

    Args:
        boxes: [N, 4] corners, pixels.
        scores: [N].
        iou: boxes that overlap a kept one by more than this are dropped.
        extent: see `iou_matrix`; 1 as in Pytorch_Retinaface, whose published counts depend on it.
        epsilon: see `iou_matrix`; the Ultra-Light detector's predictor adds 1e-5 of the picture's area.
        most: so many are returned at most.

    Returns:
        Indices of the kept boxes, best score first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    # The best come first, so that what follows the last wanted one decides nothing.
    while order.size and (most is None or len(kept) < most):
        block, order = order[:_BLOCK], order[_BLOCK:]
        falls = iou_matrix(boxes[block], boxes[block], extent, epsilon) > iou
        standing = np.ones(len(block), dtype=bool)
        for row in range(len(block)):
            if standing[row]:
                standing[row + 1 :] &= ~falls[row, row + 1 :]
        survivors = block[standing]
        kept.extend(survivors)
        order = order[~(iou_matrix(boxes[survivors], boxes[order], extent, epsilon) > iou).any(axis=0)]
    return np.asarray(kept[:most], dtype=np.int64)


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
