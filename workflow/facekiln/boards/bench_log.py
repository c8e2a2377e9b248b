"""The raw log of a measurement: what the tool printed, run after run; how it is written, and read again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facekiln.artifact import sha256_of_text
from facekiln.boards.runner import RunResult
from facekiln.boards.virtual.forms import MARK

_BETWEEN = "\n==== standard error\n"
_HEAD = re.compile(r"^==== (attempt \d+ repeat \d+): (.*)\n==== exit status (-?\d+|None)\n", re.MULTILINE)


class RawLog:
    """A log that is being written; `virtual` is set when a stand-in told that it is one."""

    def __init__(self, path: Path) -> None:
        """Begin it anew."""
        self.path = path
        self.virtual = False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def add(self, title: str, command: Sequence[str], result: RunResult) -> str:
        """Append a run and return the sha256 of its two streams."""
        self.virtual = self.virtual or MARK in result.text
        text = f"{result.stdout}{_BETWEEN}{result.stderr}"
        with self.path.open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(f"==== {title}: {shlex.join(command)}\n==== exit status {result.status}\n{text}\n")
        return sha256_of_text(text)


@dataclass(frozen=True)
class LoggedRun:
    """One run of a log of ours.

    Attributes:
        title: "attempt 1 repeat 2".
        command: as it was run, quoted for a shell.
        result: what it left; its seconds are not in the log.
    """

    title: str
    command: str
    result: RunResult


def runs_in(text: str) -> list[LoggedRun]:
    """Return the runs of a log that `RawLog` wrote; none where it is another log, e.g. of one run by hand."""
    heads = list(_HEAD.finditer(text))
    if not heads or heads[0].start() != 0:
        return []
    ends = [*(head.start() for head in heads[1:]), len(text)]
    runs = []
    for head, end in zip(heads, ends, strict=True):
        stdout, _, stderr = text[head.end() : end].removesuffix("\n").partition(_BETWEEN)
        status = None if head[3] == "None" else int(head[3])
        runs.append(LoggedRun(head[1], head[2], RunResult(status, stdout, stderr, 0.0)))
    return runs
