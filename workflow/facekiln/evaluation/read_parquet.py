"""Detections of a whole set in one Parquet file: columns image, x, y, width, height, score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections, picture_index, refuse_not_finite, unknown_picture
from facekiln.evaluation.wider_truth import Truth

COLUMNS = ("image", "x", "y", "width", "height", "score")
# Read at once, so that the file is never whole in memory beside the table.
_ROWS = 1 << 16


def read_parquet(path: Path | str, truth: Truth) -> Detections:
    """Read one Parquet file: a row per detection, in the order in which each picture's are judged.

    A picture without detections has no row, so no picture is ever missing.

    Args:
        path: the file; `image` is "event/name", with or without ".jpg".
        truth: the ground truth.

    Raises:
        KilnError: pyarrow is not installed; the file is damaged, lacks a column or has another type in it;
            a picture is unknown; a number is missing or not finite.
    """
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError as error:
        raise KilnError(
            "Parquet files need pyarrow, which is not installed",
            file=path,
            hint="pip install 'facekiln[parquet]', or give the detections as text files or JSON",
        ) from error
    try:
        with pq.ParquetFile(path, read_dictionary=["image"]) as file:
            _check_columns(file.schema_arrow, pyarrow.types, path)
            places = picture_index(truth)
            rows = file.metadata.num_rows
            table, pictures, at = np.empty((5, rows)), np.empty(rows, np.int64), 0
            for batch in file.iter_batches(_ROWS, columns=list(COLUMNS), use_threads=False):
                for name in COLUMNS:
                    if batch[name].null_count:
                        raise KilnError("has rows without a value", file=path, where=name)
                part = slice(at, at + batch.num_rows)
                for row, name in enumerate(COLUMNS[1:]):
                    table[row, part] = batch[name].to_numpy()
                lookup = [_place(name, places, truth, path) for name in batch["image"].dictionary.to_pylist()]
                pictures[part] = np.array(lookup, np.int64)[batch["image"].indices.to_numpy()]
                at = part.stop
    except OSError as error:
        raise KilnError(f"cannot be read: {error}", file=path) from error
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise KilnError(f"is no Parquet file: {error}", file=path) from error
    refuse_not_finite(table, path)
    counts = np.bincount(pictures, minlength=len(truth.images))
    if (pictures[1:] < pictures[:-1]).any():
        table = table[:, np.argsort(pictures, kind="stable")]
    return Detections(counts, table)


def _place(name: str, places: dict[str, int], truth: Truth, path: Path | str) -> int:
    stem = name.removesuffix(".jpg")
    if stem not in places:
        raise unknown_picture(stem, truth, path)
    return places[stem]


def _check_columns(schema: Any, types: Any, path: Path | str) -> None:
    for name in COLUMNS:
        if name not in schema.names:
            raise KilnError("lacks a column", file=path, where=name, limit=", ".join(COLUMNS))
        kind = schema.field(name).type
        if name == "image":
            kind = kind.value_type if types.is_dictionary(kind) else kind
            fits, what = types.is_string(kind) or types.is_large_string(kind), "names"
        else:
            fits, what = types.is_floating(kind) or types.is_integer(kind), "numbers"
        if not fits:
            raise KilnError(f"is no column of {what}", file=path, where=name, value=str(kind))
