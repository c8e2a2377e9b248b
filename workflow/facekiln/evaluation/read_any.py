"""Which reader a path of detections needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facekiln.artifact import read_json
from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections
from facekiln.evaluation.wider_truth import Truth

# The description in a folder of predictions of ours, see `facekiln.predictions.store`.
META_FILE = "predictions.json"
_NEXT = "docs/evaluation.md has the forms; predictions of ours: facekiln predict run --help"


def is_predictions(path: Path) -> bool:
    """Tell whether a folder was written by `facekiln predict`."""
    return (path / META_FILE).is_file()


def refuse_other_than_predictions(folder: Path) -> None:
    """Refuse what is no folder of predictions of ours.

    Raises:
        KilnError: says whether it is missing, empty or something else.
    """
    if is_predictions(folder):
        return
    what = "is no folder of predictions of ours"
    if not folder.exists():
        what = "is not here"
    elif folder.is_dir() and not any(folder.iterdir()):
        what = "is an empty folder"
    raise KilnError(
        what,
        file=folder,
        limit=f"a folder with {META_FILE}",
        hint="make one: facekiln predict run --help, or snakemake results/predictions/...; result files of "
        "others are judged by: facekiln eval wider",
    )


def described(folder: Path) -> dict[str, Any]:
    """Return what predictions of ours say about themselves, `predictions.json`.

    Raises:
        KilnError: there are none, or it does not say of which dataset they are.
    """
    refuse_other_than_predictions(folder)
    meta = read_json(folder / META_FILE)
    missing = [key for key in ("dataset", "dataset_digest") if not isinstance(meta, dict) or key not in meta]
    if missing:
        raise KilnError(
            "is no description of predictions",
            file=folder / META_FILE,
            where=", ".join(missing),
            value="missing",
            hint="predict again: facekiln predict run --help",
        )
    return dict(meta)


def _events_of(folder: Path) -> Path:
    """Return where the event folders are: Cambricon's `infer` puts `pred_txts` (and `images`) above them.

    It repeats the pictures' path below the folder that it was given: `pred_txts/images/{event}` of WIDER_val.
    """
    place = folder / "pred_txts" if (folder / "pred_txts").is_dir() else folder
    entries = [entry for entry in place.iterdir() if not entry.name.startswith(".")]
    if [entry.name for entry in entries] == ["images"] and entries[0].is_dir():
        return entries[0]
    return place


def read_any(path: Path, truth: Truth, *, official: bool, boxes: str = "float") -> Detections:
    """Read event folders of text files (`pred_txts` too), predictions of ours, one .json or one .parquet.

    Args:
        path: the folder or file.
        truth: the ground truth.
        official: rules of the official tool for missing and malformed files, see the readers.
        boxes: how corners of predictions of ours are written, see `from_predictions`.

    Raises:
        KilnError: nothing there, or no form that is known; and what the reader of the form raises.
    """
    forms = "a folder of event folders, a folder of predictions, NAME.json or NAME.parquet"
    if path.is_dir():
        if is_predictions(path):
            from facekiln.evaluation.detections import from_predictions
            from facekiln.predictions.store import read_predictions

            return from_predictions(read_predictions(path), truth, boxes=boxes, file=path)
        if all(entry.name.startswith(".") for entry in path.iterdir()):
            raise KilnError("is an empty folder", file=path, limit=forms, hint=_NEXT)
        from facekiln.evaluation.read_text import read_text

        return read_text(_events_of(path), truth, official=official)
    if path.is_file() and path.suffix == ".json":
        from facekiln.evaluation.read_json import read_json as read_detections

        return read_detections(path, truth, official=official)
    if path.is_file() and path.suffix == ".parquet":
        from facekiln.evaluation.read_parquet import read_parquet

        return read_parquet(path, truth)
    raise KilnError(
        "is no form of detections" if path.exists() else "is not here",
        file=path,
        limit=forms,
        hint=_NEXT,
    )
