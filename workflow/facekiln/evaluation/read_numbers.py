"""Rows of five numbers out of text, many at once.

Parsing is most of what an evaluation costs, so regular text goes a fast way: eight characters are loaded as
one 64-bit word and turned into a number by three multiplications ("SIMD within a register", D. Lemire,
"Quickly parsing eight digits", 2018), for a whole column of a block at a time. A number of up to 15 digits is
then a whole number over a power of ten, both exact in double precision, so that the one division rounds as
strtod does (W. Clinger, "How to read floating point numbers accurately", 1990). Text of any other look is
left to numpy, and what numpy does not understand to Python, which names the line.
"""

from __future__ import annotations

import math
import sys
import warnings
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]

COLUMNS = 5
# Bytes that may be read before and after the text of a block.
MARGIN = 32

_NEWLINE, _POINT, _MINUS = 10, 46, 45
_DIGITS = 15  # every whole number of so many digits is a double


def _word(value: int) -> np.uint64:
    return np.uint64(value & 0xFFFFFFFFFFFFFFFF)


_ZEROS = _word(0x3030303030303030)
_OVER_NINE = _word(0x7676767676767676)
_HIGH_BITS = _word(0x8080808080808080)


def regular_rows(buffer: Bytes, start: int, stop: int) -> tuple[Floats, Indices] | None:
    """Parse lines that all look alike: five plain decimals, single blanks, perhaps one at the end.

    Args:
        buffer: holds the text from `start` to `stop`, whose last byte is a newline, and `MARGIN` more bytes
            on both sides.

    Returns:
        The numbers, float64 [5, n], and where in the buffer each line ends, int64 [n]; None where some line
        looks different.
    """
    text = buffer[start:stop]
    if sys.byteorder != "little" or start == stop:
        return None
    ends = np.flatnonzero(text <= 32) + start
    newlines = np.flatnonzero(buffer[ends[: COLUMNS + 1]] == _NEWLINE)
    period = int(newlines[0]) + 1 if len(newlines) else 0
    if period not in (COLUMNS, COLUMNS + 1) or len(ends) % period:
        return None
    columns = ends.reshape(-1, period).T.copy()
    lines = columns[-1]
    if (buffer[lines] != _NEWLINE).any() or np.count_nonzero(text == _NEWLINE) != len(lines):
        return None
    if period > COLUMNS and (lines - columns[COLUMNS - 1] != 1).any():
        return None
    block = _Block(buffer, start, stop)
    table = np.empty((COLUMNS, len(lines)))
    before = np.concatenate([[start - 1], lines[:-1]])
    for column in range(COLUMNS):
        values = block.column(before + 1, columns[column])
        if values is None:
            return None
        table[column] = values
        before = columns[column]
    return table, lines


class _Block:
    """The text of some lines, and what is known of it."""

    def __init__(self, buffer: Bytes, start: int, stop: int) -> None:
        self.buffer, self.start, self.stop = buffer, start, stop
        self.words: Words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
        self.signed = bool((buffer[start:stop] == _MINUS).any())

    @cached_property
    def points(self) -> Indices:
        """Where the decimal points are."""
        return np.flatnonzero(self.buffer[self.start : self.stop] == _POINT) + self.start

    def column(self, begin: Indices, end: Indices) -> Floats | None:
        """Parse one column of tokens from `begin` to `end`; None where one is no plain decimal."""
        negative = None
        if self.signed:
            negative = self.buffer[begin] == _MINUS
            begin = begin + negative
        length = end - begin
        if int(length.min()) < 1 or int(length.max()) > 2 * 8 + 8:
            return None
        sample = self.buffer[begin[0] : end[0]].tobytes()
        at = sample.find(b".")
        values = _fixed(self.words, end, length, len(sample) - 1 - at if at >= 0 else 0)
        if values is None and at >= 0:
            # The first point of each token; where there is none, a later one, beyond the token's end.
            nearest = np.searchsorted(self.points, begin)
            if nearest[-1] == len(self.points):
                return None
            values = _pointed(self.words, begin, self.points[nearest], end)
        if values is not None and negative is not None:
            np.negative(values, out=values, where=negative)
        return values


