"""Detections of a whole set in one Parquet file: columns image, x, y, width, height, score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections, picture_index, refuse_not_finite, unknown_picture
from facekiln.evaluation.wider_truth import Truth

COLUMNS = ("image", "x", "y", "width", "height", "score")


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
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise KilnError(
            "Parquet files need pyarrow, which is not installed",
            file=path,
            hint="pip install 'facekiln[parquet]', or give the detections as text files or JSON",
        ) from error
    try:
        there = pq.read_schema(path).names
        found = pq.read_table(path, columns=[n for n in COLUMNS if n in there], use_threads=False)
    except OSError as error:
        raise KilnError(f"cannot be read: {error}", file=path) from error
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise KilnError(f"is no Parquet file: {error}", file=path) from error
    table = np.empty((5, found.num_rows))
    for name in COLUMNS:
        if name not in found.column_names:
            raise KilnError("lacks a column", file=path, where=name, limit=", ".join(COLUMNS))
        if found[name].null_count:
            raise KilnError("has rows without a value", file=path, where=name, value=found[name].null_count)
    for row, name in enumerate(COLUMNS[1:]):
        kind = found[name].type
        if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)):
            raise KilnError("is no column of numbers", file=path, where=name, value=str(kind))
        table[row] = found[name].to_numpy()
    names = found["image"]
    if pyarrow.types.is_dictionary(names.type):
        names = names.cast(names.type.value_type)
    if not (pyarrow.types.is_string(names.type) or pyarrow.types.is_large_string(names.type)):
        raise KilnError("is no column of names", file=path, where="image", value=str(names.type))
    encoded = pc.dictionary_encode(names).combine_chunks()
    if isinstance(encoded, pyarrow.ChunkedArray):
        encoded = pyarrow.concat_arrays(encoded.chunks)
    places = picture_index(truth)
    lookup = []
    for name in encoded.dictionary.to_pylist():
        picture = places.get(name.removesuffix(".jpg"))
        if picture is None:
            raise unknown_picture(name.removesuffix(".jpg"), truth, path)
        lookup.append(picture)
    refuse_not_finite(table, path)
    pictures = np.array(lookup, np.int64)[encoded.indices.to_numpy()]
    counts = np.bincount(pictures, minlength=len(truth.images))
    if (pictures[1:] < pictures[:-1]).any():
        table = table[:, np.argsort(pictures, kind="stable")]
    return Detections(counts, table)
