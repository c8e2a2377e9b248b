"""What nnie_mapper prints: its stages in order, warnings and errors in its form, written and recognised.

Stage names and the two-line form of warnings and errors are those of published logs of mapper 1.1.2.2 and
1.2; the spelling is the tool's own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

STAGES = {
    "parse": ("begin net parsing....", "end net parsing"),
    "prepare": ("begin prev optimizing....", "end prev optimizing...."),
    "quantise": ("begin net quantalizing(CPU)....", "end quantalizing"),
    "optimise": ("begin optimizing....", "end optimizing"),
    "memory": ("begin NNIE[0] mem allocation....", "end NNIE[0] memory allocating"),
    "instructions": ("begin NNIE[0] instruction generating....", "end NNIE[0] instruction generating"),
    "compress": ("begin parameter compressing....", "end parameter compressing"),
    "index": ("begin compress index generating....", "end compress index generating"),
    "binary": ("begin binary code generating....", "end binary code generating"),
    "dumps": ("begin quant files writing....", "end quant files writing"),
}
LAST_LINES = (STAGES["binary"][1], STAGES["dumps"][1])
_ERROR = re.compile(r"^\s*ERROR\s*:", re.MULTILINE)


class MapperLog:
    """Prints to standard output, and keeps what mapper_debug.log and mapper_error.log hold."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.lines: list[str] = []
        self.errors: list[str] = []

    def line(self, text: str) -> None:
        """Print one line."""
        self.lines.append(text)
        print(text, file=self._stream, flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print a stage's first line, and its last one if nothing fails within."""
        begin, end = STAGES[name]
        self.line(begin)
        yield
        self.line(end)

    def warning(self, source: str, text: str) -> None:
        """Print a warning: where it comes from, then what it is."""
        self.line(f"WARNING: file: {source}")
        self.line(text)

    def error(self, source: str, text: str) -> None:
        """Print an error: where it comes from, then what it is."""
        self.errors += [f"ERROR: file: {source}", text]
        self.line(self.errors[-2])
        self.line(self.errors[-1])

    def write_files(self, folder: Path, level: int | None) -> None:
        """Write mapper_debug.log and mapper_error.log, unless the cfg asks for no log."""
        if level is not None:
            (folder / "mapper_debug.log").write_text("".join(f"{line}\n" for line in self.lines))
            (folder / "mapper_error.log").write_text("".join(f"{line}\n" for line in self.errors))


def has_error(log: str) -> bool:
    """Whether a mapper's log holds an error line."""
    return bool(_ERROR.search(log))


def ends_well(log: str) -> bool:
    """Whether the last stage of a mapping was finished."""
    return any(line in log for line in LAST_LINES)


def cause_lines(log: str, count: int = 12) -> list[str]:
    """Return the lines that tell why a mapping failed: errors with their second lines, else the log's end."""
    lines = [part.strip() for part in re.split(r"[\r\n]+", log) if part.strip()]
    found: list[str] = []
    for place, line in enumerate(lines):
        if _ERROR.match(line):
            found += lines[place : place + 2]
        elif line.startswith("Traceback"):
            found += lines[-1:]
    return (found or lines)[:count] if found else lines[-count:]
