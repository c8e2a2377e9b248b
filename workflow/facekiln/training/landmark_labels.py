"""What each face of a sample says to a landmark model: 98 points or some, a pose, and which count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.data.balance import CLOSED
from facekiln.data.landmarks import COMPATIBLE_68, SUBSET_68, convert, eye_aspect, fill_98
from facekiln.data.pfld_list import ALL_98, POSE_ONLY, SOME_68_AND_POSE
from facekiln.data.sample import Mask, Sample
from facekiln.data.wflw import around

Floats = NDArray[np.float64]

# Two kinds that PFPLD's lists do not have: drawn faces know all, 300-W has points and no pose.
ALL_98_AND_POSE, SOME_68 = 1, 2

# Which kinds teach what.
WITH_98 = (ALL_98, ALL_98_AND_POSE)
WITH_68 = (SOME_68_AND_POSE, SOME_68)
WITH_POSE = (SOME_68_AND_POSE, POSE_ONLY, ALL_98_AND_POSE)

_SAME = 0.5  # pixels
_BEYOND_68 = tuple(index for index in range(98) if index not in SUBSET_68)
_INCOMPATIBLE = tuple(index for index in range(98) if index not in COMPATIBLE_68)


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of n faces of one picture; faces that teach nothing are left out.

    Attributes:
        faces: int64 [n], their indices in the sample.
        points: float64 [n,98,2] pixels of the picture, NaN where a point is not known; of 68, only those that
            mean the same place among the 98.
        pose: float64 [n,3] yaw, pitch, roll in radians, NaN where not known.
        flags: int64 [n], their kinds.
        boxes: float64 [n,4] x1, y1, x2, y2.
        extents: float64 [n,4], the boxes around all annotated landmarks; NaN where there are none.
        boxed: bool [n], the box was annotated for itself: LaPa's and 300W-LP's are those around the
            landmarks, those of PFPLD's lists are the whole crop.
        closed: bool [n], one eye is closed (aspect at most 0.1; False where lids are not annotated).
    """

    faces: NDArray[np.int64]
    points: Floats
    pose: Floats
    flags: NDArray[np.int64]
    boxes: Floats
    extents: Floats
    boxed: NDArray[np.bool_]
    closed: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.faces)

    def take(self, which: NDArray[np.bool_]) -> Labels:
        """Return the labels of some faces."""
        return Labels(**{name: values[which] for name, values in vars(self).items()})


def points_98(sample: Sample) -> Floats:
    """Return the landmarks of a sample's faces as [n,98,2], NaN where the annotation has no such point.

    106 points hold all 98. Of 68, those are taken that mean the same place among the 98
    (`facekiln.data.landmarks.COMPATIBLE_68`); 5 points hold too few to be of use.
    """
    marks = sample.landmarks
    if marks is None or marks.scheme == "5":
        return np.full((len(sample), 98, 2), np.nan)
    return fill_98(marks.points) if marks.scheme == "68" else convert(marks.points, marks.scheme, "98")


def label_faces(sample: Sample) -> Labels:
    """Return what the faces of a sample teach, but for ignored ones and those without points and pose."""
    points = points_98(sample).copy()
    pose = np.full((len(sample), 3), np.nan) if sample.pose is None else sample.pose
    known: Mask = np.asarray(~np.isnan(points).any(axis=2))
    posed: Mask = np.asarray(~np.isnan(pose).any(axis=1))
    whole, some = np.any(known[:, _BEYOND_68], axis=1), np.any(known, axis=1)
    flags = np.select(
        [whole & posed, whole, some & posed, some],
        [ALL_98_AND_POSE, ALL_98, SOME_68_AND_POSE, SOME_68],
        POSE_ONLY,
    )
    points[np.ix_(~whole, np.array(_INCOMPATIBLE))] = np.nan
    extents = _extents(sample)
    faces = np.flatnonzero((some | posed) & ~sample.ignore)
    return Labels(
        faces,
        points[faces],
        np.where(posed[:, None], pose, np.nan)[faces],
        flags[faces].astype(np.int64),
        sample.boxes[faces],
        extents[faces],
        _boxed(sample, extents)[faces],
        _closed(sample)[faces],
    )


def _extents(sample: Sample) -> Floats:
    boxes = np.full((len(sample), 4), np.nan)
    if sample.landmarks is not None:
        marked = sample.landmarks.labelled.any(axis=1)
        boxes[marked] = around(sample.landmarks.points[marked])
    return boxes


def _boxed(sample: Sample, extents: Floats) -> NDArray[np.bool_]:
    made = (np.abs(sample.boxes - extents) < _SAME).all(axis=1)
    if sample.size is not None:
        edges = np.array([sample.size[1], sample.size[0]] * 2)
        cut = np.clip(extents, 0, edges)  # an audit cuts boxes at the picture's edge
        made |= (np.abs(sample.boxes - cut) < _SAME).all(axis=1)
        made |= (sample.boxes == [0, 0, *edges[2:]]).all(axis=1)
    return np.asarray(~made)


def _closed(sample: Sample) -> NDArray[np.bool_]:
    if sample.landmarks is None:
        return np.zeros(len(sample), bool)
    aspect = eye_aspect(sample.landmarks.points, sample.landmarks.scheme)
    return np.asarray((aspect <= CLOSED).any(axis=1))  # NaN is not
