"""Landmark error: NME by three normalisers, failure rate, CED curve and its area, pose error.

Sources: PFLD (polarisZhao/PFLD-pytorch, AnthonyF333/PFLD_GhostOne) and open-mmlab/mmpose agree on the mean
over faces of the mean point error, over the distance of the outer eye corners **of the annotation**. Figures
of hanson-young/nniefacelib's `test.py` are other quantities (its "ION" is a sum over the points, divided by
the distance in the *prediction*) and do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.config import known
from facekiln.data.landmarks import convert, inter_ocular, scheme
from facekiln.errors import KilnError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Raise when a figure of the same faces can change.
VERSION = "1"
NORMALISERS = ("inter_ocular", "inter_pupil", "box")
FAILURE_LIMIT = 0.10
_STEP = 1e-4


@dataclass(frozen=True)
class Curve:
    """Figures of a set of faces' errors.

    Attributes:
        faces: how many have a figure, lost ones included.
        nme: mean of the errors of faces that were found, as a share of the normaliser; NaN without any.
        failure_rate: share of faces with an error above the limit; a lost face is one.
        auc: area under the CED curve up to the limit, over the limit: 0..1.
        limits: float64 [s], the curve's error limits.
        shares: float64 [s], share of faces with an error of at most that.
    """

    faces: int
    nme: float
    failure_rate: float
    auc: float
    limits: Floats
    shares: Floats

    def figures(self) -> dict[str, float]:
        """Return the single figures by name."""
        return {"nme": self.nme, "failure_rate": self.failure_rate, "auc": self.auc}


def normaliser(points: Floats, boxes: Floats, name: str, kind: str) -> Floats:
    """Return what each face's error is divided by, [n] pixels; NaN where the annotation does not tell.

    Args:
        points: annotated landmarks [n,k,2].
        boxes: annotated boxes [n,4].
        name: landmark scheme of `points`.
        kind: "inter_ocular": outer eye corners (eye centres in the 5-point scheme); "inter_pupil": eye
            centres, the mean of the lids where the scheme has no centres; "box": sqrt(width * height).

    Raises:
        KilnError: unknown kind.
    """
    known(kind, NORMALISERS, "normaliser")
    if kind == "box":
        sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
        length = np.sqrt(sides.prod(axis=1))
    elif kind == "inter_ocular":
        length = inter_ocular(points, name)
    else:
        declared = scheme(name)
        if declared.pupils:
            left, right = (points[:, index] for index in declared.pupils)
        else:
            left, right = (points[:, ring].mean(axis=1) for ring in declared.eyes)
        length = np.linalg.norm(left - right, axis=1)
    return np.where(length > 0, length, np.nan)


def point_errors(predicted: Floats, truth: Floats) -> Floats:
    """Return each face's mean point error, [n] pixels.

    Points that are not annotated (NaN) are left out of their face's mean. A face without any is NaN; one with
    a point that is annotated and not predicted (NaN or endless) is infinite.

    Args:
        predicted: [n,k,2] pixels.
        truth: [n,k,2] pixels, NaN where not annotated.
    """
    known_points = np.asarray(np.isfinite(truth).all(axis=2))
    distance = np.linalg.norm(np.where(known_points[..., None], predicted - truth, 0.0), axis=2)
    distance = np.where(np.isfinite(distance), distance, np.inf)
    count = known_points.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(distance.sum(axis=1) / np.where(count > 0, count, np.nan))


def in_one_scheme(predicted: Floats, truth: Floats, name: str) -> tuple[Floats, Floats, str]:
    """Return both in the scheme with fewer points, and its name.

    Raises:
        KilnError: one does not hold the other's points.
    """
    counts = predicted.shape[1], truth.shape[1]
    if counts[0] == counts[1]:
        return predicted, truth, name
    if counts[0] < counts[1]:
        return predicted, convert(truth, name, str(counts[0])), str(counts[0])
    return convert(predicted, str(counts[0]), name), truth, name


def curve(errors: Floats, limit: float = FAILURE_LIMIT) -> Curve:
    """Return the figures of normalised errors.

    The area is Simpson's, in steps of 1e-4 up to the failure limit, as PFLD's test takes it.

    Args:
        errors: [n], as shares of the normaliser; infinite for a face that was lost; NaN ones are left out.
        limit: the failure limit.

    Raises:
        KilnError: the limit is not above 0.
    """
    if not limit > 0:
        raise KilnError("the failure limit must be above 0", value=limit)
    known_errors = np.sort(errors[~np.isnan(errors)])
    intervals = 2 * max(1, round(limit / _STEP / 2))
    # Not arange: its last limit falls a rounding short of the limit, and a face right at it would fail.
    limits = np.linspace(0.0, limit, intervals + 1)
    if not len(known_errors):
        nothing = np.full(len(limits), np.nan)
        return Curve(0, np.nan, np.nan, np.nan, limits, nothing)
    shares = np.searchsorted(known_errors, limits, side="right") / len(known_errors)
    found = known_errors[np.isfinite(known_errors)]
    return Curve(
        faces=len(known_errors),
        nme=float(found.mean()) if len(found) else float("nan"),
        failure_rate=float(1.0 - shares[-1]),
        auc=_simpson(shares, limit / intervals) / limit,
        limits=limits,
        shares=shares,
    )


def _simpson(values: Floats, step: float) -> float:
    """Integrate an odd number of values at equal steps."""
    return float(step / 3 * (values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum()))


def pose_errors(predicted: Floats, truth: Floats) -> Floats:
    """Return absolute errors of yaw, pitch and roll, [n,3] degrees, never more than 180.

    Args:
        predicted: [n,3] radians; NaN where there is none.
        truth: [n,3] radians; NaN where unknown.
    """
    turn = np.degrees(predicted - truth)
    return np.asarray(np.abs((turn + 180.0) % 360.0 - 180.0))


def subsets(
    attributes: Mapping[str, NDArray[np.generic]], pose: Floats | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Return the faces of each subset: one per attribute that is a flag, three by how far a face is turned.

    WFLW's flags are pose, expression, illumination, make_up, occlusion and blur.

    Args:
        attributes: by name [n] values; NaN where a face has none.
        pose: [n,3] radians, NaN where unknown.
    """
    chosen: dict[str, NDArray[np.bool_]] = {}
    for name, values in attributes.items():
        numbers = np.asarray(values, np.float64)
        told = numbers[~np.isnan(numbers)]
        if len(told) and np.isin(told, (0.0, 1.0)).all():
            chosen[name] = np.asarray(numbers == 1.0)
    if pose is not None and np.isfinite(pose[:, 0]).any():
        yaw = np.abs(np.degrees(pose[:, 0]))
        for low, high in ((0, 30), (30, 60), (60, 90)):
            chosen[f"yaw_{low}_{high}"] = np.asarray((yaw >= low) & (yaw < high))
    return {name: mask for name, mask in chosen.items() if mask.any()}
