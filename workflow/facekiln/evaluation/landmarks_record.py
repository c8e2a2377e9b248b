"""Landmark predictions against a dataset: which face is which, the figures, their subsets and the curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import atomic_path
from facekiln.data.sample import Dataset, Sample
from facekiln.errors import KilnError
from facekiln.evaluation.landmarks import (
    NORMALISERS,
    VERSION,
    Curve,
    Floats,
    curve,
    in_one_scheme,
    normaliser,
    point_errors,
    pose_errors,
    subsets,
)
from facekiln.evaluation.read_any import refuse_other_than_predictions
from facekiln.evaluation.stamp import stamp_of, write_evaluation
from facekiln.predictions.store import Predictions, read_predictions
from facekiln.progress import progress_bar
from facekiln.vision.nms import best_pairs

# A prediction belongs to the annotated face that its box overlaps by at least this; where the faces were
# cut by annotated boxes it is the same box.
MATCH_IOU = 0.5


@dataclass(frozen=True, eq=False)
class LandmarkFigures:
    """What an evaluation of landmarks gives.

    Attributes:
        results: figures of a record: nme, failure_rate, auc; nme_{normaliser} of each; pose_mae_deg and its
            three angles where the dataset and the model have a pose.
        details: counts, subsets.
        curve: of all faces, by the chosen normaliser.
    """

    results: dict[str, float]
    details: dict[str, Any]
    curve: Curve


@dataclass(frozen=True, eq=False)
class _Faces:
    """The faces of a dataset that count, and what was predicted for each (NaN where nothing was)."""

    errors: dict[str, Floats]
    pose: Floats | None
    pose_errors: Floats | None
    attributes: dict[str, Floats]
    found: np.ndarray
    unlabelled_points: int
    scheme: str


def evaluate_landmarks(
    predictions: Predictions, dataset: Dataset, *, kind: str = "inter_ocular", limit: float = 0.1
) -> LandmarkFigures:
    """Measure predicted landmarks.

    Ignored faces and faces without landmarks or without a normaliser do not count, and are told. A face that
    nothing was predicted for counts as a failure and is left out of the mean.

    Args:
        predictions: with `points`, in pixels.
        dataset: with landmarks; `predictions.images` are its sources or some of them.
        kind: the normaliser of failure rate, AUC and `nme`, one of `NORMALISERS`.
        limit: the failure limit.

    Raises:
        KilnError: no landmarks in one of the two, a picture the dataset lacks, or not a single face to count.
    """
    if predictions.points is None:
        raise KilnError(
            "these predictions have no landmarks",
            file=predictions.meta.get("artifact"),
            hint="evaluate a landmark model, or a detector that gives landmarks",
        )
    faces = _gather(predictions, dataset)
    errors = faces.errors[kind]
    whole = curve(errors, limit)
    if not whole.faces or not np.isfinite(errors).any():
        raise KilnError(
            f"not one face of dataset '{dataset.name}' has both annotated and predicted landmarks",
            value=f"{len(errors)} faces, {int(faces.found.sum())} of them predicted",
            hint="are these the predictions of that dataset?",
        )
    results = whole.figures() | {
        f"nme_{name}": value
        for name in NORMALISERS
        if np.isfinite(value := curve(faces.errors[name], limit).nme)
    }
    counts: dict[str, Any] = {
        "faces": whole.faces,
        "without_normaliser_or_points": int(np.isnan(errors).sum()),
        "lost": int(np.isinf(errors).sum()),
        "points_without_annotation": faces.unlabelled_points,
    }
    if faces.pose_errors is not None:
        known_pose = np.isfinite(faces.pose_errors).all(axis=1)
        counts["with_pose"] = int(known_pose.sum())
        if known_pose.any():
            means = faces.pose_errors[known_pose].mean(axis=0)
            results["pose_mae_deg"] = float(means.mean())
            results |= dict(
                zip(("yaw_mae_deg", "pitch_mae_deg", "roll_mae_deg"), map(float, means), strict=True)
            )
    details = {
        "normaliser": kind,
        "failure_limit": limit,
        "scheme": faces.scheme,
        "counts": counts,
        "subsets": _subsets(faces, errors, limit),
    }
    return LandmarkFigures(results, details, whole)


def evaluate_folder(
    folder: Path, dataset: str | None, config: Path, kind: str, limit: float
) -> tuple[LandmarkFigures, dict[str, Any]]:
    """Evaluate a folder of predictions on its declared dataset.

    Args:
        folder: as `facekiln.predictions.store.write_predictions` writes it.
        dataset: name in datasets.yaml; None: the predictions' own.
        config: the config folder.
        kind: the normaliser.
        limit: the failure limit.

    Returns:
        The figures, and the predictions' meta.

    Raises:
        KilnError: no predictions there, or of a dataset that was declared otherwise, or with NaN where a
            number should be; see `refuse_not_finite` and `evaluate_landmarks`.
    """
    from facekiln.data.declared import open_dataset
    from facekiln.evaluation.wider_record import declared_of, refuse_foreign

    refuse_other_than_predictions(folder)
    predictions = read_predictions(folder)
    declared = declared_of(dataset, folder, config)
    refuse_foreign(folder, declared)
    listing = open_dataset(declared)
    missing = set(listing.sources) - set(predictions.images)
    if missing:
        raise KilnError(
            f"has no predictions of {len(missing)} pictures of dataset '{declared.name}'",
            file=folder,
            value=", ".join(sorted(missing)[:3]),
            limit=f"{len(listing)} pictures",
            hint="predict again",
        )
    refuse_not_finite(predictions, folder)
    return evaluate_landmarks(predictions, listing, kind=kind, limit=limit), predictions.meta


def refuse_not_finite(predictions: Predictions, file: Path | str) -> None:
    """Refuse NaN and infinity in boxes, points and poses.

    Points of a face whose box has no area may be NaN: no square could be cut around it, so that nothing was
    asked of the network, and the face is lost. Anywhere else the network gave no number; taken as lost, such
    a face would leave the mean, and the figure would look better for it.

    Raises:
        KilnError: names the file, the picture and the face.
    """
    boxes = predictions.boxes
    asked = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    for name, values in (("boxes", boxes), ("points", predictions.points), ("pose", predictions.pose)):
        if values is None:
            continue
        wrong = ~np.isfinite(values.reshape(len(boxes), -1)).all(axis=1)
        faces = np.flatnonzero(wrong if name == "boxes" else wrong & asked)
        if faces.size:
            picture = int(np.searchsorted(predictions.starts, faces[0], side="right")) - 1
            face = int(faces[0] - predictions.starts[picture])
            raise KilnError(
                f"is no finite number ({faces.size} of {len(boxes)} faces)",
                file=file,
                where=f"{predictions.images[picture]}: face {face + 1}, {name}",
                value=values[faces[0]].ravel()[:4].tolist(),
                hint="compare what made it with its parent: facekiln parity compare --help; or correct a box "
                "that is far larger than its picture; then predict again",
            )


def write_record(path: Path, figures: LandmarkFigures, meta: dict[str, Any]) -> None:
    """Write the evaluation record; normaliser and failure limit are part of its protocol."""
    stamp = stamp_of(
        meta,
        task="landmarks",
        evaluator="nme",
        evaluator_version=VERSION,
        settings=f"{figures.details['normaliser']}, failure above {figures.details['failure_limit']:g}",
    )
    write_evaluation(path, stamp=stamp, subject=meta, results=figures.results, details=figures.details)


def write_curve(path: Path, figures: LandmarkFigures) -> None:
    """Write the CED curve, `limits` and `shares`, as .npz."""
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez(stream, limits=figures.curve.limits, shares=figures.curve.shares)


def _subsets(faces: _Faces, errors: Floats, limit: float) -> dict[str, dict[str, float]]:
    told = {}
    for name, mask in subsets(faces.attributes, faces.pose).items():
        part = curve(errors[mask], limit)
        if np.isfinite(part.nme):
            told[name] = {"faces": float(part.faces), **part.figures()}
    return told


def _gather(predictions: Predictions, dataset: Dataset) -> _Faces:
    places = {source: index for index, source in enumerate(dataset.sources)}
    samples: list[Sample] = []
    points: list[Floats] = []
    poses: list[Floats] = []
    found: list[bool] = []
    assert predictions.points is not None
    count = predictions.points.shape[1]
    with progress_bar(len(predictions), f"landmarks of {dataset.name}", "picture") as bar:
        for index, source in enumerate(predictions.images):
            if source not in places:
                raise KilnError(
                    f"dataset '{dataset.name}' has no such picture",
                    where=source,
                    hint="evaluate on the dataset that was predicted",
                )
            sample = dataset[places[source]]
            sample = sample.take(np.flatnonzero(~sample.ignore))
            if sample.landmarks is None and len(sample):
                raise KilnError(f"dataset '{dataset.name}' has no landmarks", where=source)
            own = predictions.of(index)
            matched = {a: b for a, b, _ in best_pairs(sample.boxes, own.boxes.astype(np.float64), MATCH_IOU)}
            for face in range(len(sample)):
                at = matched.get(face)
                found.append(at is not None)
                assert own.points is not None
                points.append(np.full((count, 2), np.nan) if at is None else own.points[at].astype(float))
                poses.append(
                    np.full(3, np.nan) if at is None or own.pose is None else own.pose[at].astype(float)
                )
            samples.append(sample)
            bar.update(1)
    return _measure([s for s in samples if len(s)], points, poses, found, predictions.pose is not None)


def _measure(
    samples: list[Sample], points: list[Floats], poses: list[Floats], found: list[bool], has_pose: bool
) -> _Faces:
    if not samples:
        raise KilnError("the predicted pictures have not a single face that counts")
    landmarks = [sample.landmarks for sample in samples if sample.landmarks]
    scheme, boxes = landmarks[0].scheme, np.concatenate([sample.boxes for sample in samples])
    annotated = np.concatenate([item.points for item in landmarks])
    predicted, truth, common = in_one_scheme(np.stack(points), annotated, scheme)
    distance = point_errors(predicted, truth)
    known_pose = all(sample.pose is not None for sample in samples)
    pose = (
        np.concatenate([sample.pose for sample in samples if sample.pose is not None]) if known_pose else None
    )
    names = set.intersection(*(set(sample.attributes) for sample in samples))
    return _Faces(
        # The distance is of the annotation's own scheme: the outer eye corners, also where five points are
        # compared.
        errors={kind: distance / normaliser(annotated, boxes, scheme, kind) for kind in NORMALISERS},
        pose=pose,
        pose_errors=pose_errors(np.stack(poses), pose) if pose is not None and has_pose else None,
        attributes={
            name: np.concatenate([np.asarray(sample.attributes[name], np.float64) for sample in samples])
            for name in sorted(names)
            if all(np.asarray(sample.attributes[name]).dtype.kind in "biuf" for sample in samples)
        },
        found=np.array(found, bool),
        unlabelled_points=int(np.isnan(truth).any(axis=2).sum()),
        scheme=common,
    )
