"""Rows of result files: a block of them at once, and the table that all of them go to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError
from facekiln.evaluation.read_numbers import COLUMNS, MARGIN, numpy_rows, regular_rows, rows_by_line

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_ROWS = 1 << 18


@dataclass(frozen=True)
class File:
    """One file of a block: where its rows lie in the buffer, and what its head says.

    Attributes:
        path: for messages.
        picture: its index in the ground truth.
        declared: the count line's number; -1 where there is none.
        start: where its rows begin in the buffer.
        stop: where they end, behind a newline.
    """

    path: str
    picture: int
    declared: int
    start: int
    stop: int


class Table:
    """A table that grows: of one large piece, because small pieces cost more to get than to fill."""

    def __init__(self) -> None:
        self._table: Floats = np.empty((COLUMNS, _ROWS))
        self._end = 0

    def append(self, rows: Floats) -> None:
        """Add [5, n] numbers."""
        end = self._end + rows.shape[1]
        if end > self._table.shape[1]:
            larger = np.empty((COLUMNS, max(4 * self._table.shape[1], end)))
            larger[:, : self._end] = self._table[:, : self._end]
            self._table = larger
        self._table[:, self._end : end] = rows
        self._end = end

    def rows(self) -> Floats:
        """Return all numbers, [5, m]."""
        return self._table[:, : self._end]


def block_rows(
    buffer: bytearray, end: int, files: list[File], official: bool
) -> tuple[Floats, Counts, list[str]]:
    """Parse the rows of files that lie in a buffer one after the other.

    Args:
        buffer: text from `MARGIN` to `end`, and `MARGIN` more bytes behind it.
        end: where the last file ends.
        files: in the order in which they lie.
        official: a malformed file counts as empty; else it is an error.

    Returns:
        The numbers, float64 [5, n]; how many rows each file has, int64; and the malformed files.

    Raises:
        KilnError: a row is not five finite numbers; names file and line.
    """
    stops = np.array([file.stop for file in files])
    regular = regular_rows(np.frombuffer(buffer, np.uint8), MARGIN, end)
    if regular is not None:
        table, lines = regular
        return table, np.diff(np.searchsorted(lines, stops), prepend=0), []
    text = bytes(memoryview(buffer)[MARGIN:end])
    plain = numpy_rows(text)
    if plain is not None:
        table, upto = plain
        newlines = np.flatnonzero(np.frombuffer(text, np.uint8) == 10) + MARGIN
        rows_before = np.concatenate([[0], upto])[np.searchsorted(newlines, stops)]
        return table, np.diff(rows_before, prepend=0), []
    rows: list[list[float]] = []
    counts, malformed = [], []
    for file in files:
        found = _file_rows(buffer, file, official)
        if found is None:
            malformed.append(file.path)
        rows += found or []
        counts.append(len(found or []))
    return np.array(rows).reshape(-1, COLUMNS).T.copy(), np.array(counts, np.int64), malformed


def _file_rows(buffer: bytearray, file: File, official: bool) -> list[list[float]] | None:
    """Return one file's rows; None where the official tool would call it malformed."""
    rows, wrong = rows_by_line(bytes(memoryview(buffer)[file.start : file.stop]).decode("utf-8", "replace"))
    if wrong is None:
        return rows
    if official:
        # The tool reads as many lines as it was told to; what follows does it no harm.
        return rows if len(rows) >= file.declared else None
    number, what, value = wrong
    raise KilnError(
        what,
        file=file.path,
        where=f"line {number + 2}",
        value=repr(value[:60]),
        hint="rows are `x y width height score`, separated by blanks",
    )
