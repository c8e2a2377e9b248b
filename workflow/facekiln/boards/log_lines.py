"""Lines of a tool's log as it came off a board, and figures read from them without guessing.

A board's log has CR LF, colours, progress bars that overwrite themselves and, when two streams were merged,
lines inside lines. A figure that cannot be read for certain is an error with its line, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from facekiln.errors import KilnError, printable

# ECMA-48: control sequences (colours, cursor) and operating system commands (titles).
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_DECIMAL = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
HINT = "run the tool again and keep its whole output; where the form is a new one, report it with the log"


@dataclass(frozen=True)
class Line:
    """One line, or one piece of a line that a progress bar overwrote.

    Attributes:
        number: of the line in the log, from 1.
        text: without colours and line end.
    """

    number: int
    text: str


def read_lines(text: str) -> list[Line]:
    """Return the lines of a log, cleaned; a carriage return inside a line divides it."""
    lines = []
    for number, raw in enumerate(text.replace("\x00", "").split("\n"), start=1):
        for piece in _ESCAPE.sub("", raw).split("\r"):
            if piece.strip():
                lines.append(Line(number, printable(piece.rstrip())))
    return lines


def fail(tool: str, what: str, line: int | None = None, value: object = None, hint: str = HINT) -> KilnError:
    """Return an error about a log of `tool`, at a line where there is one."""
    where = f"line {line}" if line is not None else None
    return KilnError(what, file=f"log of {tool}", where=where, value=value, hint=hint)


def figure(tool: str, text: str, line: int, what: str) -> float:
    """Return a plain decimal number of a log.

    Raises:
        KilnError: it is nothing of the kind: `nan`, negative, a comma for the point, a unit run into it.
    """
    if not _DECIMAL.fullmatch(text):
        raise fail(tool, f"{what} is not a plain number", line, text)
    return float(text)
