"""LaPa: 106 landmarks for the one face of each picture, one text file per picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.data.rows import AGAIN, lines_of, numbers
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of
from facekiln.data.wflw import around
from facekiln.errors import KilnError


def read_lapa(name: str, images: Path, annotations: Path) -> Listing:
    """List {train,val,test}/landmarks/*.txt: the number 106, then so many lines of x and y.

    LaPa gives no box; the one around the landmarks stands for it.
    """
    stems = sorted(
        path.relative_to(annotations).with_suffix("").as_posix() for path in annotations.rglob("*.txt")
    )

    def read(index: int) -> Sample:
        points = _points(annotations / f"{stems[index]}.txt")
        picture = images / f"{stems[index]}.jpg"
        return sample_of(stems[index], picture, around(points), landmarks=landmarks_of("106", points))

    return Listing(name, stems, read, images)


def _points(path: Path) -> np.ndarray:
    lines = [line.split() for line in lines_of(path) if line.strip()]
    if not lines or lines[0] != ["106"] or len(lines) != 107 or any(len(words) != 2 for words in lines[1:]):
        raise KilnError(
            "is no LaPa landmark file",
            file=path,
            value=f"{len(lines)} lines",
            limit="`106`, then 106 lines of x and y",
            hint=AGAIN,
        )
    points = [numbers(words, path, number) for number, words in enumerate(lines[1:], 2)]
    return np.array(points, np.float64).reshape(1, 106, 2)
