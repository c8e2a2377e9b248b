"""Bounds of the flatbuffer reader that no bmodel of a real compiler comes near."""

from __future__ import annotations

import struct

import pytest

from facekiln.chips.sophon.flat import FlatReader, Table
from facekiln.errors import KilnError

# One vtable for all tables: six bytes long, tables of eight, field 0 behind the distance to the vtable.
VTABLE = struct.pack("<3H2x", 6, 8, 4)
FIRST = 4 + len(VTABLE)


def chain(count: int) -> bytes:
    """Tables in a row, each with the next one in field 0; the last points beyond."""
    tables = b"".join(struct.pack("<iI", FIRST + 8 * at - 4, 4) for at in range(count))
    return struct.pack("<I", FIRST) + VTABLE + tables


def root(data: bytes) -> Table:
    return Table.root(FlatReader(data, "x.bmodel", base=64), "model")


def test_tables_within_tables_end() -> None:
    table = root(chain(40))
    for _ in range(32):
        inner = table.table(0, "next")
        assert inner is not None
        table = inner
    with pytest.raises(KilnError, match=r"nested too deeply.*limit: 32"):
        table.table(0, "next")


@pytest.mark.parametrize(("count", "held"), [(3, 3), (4, None)])
def test_a_vector_is_within_the_flatbuffer(count: int, held: int | None) -> None:
    data = chain(1) + struct.pack("<4I", count, 7, 8, 9)
    if held:
        assert root(data).numbers(0, "shape", "I") == (7, 8, 9)
        return
    with pytest.raises(KilnError, match=r"offset 0x54, model\.shape.*value: 4") as caught:
        root(data).numbers(0, "shape", "I")
    assert "a vector reaches past the end" in str(caught.value)
