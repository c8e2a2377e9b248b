"""Whether two stages find the same faces: the gate that matters where single figures may differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from facekiln.vision.detect import Faces
from facekiln.vision.nms import iou_matrix


@dataclass(frozen=True)
class Agreement:
    """How a child's faces agree with its parent's over all pictures.

    Attributes:
        parent: faces that the parent found.
        child: faces that the child found.
        matched: pairs with IoU 0.5 or more, each face used once, best pairs first.
        mean_iou: mean IoU of the pairs; 1 where there is none.
    """

    parent: int
    child: int
    matched: int
    mean_iou: float

    @property
    def found(self) -> float:
        """Share of the parent's faces that the child finds too; 1 where the parent finds none."""
        return self.matched / self.parent if self.parent else 1.0

    @property
    def invented(self) -> float:
        """Share of the child's faces that the parent has not."""
        return (self.child - self.matched) / self.child if self.child else 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return {**asdict(self), "found": self.found, "invented": self.invented}


def agreement(pairs: list[tuple[Faces, Faces]], iou: float = 0.5) -> Agreement:
    """Match the faces of (parent, child) picture by picture.

    Args:
        pairs: per picture the parent's faces and the child's.
        iou: least IoU of a match.
    """
    matched, ious = 0, []
    for parent, child in pairs:
        if not len(parent.scores) or not len(child.scores):
            continue
        overlaps = iou_matrix(parent.boxes, child.boxes)
        while overlaps.max() >= iou:
            row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            ious.append(float(overlaps[row, column]))
            overlaps[row, :] = -1
            overlaps[:, column] = -1
            matched += 1
    return Agreement(
        parent=sum(len(parent.scores) for parent, _ in pairs),
        child=sum(len(child.scores) for _, child in pairs),
        matched=matched,
        mean_iou=float(np.mean(ious)) if ious else 1.0,
    )
