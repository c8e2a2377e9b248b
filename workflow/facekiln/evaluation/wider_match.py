"""Which detection finds which face: the matching of the WIDER FACE tools, over a whole set at once.

A detection takes the ground truth box of greatest overlap, if that reaches 0.5; the first detection in order
that takes a box finds the face, later ones are false. Nothing here depends on the setting, because ignored
boxes take part in the matching, so it is done once for easy, medium and hard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.evaluation.detections import Detections
from facekiln.evaluation.wider_truth import Truth

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Overlap = Callable[[Floats, Floats], Floats]

IOU = 0.5
# Pairs of a detection and a box that are looked at closely at once: a few megabytes per array.
_PAIRS = 1 << 18
_COLUMNS = 1 << 14


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections that overlap some box enough.

    Attributes:
        detection: int64 [k], ascending.
        box: int64 [k], the box that each takes.
        first: bool [k]: no earlier detection took that box.
    """

    detection: Indices
    box: Indices
    first: NDArray[np.bool_]


def overlap_float(boxes: Floats, faces: Floats) -> Floats:
    """Return the IoU as the Python port has it: float64, a side from 3 to 3 is one pixel long.

    The order of the operations is the port's (`box_overlaps.pyx`), so that every bit is.

    Args:
        boxes: [4, n] x, y, width, height of detections.
        faces: [4, n] of ground truth boxes.
    """
    x1, y1, x2, y2 = boxes[0], boxes[1], boxes[0] + boxes[2], boxes[1] + boxes[3]
    gx1, gy1, gx2, gy2 = faces[0], faces[1], faces[0] + faces[2], faces[1] + faces[3]
    width = np.minimum(x2, gx2) - np.maximum(x1, gx1) + 1
    height = np.minimum(y2, gy2) - np.maximum(y1, gy1) + 1
    common = width * height
    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (gx2 - gx1 + 1) * (gy2 - gy1 + 1) - common
    touching = (width > 0) & (height > 0)
    return np.divide(common, union, out=np.zeros_like(common), where=touching)


def overlap_int32(boxes: Floats, faces: Floats) -> Floats:
    """Return the IoU as the official tool has it, whose ground truth is int32: a whole number.

    MATLAB gives a mixed expression the integer's class: coordinates of the common rectangle are rounded (half
    away from zero), the sum of the two areas is rounded once, and so is the quotient. Thus every overlap of a
    half or more is 1, and the first such box of the list is taken, not the best one.
    """
    x1, y1, x2, y2 = boxes[0], boxes[1], boxes[0] + boxes[2], boxes[1] + boxes[3]
    gx1, gy1, gx2, gy2 = faces[0], faces[1], faces[0] + faces[2], faces[1] + faces[3]
    width = np.minimum(rounded(x2), gx2) - np.maximum(rounded(x1), gx1) + 1
    height = np.minimum(rounded(y2), gy2) - np.maximum(rounded(y1), gy1) + 1
    common = width * height
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    union = np.minimum(rounded((gx2 - gx1 + 1) * (gy2 - gy1 + 1) + area), _INT32) - common
    touching = (width > 0) & (height > 0)
    # An integer divided by zero is the greatest integer.
    quotient = np.divide(common, union, out=np.full_like(common, _INT32), where=union != 0)
    return np.where(touching, rounded(quotient), 0.0)


_INT32 = 2.0**31 - 1


def rounded(values: Floats) -> Floats:
    """Round half away from zero, as MATLAB does when it makes an int32."""
    whole = np.trunc(values)
    return whole + np.copysign(np.abs(values - whole) >= 0.5, values)


def match(detections: Detections, truth: Truth, *, int32: bool) -> Matches:
    """Match all detections of a set, each picture's in the order that they are given in.

    Args:
        detections: of the truth's pictures.
        truth: the ground truth.
        int32: overlaps as the official tool has them (see `overlap_int32`), else as the port.
    """
    overlap = overlap_int32 if int32 else overlap_float
    found: list[tuple[Indices, Indices, Floats]] = []
    for detection, box in _pairs(detections, truth, int32):
        value = overlap(detections.table[:4, detection], truth.boxes[:, box])
        enough = np.flatnonzero(value >= IOU)
        found.append((detection[enough], box[enough], value[enough]))
    if not found:
        none = np.zeros(0, np.int64)
        return Matches(none, none, np.zeros(0, bool))
    detection, box, value = (np.concatenate(part) for part in zip(*found, strict=True))
    # Stable: the boxes of one detection stay in the order of the ground truth's list.
    order = np.argsort(detection, kind="stable")
    detection, box = _greatest(detection[order], box[order], value[order])
    earliest = np.zeros(truth.boxes.shape[1], np.int64)
    earliest[box[::-1]] = detection[::-1]  # the last write wins
    return Matches(detection, box, earliest[box] == detection)


