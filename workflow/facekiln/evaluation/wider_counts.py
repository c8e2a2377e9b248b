"""Scores to thresholds: how many detections and found faces each of the 1000 thresholds has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facekiln.evaluation.detections import Detections
from facekiln.evaluation.wider_match import Matches
from facekiln.evaluation.wider_truth import Truth

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

STEPS = 1000
# 1 - t/1000 for t = 1..1000; the last one is exactly 0.
THRESHOLDS: Floats = 1 - np.arange(1, STEPS + 1) / STEPS


def normalised(scores: Floats, protocol: str) -> Floats:
    """Return scores brought to 0..1 over the whole set, float64; where all are equal, 0/0 as in the tools.

    `port` starts its search for the extremes at 0 and 1, and computes in double precision. The official tool
    starts at realmin and realmax of single precision, which makes its extremes single: MATLAB subtracts in
    double precision and rounds the difference to single; Octave rounds the score before it subtracts. Both
    divide in single precision.
    """
    if protocol == "port":
        least, most = float(scores.min(initial=1.0)), float(scores.max(initial=0.0))
        with np.errstate(invalid="ignore"):
            result: Floats = (scores - least) / np.float64(most - least)
        return result
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        low = np.float32(scores.min(initial=float(limits.max)))
        high = np.float32(scores.max(initial=float(limits.tiny)))
        if protocol == "octave":
            above = scores.astype(np.float32) - low
        else:
            above = (scores - np.float64(low)).astype(np.float32)
        return np.asarray(above / (high - low), np.float64)


def reach_of(scores: Floats, starts: Counts) -> Floats:
    """Return the greatest score from each detection to the end of its picture.

    A threshold takes every detection up to the last one that reaches it. In a file sorted by falling score
    that is the score itself; in an unsorted one, low scores before a high one are taken with it.
    """
    pictures = _unsorted(scores, starts)
    if not len(pictures):
        return scores
    result = scores.copy()
    for picture in pictures.tolist():
        part = slice(starts[picture], starts[picture + 1])
        result[part] = np.maximum.accumulate(scores[part][::-1])[::-1]
    return result


def sorted_detections(detections: Detections) -> Detections:
    """Return each picture's detections by falling score; equal scores keep their order."""
    scores, starts = detections.table[4], detections.starts
    pictures = _unsorted(scores, starts)
    if not len(pictures):
        return detections
    table = detections.table.copy()
    for picture in pictures.tolist():
        part = slice(starts[picture], starts[picture + 1])
        table[:, part] = table[:, part][:, np.argsort(-scores[part], kind="stable")]
    return Detections(detections.counts, table)


def _unsorted(scores: Floats, starts: Counts) -> Counts:
    """Return the pictures in which some score is higher than the one before it."""
    rises = np.flatnonzero(scores[1:] > scores[:-1])
    pictures = np.searchsorted(starts, rises, side="right") - 1
    inside = pictures[rises + 1 < starts[pictures + 1]]
    return inside[np.diff(inside, prepend=-1) > 0]


def count(
    reach: Floats, counted: NDArray[np.bool_] | None, matches: Matches, truth: Truth
) -> tuple[Counts, Counts]:
    """Return (proposals, found), both int64 [3, 1000]: per setting and threshold.

    Args:
        reach: float64 [m] of each detection, see `reach_of`.
        counted: bool [m], detections of pictures that have ground truth; None: all.
        matches: of the same detections.
        truth: the ground truth.
    """
    every = np.sort(reach if counted is None else reach[counted])
    if len(every) and np.isnan(every[-1]):  # all scores are equal: no threshold is reached
        every = every[:0]
    taken = len(every) - np.searchsorted(every, THRESHOLDS, side="left")
    # The number of the first threshold that a detection reaches; STEPS where it reaches none.
    ascending = THRESHOLDS[::-1]
    values = reach[matches.detection]
    steps = STEPS - np.searchsorted(ascending, values, side="right")
    steps[np.isnan(values)] = STEPS
    proposals, found = np.empty((3, STEPS), np.int64), np.empty((3, STEPS), np.int64)
    for setting, kept in enumerate(truth.kept):
        counts = kept[matches.box]
        proposals[setting] = taken - _up_to(steps[~counts])
        found[setting] = _up_to(steps[counts & matches.first])
    return proposals, found


def _up_to(steps: Counts) -> Counts:
    return np.cumsum(np.bincount(steps, minlength=STEPS + 1)[:STEPS])
