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

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]

COLUMNS = 5
# Bytes that may be read before and after the text of a block.
MARGIN = 32

_NEWLINE, _DOT, _MINUS = 10, 46, 45
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
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    signed = bool((text == _MINUS).any())
    table = np.empty((COLUMNS, len(lines)))
    before = np.concatenate([[start - 1], lines[:-1]])
    for column in range(COLUMNS):
        values = _column(buffer, words, before + 1, columns[column], signed)
        if values is None:
            return None
        table[column] = values
        before = columns[column]
    return table, lines


def _column(buffer: Bytes, words: Words, begin: Indices, end: Indices, signed: bool) -> Floats | None:
    """Parse one column of tokens from `begin` to `end`; None where one is no plain decimal."""
    negative = None
    if signed:
        negative = buffer[begin] == _MINUS
        begin = begin + negative
    length = end - begin
    shortest, longest = int(length.min()), int(length.max())
    if shortest < 1 or longest > _DIGITS + 2:
        return None
    sample = buffer[begin[0] : end[0]].tobytes()
    dot = sample.find(b".")
    values = _fixed(words, end, length, shortest, longest, len(sample) - 1 - dot if dot >= 0 else 0)
    if values is None and dot == 1 and shortest > 2:
        values = _of_unit(buffer, words, begin, length - 2, longest - 2)
    if values is not None and negative is not None:
        np.negative(values, out=values, where=negative)
    return values


def _fixed(
    words: Words, end: Indices, length: Indices, shortest: int, longest: int, decimals: int
) -> Floats | None:
    """Parse tokens that all have the same number of decimals, 0 (and no point) to 6."""
    if decimals > 6 or shortest <= decimals or longest > _DIGITS:
        return None
    digits = _last_characters(words[end - 8], length)
    if decimals:
        place = 8 * (7 - decimals)
        if ((digits >> _word(place)) & _word(0xFF) != _word(_DOT ^ 0x30)).any():
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


def _of_unit(buffer: Bytes, words: Words, begin: Indices, length: Indices, longest: int) -> Floats | None:
    """Parse tokens of one digit, a point and 1 to 14 decimals, `length` of them."""
    whole = buffer[begin] ^ 0x30
    if longest > _DIGITS - 1 or (buffer[begin + 1] != _DOT).any() or (whole > 9).any():
        return None
    digits = _first_characters(words[begin + 2], np.minimum(length, 8))
    if not _all_digits(digits):
        return None
    number = whole.astype(np.uint64) * _word(10**8) + _eight_digits(digits)
    values: Floats = number.view(np.int64).astype(np.float64)
    values /= 1e8
    if longest > 8:
        long = np.flatnonzero(length > 8)
        digits = _first_characters(words[begin[long] + 10], length[long] - 8)
        if not _all_digits(digits):
            return None
        # At most six of the eight digits are there, so the last two are zero.
        more = number[long] * _word(10**6) + _eight_digits(digits) // _word(100)
        values[long] = more.view(np.int64).astype(np.float64) / 1e14
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
