"""Detections of a whole set in one JSON file, in either of two forms.

By picture: `{"0--Parade/0_Parade_marchingband_1_465.jpg": [[x, y, width, height, score], ...], ...}`.
By detection, as COCO's result files: `[{"image_id": "0--Parade/0_Parade...", "bbox": [x, y, width, height],
"score": 0.9}, ...]`; the pictures without a detection are then the ones not named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import read_json as load_json
from facekiln.errors import KilnError
from facekiln.evaluation.detections import (
    Detections,
    aligned,
    picture_index,
    refuse_not_finite,
    unknown_picture,
)
from facekiln.evaluation.wider_truth import Truth


def read_json(path: Path | str, truth: Truth, *, official: bool = False) -> Detections:
    """Read one JSON file.

    Args:
        path: the file; names of pictures are "event/name", with or without ".jpg".
        truth: the ground truth.
        official: a missing picture is told and counts as empty; else it is an error (only by picture).

    Raises:
        KilnError: another form, a row that is not five finite numbers, an unknown, missing or repeated
            picture; names the file and the picture or the detection.
    """
    value = load_json(path)
    places = picture_index(truth)
    if isinstance(value, dict):
        return _by_picture(value, truth, places, path, official)
    if isinstance(value, list):
        return _by_detection(value, truth, places, path)
    raise KilnError(
        "is neither an object of pictures nor a list of detections",
        file=path,
        value=type(value).__name__,
        hint="the two forms are in docs/evaluation.md",
    )


def _by_picture(
    value: dict[str, Any], truth: Truth, places: dict[str, int], path: Path | str, official: bool
) -> Detections:
    index, counts, tables = [], [], []
    for name, rows in value.items():
        picture = places.get(name.removesuffix(".jpg"))
        if picture is None:
            raise unknown_picture(name.removesuffix(".jpg"), truth, path)
        table = _numbers(rows if rows else np.zeros((0, 5)), 2, 5, path, name)
        index.append(picture)
        counts.append(len(table))
        tables.append(table)
    table = np.concatenate([np.zeros((0, 5)), *tables]).T.copy()
    refuse_not_finite(table, path)
    return aligned(truth, index, counts, table, path, missing="none" if official else "refuse")


def _by_detection(value: list[Any], truth: Truth, places: dict[str, int], path: Path | str) -> Detections:
    pictures, rows = [], []
    for number, item in enumerate(value, 1):
        try:
            name, box, score = str(item["image_id"]), item["bbox"], item["score"]
            row = [*box, score]
        except (TypeError, KeyError) as error:
            raise KilnError(
                f"is no detection: {error}",
                file=path,
                where=f"detection {number}",
                limit='{"image_id": "event/name", "bbox": [x, y, width, height], "score": number}',
            ) from None
        picture = places.get(name.removesuffix(".jpg"))
        if picture is None:
            raise unknown_picture(name.removesuffix(".jpg"), truth, path, f"detection {number}")
        pictures.append(picture)
        rows.append(row)
    table = _numbers(rows if rows else np.zeros((0, 5)), 2, 5, path, "bbox and score").T
    refuse_not_finite(table, path)
    counts = np.bincount(np.array(pictures, np.int64), minlength=len(truth.images))
    order = np.argsort(np.array(pictures, np.int64), kind="stable")
    return Detections(counts, np.ascontiguousarray(table[:, order]))


def _numbers(rows: Any, dimensions: int, columns: int, path: Path | str, where: str) -> np.ndarray:
    try:
        table = np.array(rows)
    except ValueError:
        table = np.zeros(0, object)
    if table.ndim != dimensions or table.shape[1] != columns or table.dtype.kind not in "iuf":
        raise KilnError(
            "is no list of rows [x, y, width, height, score]",
            file=path,
            where=where,
            value=repr(rows)[:60],
        )
    return table.astype(np.float64)
