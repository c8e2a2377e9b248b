"""WFLW: 98 landmarks per face, one row per face."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.data.rows import AGAIN, below, labels, lines_of, numbers
from facekiln.data.sample import Listing, landmarks_of, sample_of
from facekiln.errors import KilnError

# Columns 201 to 206 of list_98pt_rect_attr_*.txt (its readme), each 0 or 1.
ATTRIBUTES = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")


def read_wflw(name: str, images: Path, annotation: Path) -> Listing:
    """Read list_98pt_rect_attr_*.txt (207 columns) or list_98pt_*.txt (197): one sample per picture.

    A row holds 196 coordinates, then x1, y1, x2, y2 of the face and six attributes, then the picture's path.
    Where there is no rectangle, the box is the one around the landmarks.

    Raises:
        KilnError: a row has another length, or holds no numbers; names file and line.
    """
    faces: dict[str, list[list[float]]] = {}
    pictures: dict[str, Path] = {}
    for number, line in enumerate(lines_of(annotation), 1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (197, 207):
            raise KilnError(
                "is no WFLW row",
                file=annotation,
                where=f"line {number}",
                value=f"{len(words)} columns",
                limit="207, or 197 without rectangle and attributes",
                hint=AGAIN,
            )
        source = words.pop()
        pictures.setdefault(source, below(images, source, file=annotation, where=f"line {number}"))
        faces.setdefault(source, []).append(numbers(words, annotation, number))

    samples = []
    for source, rows in faces.items():
        if len({len(row) for row in rows}) > 1:
            raise KilnError(
                "mixes rows with and without rectangles", file=annotation, where=source, hint=AGAIN
            )
        table = np.array(rows, np.float64)
        landmarks = landmarks_of("98", table[:, :196])
        rectangles = table.shape[1] > 196
        attributes = labels(ATTRIBUTES, table[:, 200:], annotation, source) if rectangles else {}
        boxes = table[:, 196:200] if rectangles else around(landmarks.points)
        samples.append(sample_of(source, pictures[source], boxes, landmarks=landmarks, attributes=attributes))
    return Listing.of(name, samples, images)


def around(points: np.ndarray) -> np.ndarray:
    """Return the [n,4] boxes around [n,k,2] landmarks, points that are NaN left out."""
    return np.concatenate([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1)
