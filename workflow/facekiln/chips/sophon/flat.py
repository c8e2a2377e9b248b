"""Bounded reads of a flatbuffer: tables, vectors and strings, never past its end, never over and over.

The layout is the public one of flatbuffers ("FlatBuffers Internals", flatbuffers.dev): a table starts with
the signed distance back to its vtable; a vtable holds its own size, the table's, and per field the offset in
the table, 0 where the field is absent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.chips.bounded import BudgetedReader
from facekiln.errors import KilnError

_U16, _I32, _U32, _U64 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<Q")
_F32 = struct.Struct("<f")
_MAX_DEPTH = 32


class FlatReader(BudgetedReader):
    """The bytes of one flatbuffer, and how much may still be read from them."""

    what = "a SOPHON bmodel"
    rereads = 8  # honest files read each vector once, vtables a few times

    def __init__(self, data: bytes, file: Path | str, base: int) -> None:
        """Read a flatbuffer that starts at byte `base` of its file; errors name offsets in the file."""
        super().__init__(data, file)
        self.base = base

    def fail(self, what: str, offset: int, field: str, **more: object) -> KilnError:
        """Return an error at an offset of the flatbuffer."""
        return super().fail(what, offset + self.base, field, **more)

    def take(self, layout: struct.Struct, offset: int, field: str) -> tuple[Any, ...]:
        """Return the values of a layout (see `BoundedReader.take`)."""
        self.spend(layout.size, offset, field)
        return super().take(layout, offset, field)

    def follow(self, offset: int, field: str) -> int:
        """Return where the offset that stands at `offset` points to."""
        (distance,) = self.take(_U32, offset, field)
        return offset + int(distance)

    def span(self, offset: int, size: int, field: str) -> bytes:
        """Return `size` bytes."""
        if offset + size > len(self.data):
            raise self.fail("reaches past the end of the flatbuffer", offset, field, value=size)
        self.spend(size, offset, field)
        return self.data[offset : offset + size]


@dataclass(frozen=True)
class Table:
    """One table; fields are asked for by their number in the schema."""

    reader: FlatReader
    offset: int
    where: str
    depth: int = 0

    @classmethod
    def root(cls, reader: FlatReader, name: str) -> Table:
        """Return the table that the first four bytes point to."""
        return cls(reader, reader.follow(0, name), name)

    def _at(self, number: int, name: str) -> int | None:
        reader, where = self.reader, f"{self.where}.{name}"
        (back,) = reader.take(_I32, self.offset, where)
        vtable = self.offset - back
        if vtable < 0:
            raise reader.fail("its vtable lies before the flatbuffer", self.offset, where, value=vtable)
        (size,) = reader.take(_U16, vtable, where)
        if 4 + 2 * number + 2 > size:
            return None
        (offset,) = reader.take(_U16, vtable + 4 + 2 * number, where)
        return self.offset + int(offset) if offset else None

    def _scalar(self, layout: struct.Struct, number: int, name: str, default: Any) -> Any:
        at = self._at(number, name)
        return default if at is None else self.reader.take(layout, at, f"{self.where}.{name}")[0]

    def u32(self, number: int, name: str, default: int = 0) -> int:
        """Return an unsigned field of 32 bits."""
        return int(self._scalar(_U32, number, name, default))

    def i32(self, number: int, name: str, default: int = 0) -> int:
        """Return a signed field of 32 bits."""
        return int(self._scalar(_I32, number, name, default))

    def u64(self, number: int, name: str, default: int = 0) -> int:
        """Return an unsigned field of 64 bits."""
        return int(self._scalar(_U64, number, name, default))

    def f32(self, number: int, name: str, default: float = 0.0) -> float:
        """Return a field of single precision."""
        return float(self._scalar(_F32, number, name, default))

    def packed(self, number: int, name: str, layout: struct.Struct) -> tuple[Any, ...] | None:
        """Return a struct, which stands in the table itself; None where the field is absent."""
        at = self._at(number, name)
        return None if at is None else self.reader.take(layout, at, f"{self.where}.{name}")

    def text_at(self, number: int, name: str) -> tuple[int, int]:
        """Return (first byte in the file, bytes) of a string, (0, 0) where the field is absent."""
        at = self._at(number, name)
        if at is None:
            return 0, 0
        start = self.reader.follow(at, f"{self.where}.{name}")
        (size,) = self.reader.take(_U32, start, f"{self.where}.{name}")
        return self.reader.base + start + 4, int(size)

    def text(self, number: int, name: str) -> str | None:
        """Return a string, None where the field is absent."""
        start, size = self.text_at(number, name)
        if not start:
            return None
        raw = self.reader.span(start - self.reader.base, size, f"{self.where}.{name}")
        return raw.decode("utf-8", "backslashreplace")

    def required(self, number: int, name: str) -> str:
        """Return a string.

        Raises:
            KilnError: it is absent.
        """
        text = self.text(number, name)
        if text is None:
            raise self.reader.fail("is missing", self.offset, f"{self.where}.{name}")
        return text

    def table(self, number: int, name: str) -> Table | None:
        """Return a table, None where the field is absent."""
        at = self._at(number, name)
        where = f"{self.where}.{name}"
        return None if at is None else self._below(self.reader.follow(at, where), where)

    def _below(self, offset: int, where: str) -> Table:
        if self.depth >= _MAX_DEPTH:
            raise self.reader.fail("tables are nested too deeply", offset, where, limit=_MAX_DEPTH)
        return Table(self.reader, offset, where, self.depth + 1)

    def _vector(self, number: int, name: str, size: int) -> tuple[int, int]:
        """Return where a vector's items start and how many there are, their bytes all being there."""
        at = self._at(number, name)
        if at is None:
            return 0, 0
        where = f"{self.where}.{name}"
        start = self.reader.follow(at, where)
        (count,) = self.reader.take(_U32, start, where)
        if start + 4 + size * count > len(self.reader.data):
            raise self.reader.fail(
                "a vector reaches past the end of the flatbuffer", start, where, value=count
            )
        self.reader.spend(size * count, start, where)
        return start + 4, int(count)

    def tables(self, number: int, name: str) -> list[Table]:
        """Return a vector of tables; empty where the field is absent."""
        start, count = self._vector(number, name, 4)
        found = []
        for place in range(count):
            where = f"{self.where}.{name}[{place}]"
            found.append(self._below(self.reader.follow(start + 4 * place, where), where))
        return found

    def packed_list(self, number: int, name: str, layout: struct.Struct) -> list[tuple[Any, ...]]:
        """Return a vector of structs; empty where the field is absent."""
        start, count = self._vector(number, name, layout.size)
        return list(layout.iter_unpack(self.reader.data[start : start + layout.size * count]))

    def numbers(self, number: int, name: str, code: str) -> tuple[int, ...]:
        """Return a vector of integers of a `struct` code; empty where the field is absent."""
        return tuple(int(item[0]) for item in self.packed_list(number, name, struct.Struct(f"<{code}")))
