"""What a board is, asked before anything is sent, and whether an artifact can run there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from facekiln.boards.faults import ClockSkew, DiskFull, WrongArchitecture, WrongRuntime
from facekiln.boards.remote import RemoteRunner, RunResult
from facekiln.boards.script import BoardScript
from facekiln.boards.settings import Runtime
from facekiln.errors import KilnError

_MISSING = 66
_FIND = 'command -v "$1" >/dev/null || exit 66; shift; [ $# -eq 0 ] || exec "$@"'
_CLAUSE = re.compile(r"^(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)$")
_COMPARE: dict[str, Callable[[list[int], list[int]], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True)
class Needs:
    """What a run needs.

    Attributes:
        chip: what the artifact is for; None for any.
        runtime: key of the board's `runtimes`.
        version: what the artifact asks of that runtime beside the board's own entry, e.g. ">=1.5".
        space: bytes that will be brought there.
    """

    chip: str | None = None
    runtime: str | None = None
    version: str | None = None
    space: int = 0


@dataclass(frozen=True)
class Facts:
    """What a board tells of itself.

    Attributes:
        machine: as `uname -m` prints it.
        kernel: as `uname -r` prints it.
        cores: of its processors.
        memory: bytes that are available.
        free: bytes that are free in the work folder.
        load: of the last minute.
        uptime: seconds.
        boot: id of this start.
        skew: seconds that its clock is ahead of ours.
        version: of the runtime that was asked for, or None.
    """

    machine: str
    kernel: str
    cores: int
    memory: int
    free: int
    load: float
    uptime: int
    boot: str
    skew: float
    version: str | None = None


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether "1.2.3" is within ">=1.2,<2"; missing parts count as 0.

    Raises:
        KilnError: `wanted` is no such list.
    """
    for clause in wanted.split(","):
        match = _CLAUSE.match(clause.strip())
        if not match:
            raise KilnError("is no list of version limits", value=wanted, limit="e.g. >=0.4.9,<1")
        ours, theirs = ([int(part) for part in text.split(".")] for text in (version, match[2]))
        length = max(len(ours), len(theirs))
        padded = [part + [0] * (length - len(part)) for part in (ours, theirs)]
        if not _COMPARE[match[1]](*padded):
            return False
    return True


def facts_of(script: BoardScript) -> Facts:
    """Ask a connected board; its work folder is made and written to.

    Raises:
        DiskFull, ReadOnly: the work folder cannot be used.
        BoardFault: see `BoardScript.call`.
    """
    before = time.time()
    answer = script.call("facts")
    middle = (before + time.time()) / 2
    return Facts(
        machine=answer.fields.get("machine", "?"),
        kernel=answer.fields.get("kernel", "?"),
        cores=answer.number("cores"),
        memory=answer.number("memory_kb") << 10,
        free=answer.number("free_kb") << 10,
        load=float(answer.fields.get("load", "0")),
        uptime=answer.number("uptime"),
        boot=answer.fields.get("boot", "?"),
        skew=answer.number("clock") + 0.5 - middle,
    )


def preflight(script: BoardScript, needs: Needs = Needs()) -> Facts:
    """Refuse a board that cannot do what is needed, before anything is sent.

    Raises:
        WrongArchitecture: another machine or chip.
        DiskFull: what will be sent does not fit.
        ReadOnly: the work folder cannot be written.
        ClockSkew: its clock is further from ours than `limits.clock_skew_seconds`.
        WrongRuntime: the tool is missing, or of a version that does not suit.
        BoardFault: the connection.
    """
    board = script.board
    if needs.chip and board.chip and needs.chip != board.chip:
        raise WrongArchitecture(
            f"the artifact is for {needs.chip}, the board has {board.chip}",
            file=board.name,
            hint="build the artifact for this chip, or choose another board",
        )
    facts = facts_of(script)
    if board.machine and facts.machine != board.machine:
        raise WrongArchitecture(
            "is another machine than its entry says",
            file=board.name,
            where="machine",
            value=facts.machine,
            limit=board.machine,
            hint="is it the right board? Else correct `machine:` in config/boards.yaml",
        )
    needed = needs.space + (board.limits.reserve_mb << 20)
    if facts.free < needed:
        raise DiskFull(
            "too little space on the board",
            file=board.name,
            where=board.work,
            value=f"{facts.free >> 20} MB free",
            limit=f"{(needed >> 20) + 1} MB, with `limits.reserve_mb`",
            hint=f"`facekiln board clean {board.name}`, or another work folder",
        )
    if abs(facts.skew) > board.limits.clock_skew_seconds:
        raise ClockSkew(
            "its clock is far from ours",
            file=board.name,
            value=f"{facts.skew:+.0f} s",
            limit=f"{board.limits.clock_skew_seconds:g} s",
            hint="set it (`date -s`, ntpd); without a battery it starts in 1970 at each boot",
        )
    if needs.runtime is None:
        return facts
    version = _check_runtime(script, needs.runtime, board.runtime(needs.runtime), needs.version)
    return Facts(**{**vars(facts), "version": version})


def _check_runtime(script: BoardScript, name: str, runtime: Runtime, wanted: str | None) -> str | None:
    command = ["sh", "-c", _FIND, "-", runtime.tool, *runtime.version_command]
    done = RemoteRunner(script).run(command, timeout=script.board.limits.command_seconds)
    if done.status == _MISSING:
        raise WrongRuntime(
            f"'{runtime.tool}' is not there",
            file=script.board.name,
            where=f"runtimes.{name}.tool",
            hint="give its whole path, or put its folder into `environment: {PATH: ...}`",
        )
    limits = [limit for limit in (runtime.version, wanted) if limit]
    if not runtime.version_command:
        if wanted:
            raise WrongRuntime(
                f"its version is not known, and the artifact needs {wanted}",
                file=script.board.name,
                where=f"runtimes.{name}.version_command",
                hint="name the command that prints it",
            )
        return None
    version = _version_in(script, name, runtime, done)
    for limit in limits:
        if not satisfies(version, limit):
            raise WrongRuntime(
                f"runtime '{name}' does not suit",
                file=script.board.name,
                value=version,
                limit=limit,
                hint="update it on the board, or build the artifact with a toolchain of its age",
            )
    return version


def _version_in(script: BoardScript, name: str, runtime: Runtime, done: RunResult) -> str:
    try:
        found = re.search(runtime.version_pattern, done.stdout + "\n" + done.stderr)
    except re.error as error:
        raise KilnError(
            f"is no regular expression: {error}", where=f"{script.board.name}.runtimes.{name}.version_pattern"
        ) from error
    if not found or not re.fullmatch(r"\d+(\.\d+)*", found[1] if found.re.groups else found[0]):
        raise WrongRuntime(
            "its version cannot be read",
            file=script.board.name,
            where=f"runtimes.{name}.version_pattern",
            value=(done.stdout + done.stderr).strip()[-200:] or f"no output, status {done.status}",
            limit=runtime.version_pattern,
            hint="its first group has to match the version, digits and points",
        )
    return found[1] if found.re.groups else found[0]
