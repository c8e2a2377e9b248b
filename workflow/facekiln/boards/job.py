"""A command on a board: the shell script that it becomes, and what it leaves."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facekiln.boards.runner import RunResult
from facekiln.errors import KilnError


@dataclass(frozen=True)
class RemoteResult(RunResult):
    """What a command on a board did.

    Its status is 128 + N when it was ended by signal N; its seconds are the board's own.

    Attributes:
        run: name of the run's folder.
        folder: that folder on the board.
        reconnections: how often the connection was lost meanwhile.
    """

    run: str = ""
    folder: str = ""
    reconnections: int = 0


def job_text(command: Sequence[str], environment: Mapping[str, str], folder: str | None = None) -> str:
    """Return the shell script of a command, all of it quoted; the last line tells that it is whole.

    Raises:
        KilnError: an argument holds a NUL byte or there is no command.
    """
    if not command or any("\0" in word for word in (*command, *environment.values())):
        raise KilnError("the command is empty or holds a NUL byte", value=list(command))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    lines += [f"cd {shlex.quote(folder)} || exit 97"] if folder else []
    return "\n".join([*lines, f"exec {shlex.join(command)}", "# end", ""])
