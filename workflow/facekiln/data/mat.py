"""MATLAB 5 files: numbers, text and cells, checked against the file's bounds at every step.

Our own reader, because SciPy's ends the whole process on some damaged files (a segmentation fault, seen with
SciPy 1.17), and one damaged file among 60,000 must be told by name.
Source of the format: MathWorks, "MAT-File Format" (level 5).
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_bytes
from facekiln.errors import KilnError

_LARGEST = 512 << 20  # bytes, unpacked
_DEEPEST = 6  # cells in cells; WIDER FACE has two levels

_MATRIX, _COMPRESSED = 14, 15
# miINT8 to miUINT64, as stored; mxDOUBLE_CLASS to mxUINT64_CLASS, as meant.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MEANT = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _CHAR = 1, 4
_TEXT = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


class _DamagedError(Exception):
    """The file breaks its own structure."""


@dataclass(frozen=True)
class _Matrix:
    kind: int
    shape: tuple[int, ...]
    name: str
    rest: memoryview


class _Reader:
    """Walks the elements of one file."""

    def __init__(self, order: str) -> None:
        self.order = order  # "<" or ">"
        self.tag = struct.Struct(f"{order}II")

    def element(self, data: memoryview) -> tuple[int, memoryview, memoryview]:
        """Return type and content of the first element, and what follows it."""
        if len(data) < 8:
            raise _DamagedError("ends inside a tag")
        kind, size = self.tag.unpack_from(data)
        if kind >> 16:  # a small element: size and up to four bytes share the tag
            kind, size, start, stop = kind & 0xFFFF, kind >> 16, 4, 8
        else:
            start, stop = 8, 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data) or start + size > stop:
            raise _DamagedError("ends inside an element")
        return kind, data[start : start + size], data[stop:]

    def matrix(self, data: memoryview) -> _Matrix:
        """Return the head of a matrix; an empty element is an empty matrix."""
        if not len(data):
            return _Matrix(6, (0, 0), "", data)
        _, flags, data = self.element(data)
        _, sizes, data = self.element(data)
        _, name, data = self.element(data)
        if len(flags) != 8 or len(sizes) % 4 or len(sizes) < 8:
            raise _DamagedError("has a matrix without flags or dimensions")
        word, _ = self.tag.unpack_from(flags)
        if word & 0x800:
            raise _DamagedError("has complex numbers")
        shape = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes)
        if min(shape) < 0 or math.prod(shape) > _LARGEST:
            raise _DamagedError(f"has a matrix of {shape}")
        return _Matrix(word & 0xFF, shape, name.tobytes().decode("latin-1"), data)

    def value(self, matrix: _Matrix, depth: int = 0) -> Any:
        """Return an array, a str, or an object array of these for cells."""
        count = math.prod(matrix.shape)
        if matrix.kind == _CELL:
            return self._cells(matrix, count, depth)
        if matrix.kind not in _MEANT and matrix.kind != _CHAR:
            raise _DamagedError(f"has a variable of class {matrix.kind}")
        if not count:
            return "" if matrix.kind == _CHAR else np.zeros(matrix.shape, _MEANT[matrix.kind])
        stored, data, _ = self.element(matrix.rest)
        if matrix.kind == _CHAR:
            if stored not in _TEXT or matrix.shape[0] != 1:
                raise _DamagedError("has text that is not one line")
            ending = {"<": "-le", ">": "-be"}[self.order] if _TEXT[stored] in ("utf-16", "utf-32") else ""
            return data.tobytes().decode(_TEXT[stored] + ending)
        if stored not in _STORED or len(data) != count * np.dtype(_STORED[stored]).itemsize:
            raise _DamagedError("has a matrix whose dimensions do not fit its data")
        numbers = np.frombuffer(data, self.order + _STORED[stored]).reshape(matrix.shape, order="F")
        return numbers.astype(_MEANT[matrix.kind])

    def _cells(self, matrix: _Matrix, count: int, depth: int) -> NDArray[np.object_]:
        # Each cell takes at least its tag, so a damaged count cannot reserve memory.
        if depth >= _DEEPEST or count * 8 > len(matrix.rest):
            raise _DamagedError("has cells that do not fit into it")
        cells, rest = np.empty(count, object), matrix.rest
        for index in range(count):
            kind, data, rest = self.element(rest)
            if kind != _MATRIX:
                raise _DamagedError("has a cell that is no matrix")
            cells[index] = self.value(self.matrix(data), depth + 1)
        return cells.reshape(matrix.shape, order="F")

    def variables(self, data: memoryview) -> dict[str, _Matrix]:
        """Return the heads of all variables by name."""
        found = {}
        while len(data):
            kind, content, data = self.element(data)
            if kind == _COMPRESSED:
                kind, content, _ = self.element(memoryview(_unpack(content)))
            if kind != _MATRIX:
                raise _DamagedError(f"has an element of type {kind} where a variable should be")
            matrix = self.matrix(content)
            found[matrix.name] = matrix
        return found


def _unpack(data: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, _LARGEST)
    if not unpacker.eof:
        raise _DamagedError("has a packed variable that is cut or too large")
    return unpacked


def load_mat(path: Path, *names: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return variables of a .mat file: typed arrays, text as str, cells as object arrays of these.

    Args:
        path: the file.
        names: the variables that it must have.
        optional: variables that it may have.

    Raises:
        KilnError: it cannot be read, is no whole MATLAB 5 file, lacks a variable, or has one of another kind
            (a structure, complex or sparse numbers).
    """
    data = read_bytes(path)
    version, order = data[124:126], {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order and b"\x02" in version:
        raise KilnError(
            "is a MATLAB 7.3 file", file=path, limit="version 5", hint="in MATLAB: save(..., '-v7')"
        )
    if order is None or b"\x01" not in version:
        raise KilnError("is no MATLAB 5 file", file=path, hint="fetch it again")
    reader = _Reader(order)
    try:
        found = reader.variables(memoryview(data)[128:])
        for name in names:
            if name not in found:
                raise KilnError("lacks a variable", file=path, where=name, hint="is this the right file?")
        wanted = [*names, *(name for name in optional if name in found)]
        return {name: reader.value(found[name]) for name in wanted}
    except (_DamagedError, zlib.error, UnicodeDecodeError) as error:
        reason = f"it {error}" if isinstance(error, _DamagedError) else str(error)
        raise KilnError(f"is no whole MATLAB file: {reason}", file=path, hint="fetch it again") from error


def real_array(value: Any, shape: tuple[int | None, ...], file: Path, where: str) -> NDArray[np.float64]:
    """Return a variable as finite float64 of a shape (None: any length), whatever integer type it has.

    Integers are widened before any sum, because annotations are stored as uint8, uint16 or int32.

    Raises:
        KilnError: wrong shape, or not finite numbers.
    """
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=False)
    )
    if not fits or array.dtype.kind not in "iuf":
        wanted = "x".join("n" if length is None else str(length) for length in shape)
        have = f"{'x'.join(map(str, array.shape))} {array.dtype}"
        raise KilnError("is no array of the expected shape", file=file, where=where, value=have, limit=wanted)
    real = array.astype(np.float64)
    if not np.isfinite(real).all():
        raise KilnError("holds numbers that are not finite", file=file, where=where)
    return real
