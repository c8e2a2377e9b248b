"""Reads of a binary file that never go past its end."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from facekiln.errors import KilnError

_MIN_BUDGET = 1 << 16


class BoundedReader:
    """Bounds-checked reads that name the field where the bytes end too early."""

    what: str  # the format, with its article, for the next step of an error

    def __init__(self, data: bytes, file: Path | str) -> None:
        """Read from bytes; `file` is for messages."""
        self.data = data
        self.file = file

    def fail(self, what: str, offset: int, field: str, **more: object) -> KilnError:
        """Return an error at an offset; `value` and `limit` may be given."""
        return KilnError(
            what,
            file=self.file,
            where=f"offset 0x{offset:x}, {field}",
            value=more.get("value"),
            limit=more.get("limit"),
            hint=f"check that the whole file was copied and that it is {self.what}",
        )

    def take(self, layout: struct.Struct, offset: int, field: str) -> tuple[Any, ...]:
        """Return the values of a layout.

        Raises:
            KilnError: the file ends before it does.
        """
        if offset + layout.size > len(self.data):
            raise self.fail("the file ends too early", offset, field, value=len(self.data))
        return layout.unpack_from(self.data, offset)


class BudgetedReader(BoundedReader):
    """Bounded reads whose sum is bounded too: damage may let many tables point to the same bytes."""

    rereads: int  # how often the bytes of an honest file are read, at the most

    def __init__(self, data: bytes, file: Path | str) -> None:
        """Read from bytes; `file` is for messages."""
        super().__init__(data, file)
        self.budget = max(_MIN_BUDGET, self.rereads * len(data))

    def spend(self, count: int, offset: int, field: str) -> None:
        """Count bytes as read.

        Raises:
            KilnError: far more were read than there are.
        """
        self.budget -= count
        if self.budget < 0:
            raise self.fail("the tables point to the same bytes over and over", offset, field)
