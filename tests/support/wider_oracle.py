"""The WIDER FACE tools restated slowly, a detection and a threshold at a time, as their rules are written.

Shares no code with the package: tests compare the two.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

STEPS = 1000
Rows = list[list[float]]


def whole(value: float) -> int:
    """Round half away from zero, exactly."""
    return int(Decimal(value).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def overlap_port(row: list[float], face: list[float]) -> float:
    """Double precision, +1 convention."""
    ax, ay, bx, by = row[0], row[1], row[0] + row[2], row[1] + row[3]
    gx, gy, hx, hy = face[0], face[1], face[0] + face[2], face[1] + face[3]
    width = min(bx, hx) - max(ax, gx) + 1
    height = min(by, hy) - max(ay, gy) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (bx - ax + 1) * (by - ay + 1) + (hx - gx + 1) * (hy - gy + 1) - width * height
    return width * height / union


def overlap_official(row: list[float], face: list[float]) -> int:
    """Whole numbers, rounded where MATLAB turns a double into the int32 of the ground truth."""
    ax, ay, bx, by = row[0], row[1], row[0] + row[2], row[1] + row[3]
    gx, gy, hx, hy = (int(v) for v in (face[0], face[1], face[0] + face[2], face[1] + face[3]))
    width = min(whole(bx), hx) - max(whole(ax), gx) + 1
    height = min(whole(by), hy) - max(whole(ay), gy) + 1
    if width <= 0 or height <= 0:
        return 0
    area = (bx - ax + 1) * (by - ay + 1)
    union = whole((hx - gx + 1) * (hy - gy + 1) + area) - width * height
    return whole(width * height / union) if union else 2**31 - 1


def normalise(pictures: list[Rows], protocol: str) -> list[list[float]]:
    """Bring scores to 0..1 over the whole set."""
    scores = [row[4] for rows in pictures for row in rows]
    if protocol == "port":
        low, high = min([1.0, *scores]), max([0.0, *scores])
        if high == low:
            return [[math.nan] * len(rows) for rows in pictures]
        return [[(row[4] - low) / (high - low) for row in rows] for rows in pictures]
    single = np.float32
    tool_low = single(min([float(np.finfo(single).max), *scores]))
    tool_high = single(max([float(np.finfo(single).tiny), *scores]))
    span = single(tool_high - tool_low)
    result = []
    for rows in pictures:
        values = []
        for row in rows:
            if protocol == "octave":
                above = single(single(row[4]) - tool_low)
            else:
                above = single(row[4] - float(tool_low))
            with np.errstate(divide="ignore", invalid="ignore"):
                values.append(float(above / span))
        result.append(values)
    return result


def evaluate(
    pictures: list[Rows], faces: list[Rows], kept: list[list[bool]], protocol: str
) -> tuple[list[int], list[int], float]:
    """Return (proposals, found, AP) of one setting: detections and ground truth per picture."""
    if protocol != "port":
        pictures = [sorted(rows, key=lambda row: -row[4]) for rows in pictures]
    normalised = normalise(pictures, protocol)
    overlap: Any = overlap_port if protocol == "port" else overlap_official
    proposals, found = [0] * STEPS, [0] * STEPS
    for rows, scores, boxes, keep in zip(pictures, normalised, faces, kept, strict=True):
        if not rows or not boxes:
            continue
        state = [0] * len(boxes)
        flags, hits = [], []
        for row in rows:
            values = [overlap(row, box) for box in boxes]
            best = values.index(max(values))
            flag = 1
            if values[best] >= 0.5:
                if not keep[best]:
                    state[best], flag = -1, -1
                elif state[best] == 0:
                    state[best] = 1
            flags.append(flag)
            hits.append(state.count(1))
        for step in range(STEPS):
            threshold = 1 - (step + 1) / STEPS
            last = max((at for at, score in enumerate(scores) if score >= threshold), default=-1)
            if last >= 0:
                proposals[step] += flags[: last + 1].count(1)
                found[step] += hits[last]
    total = sum(map(sum, kept))
    return proposals, found, _area(proposals, found, total)


def _area(proposals: list[int], found: list[int], total: int) -> float:
    if total == 0:
        return math.nan
    recall = [0.0, *(hits / total for hits in found), 1.0]
    precision = [0.0, *(hits / n if n else 0.0 for hits, n in zip(found, proposals, strict=True)), 0.0]
    for at in range(len(precision) - 2, -1, -1):
        precision[at] = max(precision[at], precision[at + 1])
    steps = [at for at in range(1, len(recall)) if recall[at] != recall[at - 1]]
    # numpy's sum, whose order of addition is part of the port's last bit.
    return float(np.sum(np.array([(recall[at] - recall[at - 1]) * precision[at] for at in steps])))
