"""The one error type that reaches a user, and the notice format it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# All of C0 and C1 but tab and line feed: a terminal obeys them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return text of another machine as a terminal may see it: control characters as `\\x1b`."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


# Characters of a message's parts: a value may be a whole line of a broken file or of a board's noise.
_MOST_VALUE, _MOST_LIMIT, _MOST_TEXT = 400, 1000, 4000


def shortened(value: object, most: int = _MOST_VALUE) -> str:
    """Return a value as text of at most `most` characters: its beginning, and an ellipsis for the rest."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


class KilnError(Exception):
    """A failure that the user can act on.

    The message names the file, the key or layer, the value, the limit and the next step, as far as each
    applies; what is too long is cut, and its beginning stays. Every verb ends with exit status 1 when one is
    raised; nothing is left half written.
    """

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        where: str | None = None,
        value: object = None,
        limit: object = None,
        hint: str | None = None,
    ) -> None:
        """Compose the message.

        Args:
            what: what is wrong, as a sentence without a full stop.
            file: the file that it is wrong in.
            where: the key, layer, line or field inside that file.
            value: the offending value.
            limit: the limit or the expected value.
            hint: the next step for the user.
        """
        what = shortened(what, _MOST_TEXT)
        hint = hint and shortened(hint, _MOST_TEXT)
        place = ": ".join(shortened(part, _MOST_LIMIT) for part in (file, where) if part is not None)
        details = [f"value: {shortened(value)}"] if value is not None else []
        details += [f"limit: {shortened(limit, _MOST_LIMIT)}"] if limit is not None else []
        message = f"{place}: {what}" if place else what
        if details:
            message += f" ({'; '.join(details)})"
        if hint:
            message += f"\n  next step: {hint}"
        super().__init__(printable(message))
        self.what = printable(what)
        self.file = file
        self.hint = hint


class GateError(KilnError):
    """A measured figure is outside its gate (exit status 3)."""


@contextmanager
def in_file(file: Path | str) -> Iterator[None]:
    """Let an error of what is done with a file name it, where it names none: of a layer, of a parameter."""
    try:
        yield
    except KilnError as error:
        if error.file is not None:
            raise
        kind = GateError if isinstance(error, GateError) else KilnError
        raise kind(str(error), file=file) from error
