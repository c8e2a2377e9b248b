"""Evaluation records: every figure carries the protocol that it was measured by.

Equal protocol ids mean comparable figures. The backend is not part of the protocol: comparing backends is
what the figures are for; it is in the record's subject and a column of every table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, sha256_of_text, write_json
from facekiln.config import check
from facekiln.errors import KilnError

# The figures that a record of each task must have; more are allowed.
RESULTS = {
    "wider_ap": ("easy", "medium", "hard"),
    "voc_ap": ("ap",),
    "landmarks": ("nme", "failure_rate", "auc"),
}
# The keys of predictions' meta that say what was evaluated.
SUBJECT = ("model", "artifact", "artifact_sha256", "precision", "backend", "backend_version", "emulated")
# Kept where predictions say it: a virtual board's stand-in ran the artifact.
VIRTUAL = "virtual"


@dataclass(frozen=True)
class Stamp:
    """The protocol of an evaluation: all that decides what a figure means.

    Attributes:
        task: "wider_ap", "voc_ap" or "landmarks".
        evaluator: "port", "matlab", "octave", "voc" or "nme".
        evaluator_version: raised by hand when the evaluator's figures can change.
        dataset: name in config/datasets.yaml.
        dataset_digest: hash of its declaration.
        images: how many pictures count.
        resize: how a picture is brought to the input, e.g. "letterbox".
        interpolation: how pixels are resampled, e.g. "linear".
        size: (height, width) of the input in pixels; None where every picture keeps its own.
        score_threshold: least score of a detection.
        nms_iou: greatest IoU of two detections that both stay.
        top_k: detections that enter the suppression.
        keep: detections that leave it.
        extent: 1 where a box from 3 to 3 is one pixel wide in the suppression, else 0.
        boxes: how corners were written: "float", "truncate" or "floor_ceil".
        settings: what else the evaluator was told, in words; empty where it has nothing to be told.
        nms_epsilon: added to each union in the suppression, pixels squared (see `facekiln.vision.nms`).
        truth: hash of all files of ground truth, where `dataset_digest` does not hold them all: WIDER FACE's
            four (see `facekiln.evaluation.wider_truth.truth_digest`); else empty.
    """

    task: str
    evaluator: str
    evaluator_version: str
    dataset: str
    dataset_digest: str
    images: int
    resize: str
    interpolation: str
    size: tuple[int, int] | None
    score_threshold: float
    nms_iou: float
    top_k: int
    keep: int
    extent: int
    boxes: str
    settings: str = ""
    nms_epsilon: float = 0.0
    truth: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return {**asdict(self), "size": list(self.size) if self.size else None}

    def id(self) -> str:
        """Return ten hexadecimal digits; equal ones mean comparable figures."""
        return sha256_of_text(json.dumps(self.as_dict(), sort_keys=True))[:10]

    def words(self) -> str:
        """Return the protocol in words, for a table's foot."""
        size = f"{self.size[0]}x{self.size[1]}" if self.size else "own size"
        told = [f"{self.task} by '{self.evaluator}' {self.evaluator_version} on {self.dataset}"]
        told[0] += f" ({self.images} pictures{f', ground truth {self.truth}' if self.truth else ''})"
        told.append(f"{self.resize} {size}, {self.interpolation}")
        if self.task != "landmarks":  # which suppresses nothing
            suppression = f"NMS {self.nms_iou:g}{' (+1)' if self.extent else ''}"
            suppression += f" (epsilon {self.nms_epsilon:g})" if self.nms_epsilon else ""
            told.append(
                f"score from {self.score_threshold:g}, {suppression}, top {self.top_k}, keep {self.keep}"
            )
            told.append(f"{self.boxes} boxes")
        return "; ".join([*told, self.settings] if self.settings else told)

    def differences(self, other: Stamp) -> dict[str, tuple[Any, Any]]:
        """Return the fields in which two protocols differ, with both values."""
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation record.

    Attributes:
        path: where it was read from.
        stamp: the protocol.
        subject: model, artifact, artifact_sha256, precision, backend, backend_version, emulated.
        results: the figures by name, see `RESULTS`.
        details: whatever else the evaluator tells.
    """

    path: Path
    stamp: Stamp
    subject: dict[str, Any]
    results: dict[str, float]
    details: dict[str, Any]


def stamp_of(
    meta: Mapping[str, Any],
    *,
    task: str,
    evaluator: str,
    evaluator_version: str,
    boxes: str = "float",
    settings: str = "",
    truth: str = "",
) -> Stamp:
    """Return the stamp of an evaluation of predictions with this `meta` (see `facekiln.predictions`).

    Raises:
        KilnError: the meta lacks a key that the protocol needs.
    """
    own: dict[str, Any] = {
        "task": task,
        "evaluator": evaluator,
        "evaluator_version": evaluator_version,
        "boxes": boxes,
        "settings": settings,
        "truth": truth,
    }
    wanted = [field.name for field in fields(Stamp) if field.name not in own]
    _all_there(meta, wanted)
    size = meta["size"]
    values: dict[str, Any] = {name: meta[name] for name in wanted} | {
        "size": (int(size[0]), int(size[1])) if size else None
    }
    # How the predictions of `NAME@INFERENCE` were made is in the other fields.
    values["dataset"] = str(values["dataset"]).partition("@")[0]
    # 1 and 1.0 are the same threshold, and must give the same id.
    values |= {name: float(values[name]) for name in ("score_threshold", "nms_iou", "nms_epsilon")}
    values |= {name: int(values[name]) for name in ("images", "top_k", "keep", "extent")}
    return Stamp(**own | values)


def write_evaluation(
    path: Path | str,
    *,
    stamp: Stamp,
    subject: Mapping[str, Any],
    results: Mapping[str, float],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an evaluation record, checked against workflow/schemas/evaluation.yaml.

    Args:
        path: `results/eval/{evaluator}/{backend}/{artifact}/{dataset}.json`.
        stamp: the protocol.
        subject: predictions' meta; only the keys of `SUBJECT` are kept, and `virtual` where it is so.
        results: the figures that `RESULTS` asks for, and more.
        details: whatever else there is to tell, ready for JSON.

    Raises:
        KilnError: a figure is missing or not finite, or the record breaks the schema.
    """
    _all_there(subject, SUBJECT)
    value = {
        "protocol": stamp.id(),
        "stamp": stamp.as_dict(),
        "subject": {key: subject[key] for key in (*SUBJECT, *([VIRTUAL] if subject.get(VIRTUAL) else []))},
        "results": {key: float(figure) for key, figure in results.items()},
        "details": dict(details or {}),
    }
    _evaluation(value, Path(path))
    write_json(path, value)


