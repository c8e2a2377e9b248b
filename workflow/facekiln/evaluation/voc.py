"""Average precision as PASCAL VOC has counted it since 2010: the whole area under the precision envelope.

For held-out checks on drawn scenes. It is not the WIDER FACE protocol; numbers of the two do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.vision.nms import iou_matrix

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Precision:
    """The figures of one evaluation.

    Attributes:
        ap: average precision, 0..1; NaN where there is no truth.
        truths: faces that count.
        found: of them, matched by some detection of any score.
    """

    ap: float
    truths: int
    found: int


@dataclass(frozen=True, eq=False)
class Judged:
    """Which detections are right, by falling score over the whole set.

    Attributes:
        scores: float64 [n].
        right: bool [n].
        truths: faces that count.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    truths: int

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (recall, precision), float64 [n]; recall is NaN where there is no truth."""
        hits = np.cumsum(self.right)
        recall = hits / self.truths if self.truths else np.full(len(hits), np.nan)
        return recall, hits / np.arange(1, len(hits) + 1)

    def precision(self) -> Precision:
        """Return the figures: the area under the envelope of the curve."""
        if self.truths == 0:
            return Precision(float("nan"), 0, 0)
        recall, precision = self.curve()
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        area = float((np.diff(recall, prepend=0.0) * envelope).sum())
        return Precision(area, self.truths, int(self.right.sum()))


def average_precision(
    detections: Sequence[tuple[Floats, Floats]],
    truths: Sequence[Floats],
    *,
    ignored: Sequence[NDArray[np.bool_]] | None = None,
    iou: float = 0.5,
    sizes: tuple[float, float] | None = None,
) -> Precision:
    """Return the average precision of a set of pictures; see `judge`."""
    return judge(detections, truths, ignored=ignored, iou=iou, sizes=sizes).precision()


def judge(
    detections: Sequence[tuple[Floats, Floats]],
    truths: Sequence[Floats],
    *,
    ignored: Sequence[NDArray[np.bool_]] | None = None,
    iou: float = 0.5,
    sizes: tuple[float, float] | None = None,
) -> Judged:
    """Return which detections of a set of pictures are right.

    Detections are taken from the best score down over the whole set; each goes to the truth that it overlaps
    most, is right when that IoU is at least `iou` and the truth is still free, and wrong otherwise.

    Args:
        detections: per picture boxes [n,4] (x1, y1, x2, y2, pixels) and scores [n].
        truths: per picture boxes [m,4].
        ignored: per picture bool [m], truths that are neither to be found nor wrong to find; None for none.
        iou: least overlap, no pixel added to sides.
        sizes: count only truths whose longer side is in [low, high); detections that match others, or match
            nothing and have another size themselves, are neither right nor wrong (COCO's rule of areas).
    """
    scores: list[float] = []
    right: list[bool] = []
    total = 0
    left_out = ignored if ignored is not None else [np.zeros(len(faces), bool) for faces in truths]
    for (boxes, values), faces, ignore in zip(detections, truths, left_out, strict=True):
        counted = _of_size(faces, sizes) & ~ignore
        total += int(counted.sum())
        free = np.ones(len(faces), bool)
        overlap = iou_matrix(boxes, faces)
        sized = _of_size(boxes, sizes)
        for index in np.argsort(-values, kind="stable").tolist():
            best = int(overlap[index].argmax()) if len(faces) else -1
            hit = best >= 0 and bool(overlap[index, best] >= iou)
            if not counted[best] if hit else not sized[index]:
                continue
            good = hit and bool(free[best])
            if good:
                free[best] = False
            scores.append(float(values[index]))
            right.append(good)
    order = np.argsort(-np.array(scores), kind="stable")
    return Judged(np.array(scores)[order], np.array(right, bool)[order], total)


def _of_size(boxes: Floats, sizes: tuple[float, float] | None) -> NDArray[np.bool_]:
    if sizes is None:
        return np.ones(len(boxes), bool)
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    return np.asarray((side >= sizes[0]) & (side < sizes[1]))
