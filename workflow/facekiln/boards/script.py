"""Calls of board.sh, which is put onto the board once and does there what has to be done there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from facekiln.boards.board_script import script_digest, script_text
from facekiln.boards.faults import BadAnswer, BoardFault, ConnectionLost, fault_of
from facekiln.boards.session import Completed, Feed, Session
from facekiln.errors import printable

__all__ = ["Answer", "BoardScript", "parse_answer", "script_digest", "script_text"]

Result = TypeVar("Result")

_ABSENT = 120
_FAULT = 3
_ATTEMPTS = 5


@dataclass(frozen=True)
class Answer:
    """A word and its fields."""

    word: str
    fields: dict[str, str]

    def number(self, key: str) -> int:
        """Return a field as a number; 0 where it is missing or none."""
        text = self.fields.get(key, "")
        return int(text) if text.lstrip("-").isdigit() else 0


def parse_answer(board: str, text: str) -> Answer:
    """Read what board.sh printed.

    Raises:
        BoardFault: it told a fault, or printed nothing.
    """
    # What a board says is shown to people; also a purpose that another client wrote there.
    word, *lines = [printable(line) for line in text.splitlines()] or [""]
    if word.startswith("fault "):
        kind, _, detail = word.removeprefix("fault ").partition(" ")
        raise fault_of(board, kind, detail)
    if not word or " " in word:
        raise BadAnswer(f"the board's script answered {text[:200]!r}", file=board)
    return Answer(word, dict(line.split("=", 1) for line in lines if "=" in line))


class BoardScript:
    """board.sh on one board."""

    def __init__(self, session: Session) -> None:
        """Take a session, connected or not."""
        self.session = session
        self.board = session.board
        self.path = f"{self.board.work}/bin/board-{script_digest()}.sh"
        self._installed = False

    def line(self, *arguments: object) -> str:
        """Return the command line of a call."""
        words = [self.path, self.board.work, self.board.lease, *map(str, arguments)]
        return f"[ -f {shlex.quote(self.path)} ] || exit {_ABSENT}\nexec sh {shlex.join(words)}"

    def install(self) -> None:
        """Put board.sh onto the board, unless it is there.

        Raises:
            BoardFault: the work folder cannot be made or written.
        """
        path, folder = shlex.quote(self.path), shlex.quote(f"{self.board.work}/bin")
        put = f"mkdir -p {folder} && cat >{path}.$$ && mv {path}.$$ {path}"
        command = f"export LC_ALL=C; [ -f {path} ] && exit 0; {put}"
        done = self.session.run(f"({command})", stdin=script_text().encode())
        if done.status:
            told = done.stderr.decode("utf-8", "replace").strip()
            kind = next(
                (
                    kind
                    for text, kind in (("Read-only", "read-only"), ("No space", "disk-full"))
                    if text in told
                ),
                "unwritable",
            )
            raise fault_of(self.board.name, kind, f"{self.board.work}: {told}")
        self._installed = True

    def stream(
        self,
        *arguments: object,
        stdin: Feed = b"",
        idle: float | None = None,
        on_stdout: Callable[[bytes], object] | None = None,
        on_stderr: Callable[[bytes], object] | None = None,
    ) -> Completed:
        """Call once, without another attempt; see `Session.run`."""
        for _ in range(2):
            if not self._installed:
                self.install()
            done = self.session.run(
                f"({self.line(*arguments)})", stdin=stdin, idle=idle, on_stdout=on_stdout, on_stderr=on_stderr
            )
            if done.status != _ABSENT:
                return done
            self._installed = False  # /tmp was emptied, or the board started anew
        raise BadAnswer("board.sh vanishes from the work folder", file=self.board.name, where=self.board.work)

    def ask(self, *arguments: object, stdin: Feed = b"", idle: float | None = None) -> Answer:
        """Call once and read the answer.

        Raises:
            BoardFault: the script told a fault.
            ConnectionLost: cut, or no answer within the limit.
        """
        done = self.stream(*arguments, stdin=stdin, idle=idle)
        text = done.stdout.decode("utf-8", "replace")
        if done.status not in (0, _FAULT):
            told = done.stderr.decode("utf-8", "replace").strip()
            raise BadAnswer(f"board.sh ended with status {done.status}: {told[-300:]}", file=self.board.name)
        return parse_answer(self.board.name, text)

    def call(self, *arguments: object, stdin: Feed = b"", idle: float | None = None) -> Answer:
        """Call, and again after a lost connection; every command of the script bears that.

        Raises:
            BoardFault: the script told a fault, or the connection is not found again.
        """
        return self.persistent(lambda: self.ask(*arguments, stdin=stdin, idle=idle))

    def persistent(self, attempt: Callable[[], Result]) -> Result:
        """Return what `attempt` returns, connecting anew after each cut.

        Raises:
            BoardFault: any other fault, or too many cuts in a row.
        """
        for turn in range(_ATTEMPTS):
            generation = self.session.generation
            try:
                return attempt()
            except ConnectionLost as lost:
                if turn == _ATTEMPTS - 1:
                    raise
                failure: BoardFault = lost
            self.session.reconnect(generation)
        raise failure
