"""Whether two stages find the same faces: the gate that matters where single figures may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.nms import best_pairs

# A face is lost or invented only if its score crosses the threshold by more than this; rounding alone would
# else fail a picture with a face at the threshold.
SCORE_MARGIN = 0.1


@dataclass(frozen=True)
class Agreement:
    """How a child's faces agree with its parent's over all pictures.

    Attributes:
        parent: faces that the parent finds at the threshold.
        child: faces that the child finds at the threshold.
        found: share of the parent's that the child has, at the threshold less the margin; 1 without any,
            which `facekiln.parity.gates.judge_faces` takes for no pass.
        invented: share of the child's that the parent has not, even at the threshold less the margin.
        mean_iou: mean IoU of the matched pairs; 1 where there is none.
    """

    parent: int
    child: int
    found: float
    invented: float
    mean_iou: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def agreement(pairs: list[tuple[Faces, Faces]], threshold: float, iou: float = 0.5) -> Agreement:
    """Match the faces of (parent, child) picture by picture, each face used once, best overlaps first.

    Args:
        pairs: per picture both stages' faces with scores from `threshold - SCORE_MARGIN` on.
        threshold: the score from which a face counts.
        iou: least IoU of a match.
    """
    parents = children = found = confirmed = 0
    ious: list[float] = []
    for parent, child in pairs:
        own, others = parent.scores >= threshold, child.scores >= threshold
        parents, children = parents + int(own.sum()), children + int(others.sum())
        for row, column, overlap in best_pairs(parent.boxes, child.boxes, iou):
            found += bool(own[row])
            confirmed += bool(others[column])
            if own[row] or others[column]:
                ious.append(overlap)
    return Agreement(
        parent=parents,
        child=children,
        found=found / parents if parents else 1.0,
        invented=(children - confirmed) / children if children else 0.0,
        mean_iou=float(np.mean(ious)) if ious else 1.0,
    )


def faces_near_threshold(
    outputs: Mapping[str, NDArray[np.float32]], model: Model, size: tuple[int, int]
) -> Faces:
    """Return the faces from a little under the model's threshold on, as `agreement` wants them.

    Args:
        outputs: raw, by name, float32 [1, N, values].
        model: whose priors and thresholds.
        size: (height, width) of the input, pixels.
    """
    lower = replace(model.decode, score_threshold=max(0.0, model.decode.score_threshold - SCORE_MARGIN))
    return faces_from_outputs(outputs, model, size, lower)


def agreement_of_outputs(
    parents: Sequence[Mapping[str, NDArray[np.float32]]],
    children: Sequence[Mapping[str, NDArray[np.float32]]],
    model: Model,
    size: tuple[int, int],
) -> Agreement:
    """Return how the faces in outputs agree, picture by picture, at the model's own threshold.

    Args:
        parents, children: raw outputs of the same pictures, as `faces_near_threshold` takes them.
        model: a detector.
        size: (height, width) of the input, pixels.
    """
    pairs = [
        (faces_near_threshold(parent, model, size), faces_near_threshold(child, model, size))
        for parent, child in zip(parents, children, strict=True)
    ]
    return agreement(pairs, model.decode.score_threshold)
