"""What goes wrong with a board, each as its own error, and which of it is worth another attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from facekiln.errors import KilnError, shortened
from facekiln.progress import log

Result = TypeVar("Result")


class BoardFault(KilnError):
    """A fault of a board, or on the way to it.

    Attributes:
        transient: the same attempt may succeed a little later; `retried` repeats only those.
    """

    transient = False


class Unreachable(BoardFault):
    """No connection can be made: refused, timed out, no such name."""

    transient = True


class ConnectionLost(BoardFault):
    """A connection that was there is gone."""

    transient = True


class HostKeyFault(BoardFault):
    """The board's host key is not the pinned one, or none is pinned."""


class AccessRefused(BoardFault):
    """The board refuses the key, or there is none to offer."""


class Unsupported(BoardFault):
    """The board lacks what we need: a cipher, sha256, hard links."""


class BoardBusy(BoardFault):
    """Somebody else holds the lease."""

    transient = True


class LeaseLost(BoardFault):
    """The lease ran out or was taken over while we worked."""

    transient = True


class Rebooted(BoardFault):
    """The board started anew while a command ran."""

    transient = True


class RunLost(BoardFault):
    """A command's watcher vanished without a status."""

    transient = True


class RunTimeout(BoardFault):
    """A command was ended at its time limit."""


class RunEnded(BoardFault):
    """A command was ended by another limit, or by a request."""


class LeftRunning(BoardFault):
    """A process on the board cannot be ended."""


class Damaged(BoardFault):
    """Bytes arrived that are not those that were sent."""

    transient = True


class DiskFull(BoardFault):
    """Too little space on the board."""


class ReadOnly(BoardFault):
    """The work folder cannot be written."""


class ClockSkew(BoardFault):
    """The board's clock is far from ours."""


class WrongArchitecture(BoardFault):
    """The board is another machine than its entry says, or than the artifact is for."""


class WrongRuntime(BoardFault):
    """A tool, driver or runtime is missing, or of a version that does not suit."""


class BadAnswer(BoardFault):
    """The board's script answered what it never answers."""


_SCRIPT_FAULTS: dict[str, tuple[type[BoardFault], str, str]] = {
    "disk-full": (DiskFull, "the disk is full", "`facekiln board clean NAME`, or another work folder"),
    "read-only": (ReadOnly, "is on a read-only file system", "remount it, or name another `work`"),
    "unwritable": (
        ReadOnly,
        "cannot be written",
        "name a folder that the user may write, as `work` or `lease`",
    ),
    "foreign": (
        ReadOnly,
        "belongs to another account of the board",
        "if several accounts share the board: `lease_access: all` (or `group`) in the entry of each",
    ),
    "no-links": (
        Unsupported,
        "is on a file system without hard links",
        "name a `lease` folder on another, /tmp/...",
    ),
    "no-sha256": (
        Unsupported,
        "has no sha256sum, busybox, openssl, shasum or python3",
        "install one of them",
    ),
    "no-blob": (Damaged, "a blob is no longer on the board", "run the same command again: it is sent anew"),
    "no-file": (BoardFault, "there is no such file on the board", "look into the raw log of the run"),
    "leftover": (LeftRunning, "a process of an earlier run cannot be ended", "end it by hand, as its user"),
    "short": (ConnectionLost, "the command did not arrive whole", "run the same command again"),
}


def fault_of(board: str, kind: str, detail: str) -> BoardFault:
    """Return the error for a `fault KIND detail` line of the board's script."""
    detail = shortened(detail)
    if kind not in _SCRIPT_FAULTS:
        kind = shortened(kind, 40)
        return BadAnswer(f"the board's script failed: {kind} {detail}", file=board)
    error, what, hint = _SCRIPT_FAULTS[kind]
    return error(what, file=board, where=detail or None, hint=hint)


def retried(
    attempt: Callable[[], Result],
    *,
    attempts: int = 3,
    wait: float = 2.0,
    before: Callable[[], object] | None = None,
) -> Result:
    """Return what `attempt` returns, repeating it after transient faults.

    Args:
        attempt: what to do; it must bear to be done again.
        attempts: how often at most.
        wait: seconds before the second attempt; twice as long before each further one.
        before: called before each further attempt, e.g. to connect anew.

    Raises:
        BoardFault: a final fault at once, or the transient one of the last attempt.
    """
    for turn in range(1, attempts + 1):
        try:
            if turn > 1 and before:
                before()
            return attempt()
        except BoardFault as fault:
            if not fault.transient or turn == attempts:
                raise
            log.warning("%s; attempt %d of %d in %.0f s", fault.what, turn + 1, attempts, wait)
            time.sleep(wait)
            wait *= 2
    raise AssertionError("unreachable")