def read_evaluation(path: Path | str) -> Evaluation:
    """Read an evaluation record.

    Raises:
        KilnError: missing, not JSON, breaks the schema, or its stamp was changed by hand.
    """
    return _evaluation(read_json(path), Path(path))


def _evaluation(value: Any, path: Path) -> Evaluation:
    check(value, "evaluation", path)
    size = value["stamp"]["size"]
    stamp = Stamp(**{**value["stamp"], "size": (int(size[0]), int(size[1])) if size else None})
    if stamp.id() != value["protocol"]:
        raise KilnError(
            "its protocol id does not belong to its stamp: one of them was edited",
            file=path,
            where="protocol",
            value=value["protocol"],
            limit=stamp.id(),
            hint="evaluate again",
        )
    for name in RESULTS[stamp.task]:
        if not math.isfinite(value["results"].get(name, math.nan)):
            raise KilnError(
                f"an evaluation of '{stamp.task}' needs a finite '{name}'",
                file=path,
                where=f"results.{name}",
                value=value["results"].get(name, "missing"),
                hint="does the dataset have any face that counts?",
            )
    return Evaluation(path, stamp, dict(value["subject"]), dict(value["results"]), dict(value["details"]))


def _all_there(meta: Mapping[str, Any], wanted: Any) -> None:
    missing = [name for name in wanted if name not in meta]
    if missing:
        raise KilnError(
            "the predictions' meta lacks what an evaluation record needs",
            where=", ".join(missing),
            hint="make the predictions again with this release",
        )
