"""Two pipelines' predictions of one artifact beside each other: which picture differs most, and points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from facekiln.evaluation.gates import Verdict, skipped
from facekiln.parity.agreement import agreement
from facekiln.predictions.store import Predictions
from facekiln.verdict import FAILED, at_most
from facekiln.vision.detect import Faces

# Overlaps are float32: that of a box with itself is 1 within this.
_SAME = 1e-6


def with_worst(
    verdict: Verdict, host: Predictions, board: Predictions, pairs: list[tuple[Faces, Faces]], score: float
) -> Verdict:
    """Add to a verdict on faces how many detections there are in all, and the picture that differs most.

    Args:
        verdict: of `facekiln.evaluation.gates_run.judge_pairs`.
        host, board: what was judged.
        pairs: their faces, picture by picture.
        score: the score from which a face counts.
    """
    other = int((host.counts != board.counts).sum())
    details = {
        **verdict.details,
        "detections": [len(host.scores), len(board.scores)],
        "pictures_of_other_counts": other,
        "worst": None,
    }
    figures = [agreement([pair], score) for pair in pairs]
    # Faces lost or invented first, then how far the boxes are apart.
    ranks = [
        (each.parent * (1 - each.found) + each.child * each.invented, 1 - each.mean_iou) for each in figures
    ]
    worst = max(range(len(ranks)), key=ranks.__getitem__, default=None)
    told = "no picture differs"
    if worst is not None and max(ranks[worst]) > _SAME:
        each = figures[worst]
        details["worst"] = {"picture": host.images[worst], **each.as_dict()}
        told = (
            f"worst {host.images[worst]}: {each.parent} and {each.child} faces, "
            f"{100 * each.found:.0f} % found, {100 * each.invented:.0f} % invented, "
            f"mean IoU {each.mean_iou:.4f}"
        )
    return replace(verdict, reason=f"{verdict.reason}; {told}", details=details)


def judge_points(
    host: Predictions, board: Predictions, limits: Mapping[str, float], *, subject: str, emulated: bool
) -> Verdict:
    """Judge how far the points of a landmark model are apart; its boxes and scores are given and say nothing.

    A face's distance is the mean over its points, as a share of the face's size, the root of its box's area.

    Args:
        host: the reference's predictions.
        board: the other's.
        limits: `points`, the most that the mean over all faces may be.
        subject: for the verdict.
        emulated: likewise.
    """
    if not len(host.scores):
        return skipped("pipelines", subject, "the pictures have no face to be compared", emulated=emulated)
    assert host.points is not None
    if board.points is None or board.points.shape != host.points.shape:
        shape = None if board.points is None else list(board.points.shape)
        reason = f"points are {shape}, those of the reference {list(host.points.shape)}"
        return Verdict("pipelines", subject, FAILED, None, limits["points"], reason, emulated)
    sides = host.boxes[:, 2:] - host.boxes[:, :2]
    sizes = np.sqrt(np.maximum(sides.prod(axis=1), 1.0))
    apart = np.linalg.norm(board.points - host.points, axis=2).mean(axis=1) / sizes
    # A face without a box has no points in either; one that only one pipeline answers for is lost.
    here, there = (np.isfinite(points).all(axis=(1, 2)) for points in (host.points, board.points))
    lost = int((here != there).sum())
    if not here.any() and not lost:
        return skipped("pipelines", subject, "no face has points to be compared", emulated=emulated)
    both = np.asarray(here & there)
    mean = float(apart[both].mean()) if both.any() else float("inf")
    worst = int(np.argmax(np.where(both, apart, np.where(here != there, np.inf, -1.0))))
    picture = host.images[int(np.searchsorted(host.starts, worst, side="right")) - 1]
    verdict = FAILED if lost else at_most(mean, limits["points"])
    details: dict[str, Any] = {
        "faces": len(apart),
        "lost": lost,
        "mean": mean if np.isfinite(mean) else None,
        "worst": {"picture": picture, "apart": float(apart[worst]) if both[worst] else None},
    }
    reason = f"{int(here.sum())} faces, points {100 * mean:.4f} % of a face's size apart, {lost} lost"
    if lost or apart[worst] > 0:
        reason += f"; worst {picture}" + (f": {100 * float(apart[worst]):.4f} %" if both[worst] else "")
    else:
        reason += "; no point differs"
    value = mean if np.isfinite(mean) else None
    return Verdict("pipelines", subject, verdict, value, limits["points"], reason, emulated, details)
