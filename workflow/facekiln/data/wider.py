"""WIDER FACE in its own text layout, and RetinaFace's label.txt with five landmarks for its faces.

Both give boxes as x, y, width, height in whole pixels of the stored picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.data.rows import below, labels, lines_of, numbers
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of
from facekiln.errors import KilnError

# Columns 5 to 10 of wider_face_*_bbx_gt.txt (its readme): blur 0 clear, 1 normal, 2 heavy; expression 0
# typical, 1 exaggerated; illumination 0 normal, 1 extreme; invalid 1; occlusion 0 none, 1 partial, 2 heavy;
# pose 0 typical, 1 atypical.
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


def corners(xywh: np.ndarray) -> np.ndarray:
    """Return [n,4] x1, y1, x2, y2 of [n,4] x, y, width, height, float64."""
    xywh = np.asarray(xywh, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def with_attributes(source: str, picture: Path, boxes: np.ndarray, columns: np.ndarray, file: Path) -> Sample:
    """Make a sample of boxes and the six WIDER FACE attributes, [n,6]; invalid faces are ignored.

    Raises:
        KilnError: an attribute is no whole number; names `file`.
    """
    attributes = labels(ATTRIBUTES, columns, file, source)
    return sample_of(source, picture, boxes, ignore=attributes["invalid"] != 0, attributes=attributes)


def read_wider_text(name: str, images: Path, annotation: Path) -> Listing:
    """Read wider_face_{train,val}_bbx_gt.txt: a path, a count, and so many rows of ten numbers.

    A picture without faces has the count 0 and still one row, of ten zeros; it is passed over.

    Raises:
        KilnError: a row, a count or a path is not of that form; names file and line.
    """
    lines = lines_of(annotation)
    while lines and not lines[-1].strip():
        lines.pop()
    samples, at = [], 0
    while at < len(lines):
        source = lines[at].strip()
        picture = below(images, source, file=annotation, where=f"line {at + 1}")
        count = _count(lines, at + 1, annotation)
        at += 2
        if at + count > len(lines):
            raise KilnError(
                "ends in the middle of a picture's boxes",
                file=annotation,
                where=source,
                value=f"{len(lines) - at} rows",
                limit=f"{count} rows",
                hint="fetch the annotation again",
            )
        rows = np.array([_row(lines[at + i], annotation, at + i + 1) for i in range(count)]).reshape(-1, 10)
        at += count
        if count == 0 and at < len(lines) and lines[at].split() == ["0"] * 10:
            at += 1
        samples.append(with_attributes(source, picture, corners(rows[:, :4]), rows[:, 4:], annotation))
    return Listing.of(name, samples, images)


def _count(lines: list[str], at: int, file: Path) -> int:
    word = lines[at].strip() if at < len(lines) else ""
    if not word.isdecimal() or len(word) > 9:
        raise KilnError(
            "should be a number of boxes",
            file=file,
            where=f"line {at + 1}",
            value=repr(word)[:60],
            hint="is this wider_face_*_bbx_gt.txt? RetinaFace's label.txt is `kind: wider_label`",
        )
    return int(word)


def _row(line: str, file: Path, number: int) -> list[float]:
    words = line.split()
    if len(words) != 10:
        raise KilnError(
            "is no box row", file=file, where=f"line {number}", value=f"{len(words)} columns", limit=10
        )
    return numbers(words, file, number)


def read_wider_label(name: str, images: Path, annotation: Path) -> Listing:
    """Read label.txt: a line `# path`, then rows of 4, 19 or 20 numbers.

    A row holds x, y, width, height, then five times x, y, flag, then a blur score that the annotators do not
    describe. Flag -1: the point is not annotated (its coordinates are -1); 0: visible; 1: hidden, but placed
    (deepinsight/insightface issues 664 and 889). The validation file has boxes only. Where the path is
    followed by the picture's width and height (labelv2.txt), boxes are corners (insightface issue 2622).

    Raises:
        KilnError: a line is not of that form; names file and line.
    """
    samples: list[Sample] = []
    header: tuple[str, Path, tuple[int, int] | None] | None = None
    rows: list[list[float]] = []
    for number, line in enumerate(lines_of(annotation), 1):
        words = line.split()
        if line.startswith("#"):
            if header:
                samples.append(_labelled(*header, rows))
            header, rows = _header(words, images, annotation, number), []
        elif words:
            if header is None or len(words) not in (4, 19, 20):
                raise KilnError(
                    "is no row of a label file",
                    file=annotation,
                    where=f"line {number}",
                    value=f"{len(words)} columns",
                    limit="`# path`, then rows of 4, 19 or 20 numbers",
                    hint="is it wider_face_*_bbx_gt.txt? That is `kind: wider_text`",
                )
            values = numbers(words, annotation, number)
            rows.append(values + [-1.0] * (20 - len(values)))
    if header:
        samples.append(_labelled(*header, rows))
    return Listing.of(name, samples, images)


def _header(
    words: list[str], images: Path, file: Path, line: int
) -> tuple[str, Path, tuple[int, int] | None]:
    words = " ".join(words)[1:].split()
    size = None
    if len(words) == 3:
        width, height = numbers(words[1:], file, line)
        size = int(height), int(width)
    elif len(words) != 1:
        raise KilnError("should be `# path`", file=file, where=f"line {line}", value=" ".join(words)[:80])
    return words[0], below(images, words[0], file=file, where=f"line {line}"), size


def _labelled(source: str, picture: Path, size: tuple[int, int] | None, rows: list[list[float]]) -> Sample:
    table = np.array(rows, np.float64).reshape(-1, 20)
    triples = table[:, 4:19].reshape(-1, 5, 3)
    missing = (triples[..., 2] < 0) | (triples[..., :2] < 0).all(axis=2)
    points = np.where(missing[..., None], np.nan, triples[..., :2])
    return sample_of(
        source,
        picture,
        table[:, :4] if size else corners(table[:, :4]),
        landmarks=landmarks_of("5", points, triples[..., 2] > 0),
        attributes={"blur_score": table[:, 19]},
        size=size,
    )
