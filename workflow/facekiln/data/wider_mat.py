"""WIDER FACE ground truth as the official evaluation keeps it: wider_{face,easy,medium,hard}_val.mat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.data.mat import load_mat, real_array
from facekiln.data.rows import below
from facekiln.data.sample import Listing
from facekiln.data.wider import ATTRIBUTES, corners, with_attributes
from facekiln.errors import KilnError

_LABELS = [f"{name}_label_list" for name in ATTRIBUTES]


def read_wider_mat(name: str, images: Path, annotation: Path) -> Listing:
    """Read one of the four .mat files; they list the same 61 events, 3226 pictures and 39,708 boxes.

    wider_face_val.mat ignores the faces marked invalid. The other three have `gt_list`, the 1-based indices
    of the faces that count in their setting (7,211, 13,319 and 31,958 of them): every other face is ignored.

    Raises:
        KilnError: the file is damaged, or its lists do not fit each other.
    """
    needed = ("event_list", "file_list", "face_bbx_list", *_LABELS)
    found = load_mat(annotation, *needed, optional=("gt_list",))
    graded = "gt_list" in found
    samples = []
    for event, file, row in _pictures(found, annotation):
        where = f"{event}/{file}"
        boxes = corners(real_array(row["face_bbx_list"], (None, 4), annotation, where))
        columns = [real_array(_column(row[label]), (len(boxes),), annotation, where) for label in _LABELS]
        picture = below(images, f"{where}.jpg", file=annotation)
        sample = with_attributes(f"{where}.jpg", picture, boxes, np.stack(columns, axis=1), annotation)
        if graded:
            sample.ignore[:] = True
            sample.ignore[_counted(row["gt_list"], len(boxes), annotation, where)] = False
        samples.append(sample)
    return Listing.of(name, samples, images)


def _pictures(found: dict[str, Any], annotation: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the event, file name and variables of each picture."""
    events, lists = found["event_list"], {key: cells for key, cells in found.items() if key != "event_list"}
    if not all(_is_list(cells, len(events)) for cells in found.values()):
        raise KilnError("is no WIDER FACE ground truth: not one cell per event", file=annotation)
    for index, event in enumerate(events.ravel()):
        row = {key: cells.ravel()[index] for key, cells in lists.items()}
        if not isinstance(event, str) or not all(
            _is_list(cells, len(row["file_list"])) for cells in row.values()
        ):
            raise KilnError("has lists of different lengths", file=annotation, where=str(event))
        for at, file in enumerate(row["file_list"].ravel()):
            if not isinstance(file, str):
                raise KilnError("is no file name", file=annotation, where=event, value=repr(file)[:60])
            yield event, file, {key: cells.ravel()[at] for key, cells in row.items()}


def _is_list(cells: Any, length: int) -> bool:
    return isinstance(cells, np.ndarray) and cells.dtype == object and cells.shape == (length, 1)


def _column(value: Any) -> NDArray[Any]:
    """A list of n is stored as nx1; an empty one as 0x0 or 0x1."""
    return np.asarray(value).reshape(-1)


def _counted(value: Any, faces: int, file: Path, where: str) -> NDArray[np.int64]:
    # Widened before 1 is taken off: the stored type is uint8 or uint16.
    indices = real_array(_column(value), (None,), file, where).astype(np.int64) - 1
    if len(indices) and (indices.min() < 0 or indices.max() >= faces):
        raise KilnError(
            "counts a face that does not exist",
            file=file,
            where=f"{where}: gt_list",
            value=f"{indices.min() + 1}..{indices.max() + 1}",
            limit=f"1..{faces}",
        )
    return indices