def _greatest(detection: Indices, box: Indices, value: Floats) -> tuple[Indices, Indices]:
    """Keep the first greatest value of each detection; `detection` is ascending."""
    begins = np.flatnonzero(np.diff(detection, prepend=-1))
    best = np.maximum.reduceat(value, begins) if len(begins) else value
    lengths = np.diff(begins, append=len(detection))
    tops = np.flatnonzero(value == np.repeat(best, lengths))
    tops = tops[np.diff(detection[tops], prepend=-1) != 0]
    return detection[tops], box[tops]


def _pairs(detections: Detections, truth: Truth, int32: bool) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs that may overlap by a half: far fewer than all, and none that does is left out."""
    near, faces = _bounds(detections, truth, int32)
    starts, begins = detections.starts.tolist(), truth.starts.tolist()
    hits: list[Indices] = []
    pictures: list[int] = []
    waiting = 0
    for picture in range(len(truth.images)):
        a, b, c, d = starts[picture], starts[picture + 1], begins[picture], begins[picture + 1]
        if a == b or c == d:
            continue
        inside = np.logical_and.reduce(near[:, None, a:b] <= faces[:, c:d, None], axis=0)
        hit = np.flatnonzero(inside)
        if len(hit):
            hits.append(hit)
            pictures.append(picture)
            waiting += len(hit)
        if waiting >= _PAIRS:
            yield _unfolded(hits, pictures, detections, truth)
            hits, pictures, waiting = [], [], 0
    if hits:
        yield _unfolded(hits, pictures, detections, truth)


def _unfolded(
    hits: list[Indices], pictures: list[int], detections: Detections, truth: Truth
) -> tuple[Indices, Indices]:
    """Return detection and box of places in the pictures' [boxes, detections] matrices."""
    picture = np.repeat(np.array(pictures), [len(hit) for hit in hits])
    row, column = np.divmod(np.concatenate(hits), detections.counts[picture])
    return detections.starts[picture] + column, truth.starts[picture] + row


def _bounds(
    detections: Detections, truth: Truth, int32: bool
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return [4, m] and [4, g] such that a pair can only overlap enough where all four are less or equal.

    For the port's overlap a detection is its centre: boxes a and b (sides with their extra pixel) with
    IoU >= 1/2 share at least half of the longer of their two widths, so their centres are no further apart
    than half the shorter one, and each centre lies inside the other box. A pixel is added for rounding. Under
    int32 rules, where rounded corners meet an area that is not rounded, only the rounded rectangles' common
    pixel is asked for. Negated upper bounds make all four comparisons the same one.
    """
    gx1, gy1, gx2, gy2 = (
        truth.boxes[0],
        truth.boxes[1],
        truth.boxes[0] + truth.boxes[2],
        truth.boxes[1] + truth.boxes[3],
    )
    reach = float(np.abs(truth.boxes).max(initial=0) * 2 + 16)
    kind = np.int16 if reach < np.iinfo(np.int16).max else np.int32
    margin = 1.0 if int32 else 2.0
    near = np.empty((4, detections.table.shape[1]), kind)
    for start in range(0, near.shape[1], _COLUMNS):  # temporaries stay in the cache
        part = slice(start, start + _COLUMNS)
        for axis in (0, 1):
            low, side = detections.table[axis, part], detections.table[2 + axis, part]
            centre = np.clip(low if int32 else low + 0.5 * side, -reach, reach).astype(kind)
            near[2 * axis, part] = centre
            upper = np.clip(low + side, -reach, reach).astype(kind) if int32 else centre
            near[2 * axis + 1, part] = np.negative(upper)
    faces = np.stack([gx2, -gx1, gy2, -gy1]) + margin
    return near, faces.astype(kind)
