"""Which reader a path of detections needs."""

from __future__ import annotations

from pathlib import Path

from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections
from facekiln.evaluation.wider_truth import Truth

# The description in a folder of predictions of ours, see `facekiln.predictions.store`.
META_FILE = "predictions.json"


def is_predictions(path: Path) -> bool:
    """Tell whether a folder was written by `facekiln predict`."""
    return (path / META_FILE).is_file()


def read_any(path: Path, truth: Truth, *, official: bool, boxes: str = "float") -> Detections:
    """Read event folders of text files, a folder of predictions of ours, one .json or one .parquet.

    Args:
        path: the folder or file.
        truth: the ground truth.
        official: rules of the official tool for missing and malformed files, see the readers.
        boxes: how corners of predictions of ours are written, see `from_predictions`.

    Raises:
        KilnError: nothing there, or no form that is known; and what the reader of the form raises.
    """
    if path.is_dir():
        if is_predictions(path):
            from facekiln.evaluation.detections import from_predictions
            from facekiln.predictions.store import read_predictions

            return from_predictions(read_predictions(path), truth, boxes=boxes, file=path)
        from facekiln.evaluation.read_text import read_text

        return read_text(path, truth, official=official)
    if path.is_file() and path.suffix == ".json":
        from facekiln.evaluation.read_json import read_json

        return read_json(path, truth, official=official)
    if path.is_file() and path.suffix == ".parquet":
        from facekiln.evaluation.read_parquet import read_parquet

        return read_parquet(path, truth)
    raise KilnError(
        "is no form of detections" if path.exists() else "is not here",
        file=path,
        limit="a folder of event folders, a folder of predictions, NAME.json or NAME.parquet",
    )
