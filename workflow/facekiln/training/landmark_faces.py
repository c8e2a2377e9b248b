"""All faces of a pool that teach a landmark model, in one table, and how often each is to be seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Crop
from facekiln.data.balance import Balance, balance, inverse_shares
from facekiln.data.sample import Sample
from facekiln.training.landmark_crops import place
from facekiln.training.landmark_labels import Labels, label_faces
from facekiln.training.landmark_settings import CropSettings
from facekiln.training.sources import Pool

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FaceTable:
    """N faces, source by source.

    Attributes:
        samples: int64 [N], the number of each face's sample in its pool.
        squares: float64 [N,3], the square that is cut in use: centre x, centre y, side, pixels.
        points: float64 [N,98,2] pixels, NaN where not known.
        pose: float64 [N,3] radians, NaN where not known.
        flags: int64 [N], the kinds of labels (`facekiln.training.landmark_labels`).
        closed: bool [N], an eye is closed.
        counts: faces per source.
        balance: what they are by pose, size and eyes, and the weights that even it out, [N].
    """

    samples: NDArray[np.int64]
    squares: Floats
    points: Floats
    pose: Floats
    flags: NDArray[np.int64]
    closed: NDArray[np.bool_]
    counts: list[int]
    balance: Balance

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.samples)


def table_of(
    pool: Pool,
    declared: Crop,
    settings: CropSettings,
    *,
    least_face: float = 0.0,
    closed_only: Collection[int] = (),
) -> FaceTable:
    """List the faces of a pool.

    Args:
        pool: of samples; no picture is read.
        declared: the model's crop.
        settings: which square is cut.
        least_face: faces with a smaller square are left out, pixels.
        closed_only: numbers of sources of which only faces with a closed eye are taken.
    """
    rows: list[tuple[int, Labels, Floats]] = []
    reduced: list[Sample] = []
    counts: list[int] = []
    number = 0
    for source, part in enumerate(pool.parts):
        count = 0
        for sample in part:
            labels = label_faces(sample)
            squares = [
                place(labels.boxes[i], labels.extents[i], bool(labels.boxed[i]), declared, settings)
                for i in range(len(labels))
            ]
            where = np.array(squares, np.float64).reshape(-1, 3)
            wanted = (where[:, 2] >= max(least_face, 1.0)) & (labels.closed | (source not in closed_only))
            if wanted.any():
                rows.append((number, labels.take(wanted), where[wanted]))
                reduced.append(sample.take(labels.faces[wanted]))
                count += int(wanted.sum())
            number += 1
        counts.append(count)
    return FaceTable(
        np.array([number for number, labels, _ in rows for _ in range(len(labels))], np.int64),
        np.concatenate([where for _, _, where in rows] or [np.zeros((0, 3))]),
        np.concatenate([labels.points for _, labels, _ in rows] or [np.zeros((0, 98, 2))]),
        np.concatenate([labels.pose for _, labels, _ in rows] or [np.zeros((0, 3))]),
        np.concatenate([labels.flags for _, labels, _ in rows] or [np.zeros(0, np.int64)]),
        np.concatenate([labels.closed for _, labels, _ in rows] or [np.zeros(0, bool)]),
        counts,
        balance(reduced),
    )


def rarity(of: Balance) -> Floats:
    """Return PFLD's weights, [N], mean 1.

    That of a face is the mean over its classes of 1 / (share of the class x classes in use).
    Classes are the bins of pose, size and eyes and, where annotated, the attributes (WFLW: pose, expression,
    illumination, make-up, occlusion, blur). Source: PFLD, arXiv:1902.10859, section 3.1.
    """
    weights = inverse_shares(of.factors, len(of.faces))
    return weights / weights.mean() if len(weights) else weights