def _fixed(words: Words, end: Indices, length: Indices, decimals: int) -> Floats | None:
    """Parse tokens that all have the same number of decimals, 0 (and no point) to 6."""
    longest = int(length.max())
    if decimals > 6 or int(length.min()) <= decimals or longest > _DIGITS:
        return None
    digits = _last_characters(words[end - 8], length)
    if decimals:
        place = 8 * (7 - decimals)
        if ((digits >> _word(place)) & _word(0xFF) != _word(_POINT ^ 0x30)).any():
            return None
        above, below = digits & _word(-1 << (place + 8)), digits & _word((1 << place) - 1)
        digits = above | (below << _word(8))
    if not _all_digits(digits):
        return None
    number = _eight_digits(digits)
    if longest > 8:
        rest = np.maximum(length - 8, 0)
        high = _last_characters(words[end - 16], np.maximum(rest, 1))
        high[rest == 0] = 0
        if not _all_digits(high):
            return None
        number += _eight_digits(high) * _word(10**7 if decimals else 10**8)
    values = number.view(np.int64).astype(np.float64)
    if decimals:
        values /= 10.0**decimals
    return values


def _pointed(words: Words, begin: Indices, point: Indices, end: Indices) -> Floats | None:
    """Parse tokens with 1 to 8 digits, a point and 1 to 14 decimals, 15 digits in all where they are most."""
    before, decimals = point - begin, end - point - 1
    most = int(decimals.max())
    if int(before.min()) < 1 or int(before.max()) > 8 or int(decimals.min()) < 1 or most > 14:
        return None
    whole = _last_characters(words[point - 8], before)
    part = _first_characters(words[point + 1], np.minimum(decimals, 8))
    if not (_all_digits(whole) and _all_digits(part)):
        return None
    number = _eight_digits(whole)
    if int(number.max()) >= 2**53 // 10**most:
        return None
    fraction = _eight_digits(part)
    if most <= 8:
        fraction //= _word(10 ** (8 - most))
    else:
        long = np.flatnonzero(decimals > 8)
        rest = _first_characters(words[point[long] + 9], decimals[long] - 8)
        if not _all_digits(rest):
            return None
        fraction *= _word(10 ** (most - 8))
        # What is not there is 0, so nothing but zeros is cut.
        fraction[long] += _eight_digits(rest) // _word(10 ** (16 - most))
    number *= _word(10**most)
    number += fraction
    values: Floats = number.view(np.int64).astype(np.float64)
    values /= 10.0**most
    return values


def _last_characters(word: Words, count: Indices) -> Words:
    """Keep the last `count` (1..8 or more) characters of words, as digits' values; the others become 0."""
    shift = (64 - 8 * np.minimum(count, 8)).view(np.uint64)
    word = word ^ _ZEROS
    word >>= shift
    word <<= shift
    return word


def _first_characters(word: Words, count: Indices) -> Words:
    """Keep the first `count` (1..8) characters of words, as digits' values; the others become 0."""
    shift = (64 - 8 * count).view(np.uint64)
    word = word ^ _ZEROS
    word <<= shift
    word >>= shift
    return word


def _all_digits(word: Words) -> bool:
    return not (((word + _OVER_NINE) | word) & _HIGH_BITS).any()


def _eight_digits(word: Words) -> Words:
    """Return the numbers that words of eight digits' values, the first one lowest, stand for."""
    pairs = word * _word(10)
    pairs += word >> _word(8)
    low = pairs & _word(0x000000FF000000FF)
    low *= _word(100 + (1_000_000 << 32))
    pairs >>= _word(16)
    pairs &= _word(0x000000FF000000FF)
    pairs *= _word(1 + (10_000 << 32))
    low += pairs
    low >>= _word(32)
    return low


def numpy_rows(text: bytes) -> tuple[Floats, Indices] | None:
    """Parse lines of five numbers of any look that numpy reads; blank lines do no harm.

    Returns:
        The numbers, float64 [5, n], and how many rows end at or before each newline, int64; None where a line
        has another number of columns or one is no finite number.
    """
    data = np.frombuffer(text, np.uint8)
    blank = data <= 32
    begins = np.flatnonzero(~blank & np.concatenate([[True], blank[:-1]]))
    upto = np.searchsorted(begins, np.flatnonzero(data == _NEWLINE))
    per_line = np.diff(upto, prepend=0)
    if ((per_line != 0) & (per_line != COLUMNS)).any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = np.fromstring(text, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(values) != len(begins) or not np.isfinite(values).all():
        return None
    return values.reshape(-1, COLUMNS).T.copy(), upto // COLUMNS


def rows_by_line(text: str) -> tuple[list[list[float]], tuple[int, str, str] | None]:
    """Parse line by line; columns beyond the fifth are passed over, as the port does.

    Returns:
        The rows, and None or (line from 1, what is wrong, what stands there) of the first bad line.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < COLUMNS:
            return rows, (number, f"has {len(words)} columns, not {COLUMNS}: x y width height score", line)
        row = []
        for word in words[:COLUMNS]:
            try:
                value = math.nan if "_" in word else float(word)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                return rows, (number, "is no finite number", word)
            row.append(value)
        rows.append(row)
    return rows, None
