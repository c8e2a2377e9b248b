"""WIDER FACE figures on disk: the evaluation record, plain figures, curves; and declared ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import atomic_path, write_json
from facekiln.data.declared import FILE, Declared, hash_of, load_datasets
from facekiln.errors import KilnError
from facekiln.evaluation.read_any import described, is_predictions
from facekiln.evaluation.stamp import stamp_of, write_evaluation
from facekiln.evaluation.wider import VERSION, Precision
from facekiln.evaluation.wider_truth import SETTINGS, Truth


def declared_of(name: str | None, predictions: Path | None, config: Path) -> Declared:
    """Return a declared dataset by name, or the one that predictions of ours are of.

    Args:
        name: of datasets.yaml; None: as the predictions say.
        predictions: a folder of predictions of ours, if it is one.
        config: the config folder.

    Raises:
        KilnError: neither says it, or it is not declared.
    """
    from facekiln.config import known

    if name is None:
        if predictions is None:
            raise KilnError(
                "the ground truth is not named, and these are no predictions of ours, which name theirs",
                hint="--truth FOLDER with the four .mat files, or --dataset NAME of datasets.yaml",
            )
        name = str(described(predictions)["dataset"])
    datasets = load_datasets(config)
    try:
        return datasets[known(name.partition("@")[0], datasets, "dataset")]
    except KilnError as error:
        raise KilnError(
            error.what,
            file=config / FILE,
            hint=f"--dataset NAME of these, or declare it in {FILE}: facekiln dataset declare --help",
        ) from None


def box_rule_of(predictions: Path, config: Path) -> tuple[str, str]:
    """Return how corners of predictions of ours are written, as the workflow's rules do it, and why.

    Args:
        predictions: the folder.
        config: the config folder; its `box_rules` give the rule by the entry that made the predictions.

    Raises:
        KilnError: no config there, or one without that inference entry.
    """
    from facekiln.config import known, load_config

    entry = described(predictions).get("inference")
    if entry is None:
        return "float", "the predictions name no inference entry"
    try:
        loaded = load_config(config)
        known(str(entry), loaded.inference, "inference entry")
    except KilnError as error:
        raise KilnError(
            f"does not tell how boxes of inference entry '{entry}' are written: {error.what}",
            file=config / "config.yaml",
            hint="--config FOLDER, or say it: --boxes float|truncate|floor_ceil",
        ) from error
    return loaded.box_rules.get(str(entry), "float"), f"config.yaml's for inference entry '{entry}'"


def truth_folder(declared: Declared) -> Path:
    """Return the folder that holds a declared dataset's four .mat files.

    Raises:
        KilnError: it is no WIDER FACE dataset, it is not here, or the file that it pins is another one.
    """
    if declared.kind != "wider_mat":
        raise KilnError(
            f"dataset '{declared.name}' is no WIDER FACE validation set",
            value=f"kind: {declared.kind}",
            limit="kind: wider_mat",
            hint="for any dataset with boxes: facekiln eval voc",
        )
    path = declared.files()[0]
    if (found := hash_of(path)) != declared.annotations[0].sha256:
        raise KilnError(
            f"is not what dataset '{declared.name}' declares",
            file=path,
            value=f"sha256 {found}",
            limit=f"sha256 {declared.annotations[0].sha256}",
            hint="fetch the annotation again, or declare the file that you have",
        )
    return path.parent


def refuse_foreign(predictions: Path, declared: Declared) -> None:
    """Refuse to record figures of detections that do not say what made them, or of another dataset.

    Raises:
        KilnError: the folder is not one of ours, or the dataset's declaration has changed since.
    """
    if not is_predictions(predictions):
        raise KilnError(
            "is no folder of predictions of ours, so a record could not say what made them",
            file=predictions,
            hint="use --json for plain figures, or make predictions: facekiln predict run --help",
        )
    meta = described(predictions)
    if meta["dataset_digest"] != declared.digest():
        raise KilnError(
            f"is of dataset '{meta['dataset']}' as it was declared then, not of '{declared.name}' as now",
            file=predictions,
            value=meta["dataset_digest"],
            limit=declared.digest(),
            hint="predict again",
        )


def write_figures(path: Path, precision: Precision, predictions: Path, truth: Truth) -> None:
    """Write protocol, ground truth, figures and counts as JSON; an undefined figure is null."""
    write_json(
        path,
        {
            "protocol": precision.protocol,
            "version": VERSION,
            "truth": truth.digest,
            "predictions": str(predictions),
            "ap": {name: None if np.isnan(value) else value for name, value in precision.ap.items()},
            **_details(precision),
        },
    )


def write_curves(path: Path, precision: Precision) -> None:
    """Write recall, precision, proposals and found, each [3, 1000] by setting and threshold, as .npz."""
    recall, exactness = precision.curves()
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez(
            stream,
            settings=np.array(SETTINGS),
            recall=recall,
            precision=exactness,
            proposals=precision.proposals,
            found=precision.found,
        )


def write_wider_evaluation(
    path: Path, precision: Precision, predictions: Path, truth: Truth, boxes: str
) -> None:
    """Write the evaluation record of predictions of ours.

    Raises:
        KilnError: a setting has no face that counts, or the predictions' description lacks a key.
    """
    meta = described(predictions)
    write_evaluation(
        path,
        stamp=stamp_of(
            {**meta, "images": len(truth.images)},
            task="wider_ap",
            evaluator=precision.protocol,
            evaluator_version=VERSION,
            boxes=boxes,
            truth=truth.digest,
        ),
        subject=meta,
        results=precision.ap,
        details=_details(precision),
    )


def _details(precision: Precision) -> dict[str, Any]:
    return {
        "detections": precision.detections,
        "faces": dict(zip(SETTINGS, precision.totals.tolist(), strict=True)),
        "found": dict(zip(SETTINGS, precision.found[:, -1].tolist(), strict=True)),
    }
