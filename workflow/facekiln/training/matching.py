"""Which prior learns which face, and what it has to say: numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.vision.decode import encode_boxes, encode_landmarks
from facekiln.vision.nms import iou_matrix

FACE, BACKGROUND, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class Matching:
    """Which priors learn a face.

    Attributes:
        overlap: IoU from which a prior is a face's.
        least_overlap: IoU that a face's best prior needs.
        least_face: faces smaller than this many pixels are left out.
    """

    overlap: float
    least_overlap: float
    least_face: float


@dataclass(frozen=True)
class Targets:
    """What each of N priors should say about one picture.

    Attributes:
        labels: int8 [N]: 1 face, 0 background, -1 left out of the loss.
        loc: float32 [N,4] encoded box; zeros where the label is not 1.
        landms: float32 [N,10] encoded landmarks; zeros where the label is not 1.
        pointed: bool [N]: the label is 1 and the face has landmarks.
    """

    labels: NDArray[np.int8]
    loc: NDArray[np.float32]
    landms: NDArray[np.float32]
    pointed: NDArray[np.bool_]


def corners(priors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return priors [N,4] of centre and side as boxes [N,4] of x1, y1, x2, y2."""
    centre, half = priors[:, :2].astype(np.float64), priors[:, 2:].astype(np.float64) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def match(
    boxes: NDArray[np.float64],
    landmarks: NDArray[np.float64],
    ignored: NDArray[np.float64],
    priors: NDArray[np.float32],
    prior_boxes: NDArray[np.float64],
    variances: tuple[float, float],
    settings: Matching,
) -> Targets:
    """Give faces to priors as SSD and Pytorch_Retinaface do.

    A prior learns the face that it overlaps most, from `settings.overlap` on; moreover the best prior of each
    face learns it from `settings.least_overlap` on. Background priors on an ignored face are left out.

    Args:
        boxes: [n,4] x1, y1, x2, y2, over the picture's width and height, with positive sides.
        landmarks: [n,5,2], likewise; NaN where a face has none.
        ignored: [m,4], likewise.
        priors: [N,4] centre and side, likewise.
        prior_boxes: the same as `corners` gives them.
        variances: of centres and sides.
        settings: the overlaps.
    """
    count = len(priors)
    labels, pointed = np.zeros(count, np.int8), np.zeros(count, bool)
    loc, landms = np.zeros((count, 4), np.float32), np.zeros((count, 10), np.float32)
    if len(ignored):
        x, y = priors[:, :1], priors[:, 1:2]
        on = (x >= ignored[:, 0]) & (x <= ignored[:, 2]) & (y >= ignored[:, 1]) & (y <= ignored[:, 3])
        labels[on.any(axis=1)] = IGNORED
    if not len(boxes):
        return Targets(labels, loc, landms, pointed)

    overlap = iou_matrix(prior_boxes, boxes)
    face_of, best = overlap.argmax(axis=1), overlap.max(axis=1)
    best_prior = overlap.argmax(axis=0)
    for face, prior in enumerate(best_prior.tolist()):
        if overlap[prior, face] >= settings.least_overlap:
            face_of[prior], best[prior] = face, 2.0
    matched = best >= settings.overlap
    if not matched.any():
        return Targets(labels, loc, landms, pointed)
    faces = face_of[matched]
    labels[matched] = FACE
    loc[matched] = encode_boxes(boxes[faces], priors[matched], variances)
    landms[matched] = np.nan_to_num(encode_landmarks(landmarks[faces], priors[matched], variances))
    pointed[matched] = np.isfinite(landmarks[faces]).reshape(len(faces), -1).all(axis=1)
    return Targets(labels, loc, landms, pointed)
