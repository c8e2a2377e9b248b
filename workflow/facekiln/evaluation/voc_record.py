"""Average precision of predictions of ours on a declared dataset, and its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import atomic_path
from facekiln.errors import KilnError
from facekiln.evaluation.read_any import refuse_other_than_predictions
from facekiln.evaluation.stamp import Stamp, stamp_of, write_evaluation
from facekiln.evaluation.voc import Judged, judge
from facekiln.evaluation.wider_record import declared_of, refuse_foreign

# Raised when a figure can change.
VERSION = "1"


@dataclass(frozen=True, eq=False)
class VocFigures:
    """The figures of one evaluation, with its protocol and what was evaluated."""

    ap: float
    truths: int
    found: int
    detections: int
    stamp: Stamp
    meta: dict[str, Any]
    judged: Judged

    def write(self, path: Path) -> None:
        """Write the evaluation record.

        Raises:
            KilnError: the dataset has no face that counts.
        """
        write_evaluation(
            path,
            stamp=self.stamp,
            subject=self.meta,
            results={"ap": self.ap},
            details={"faces": self.truths, "found": self.found, "detections": self.detections},
        )

    def write_curves(self, path: Path) -> None:
        """Write recall, precision and score of each detection that counts, by falling score, as .npz."""
        recall, precision = self.judged.curve()
        with atomic_path(path) as part, part.open("wb") as stream:
            np.savez(stream, recall=recall, precision=precision, scores=self.judged.scores)


def evaluate_voc(folder: Path, dataset: str | None, config: Path, iou: float, boxes: str) -> VocFigures:
    """Evaluate a folder of predictions of ours.

    Args:
        folder: as `facekiln predict` writes it.
        dataset: name in datasets.yaml; None: the predictions' own.
        config: the config folder.
        iou: least overlap of a right box, above 0 and at most 1; no pixel is added to sides.
        boxes: "float", "truncate" or "floor_ceil", see `facekiln.evaluation.detections.from_predictions`.

    Raises:
        KilnError: no predictions there, another dataset than they were made of, pictures missing, NaN or
            infinity in a box or score, or an IoU out of range.
    """
    from facekiln.data.declared import open_dataset
    from facekiln.evaluation.detections import refuse_not_finite, written_boxes
    from facekiln.predictions.store import read_predictions

    if not 0 < iou <= 1:
        raise KilnError("is no overlap", where="--iou", value=iou, limit="above 0, at most 1")
    refuse_other_than_predictions(folder)
    predictions = read_predictions(folder)
    declared = declared_of(dataset, folder, config)
    refuse_foreign(folder, declared)
    samples = open_dataset(declared)
    places = {name: at for at, name in enumerate(predictions.images)}
    missing = [name for name in samples.sources if name not in places]
    if missing or len(places) != len(samples):
        raise KilnError(
            f"has predictions of {len(places)} pictures, and none of {len(missing)} of dataset "
            f"'{declared.name}'",
            file=folder,
            value=", ".join(missing[:3]),
            limit=f"{len(samples)} pictures",
            hint="predict again",
        )
    xywh = written_boxes(predictions.boxes, boxes)
    # NaN would sort before every score and shrink the count, and the area would still look like one.
    refuse_not_finite(np.concatenate([xywh, predictions.scores[None]]), folder, predictions)
    corners = np.concatenate([xywh[:2], xywh[:2] + xywh[2:]]).T
    detections, truths, ignored = [], [], []
    for sample in samples:
        at = places[sample.source]
        part = slice(int(predictions.starts[at]), int(predictions.starts[at + 1]))
        detections.append((corners[part], predictions.scores[part].astype(np.float64)))
        truths.append(sample.boxes)
        ignored.append(sample.ignore)
    judged = judge(detections, truths, ignored=ignored, iou=iou)
    figures = judged.precision()
    stamp = stamp_of(
        predictions.meta,
        task="voc_ap",
        evaluator="voc",
        evaluator_version=VERSION,
        boxes=boxes,
        settings=f"IoU {iou:g}",
    )
    return VocFigures(
        ap=figures.ap,
        truths=figures.truths,
        found=figures.found,
        detections=len(predictions.scores),
        stamp=stamp,
        meta=predictions.meta,
        judged=judged,
    )
