"""What a command on a board prints, as it comes: kept, written to the raw log, told by lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from facekiln.errors import printable


class Output:
    """One stream as it comes: kept, written to the raw log, told to a listener by lines."""

    def __init__(self, raw: BinaryIO | None, listen: Callable[[str], object] | None, limit: int) -> None:
        """Take the raw log, the listener to lines, and the most bytes that are kept (0: all)."""
        self.data = bytearray()
        self.limit, self.over = limit, False
        self._raw, self._listen, self._line = raw, listen, b""

    def take(self, chunk: bytes) -> None:
        """Add what came; `over` is set where it would be too much."""
        # The board ends a command that prints too much; one that does not is not to fill our memory and disk.
        self.over = self.over or 0 < self.limit < len(self.data) + len(chunk)
        if self.over:
            return
        self.data += chunk
        if self._raw:
            self._raw.write(chunk)
            self._raw.flush()
        if self._listen:
            # Tools draw their progress with carriage returns.
            *lines, self._line = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if line:
                    self._listen(printable(line.decode("utf-8", "replace")))

    def text(self) -> str:
        """Return all of it."""
        return self.data.decode("utf-8", "replace")


@contextmanager
def raw_log(path: Path | None) -> Iterator[BinaryIO | None]:
    """Yield a raw log that is begun anew, with its folder; None where there is to be none."""
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        yield stream
