"""The lease of a board: it lies on the board, so that two checkouts on two machines never measure at once.

board.sh keeps it: owner, purpose and expiry in the board's uptime, renewed by a heartbeat. A holder that dies
frees it by silence. A run that was started under a lease is ended by the board's own watcher when the lease
is no longer its own, and whoever takes the lease ends first what an earlier holder left running.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass

from facekiln.boards.faults import BoardBusy, BoardFault, LeaseLost
from facekiln.boards.script import Answer, BoardScript
from facekiln.progress import log


@dataclass(frozen=True)
class Holder:
    """Who holds a board.

    Attributes:
        owner: user@host:pid.
        purpose: what for.
        left: seconds until it runs out without a heartbeat.
        held_for: seconds since it was taken.
    """

    owner: str
    purpose: str
    left: int
    held_for: int

    def __str__(self) -> str:
        """Tell it in one line."""
        due = max(self.left, 0)
        return f"{self.owner} for '{self.purpose}' since {self.held_for} s (renewed within {due} s)"


def _holder(answer: Answer) -> Holder:
    return Holder(
        answer.fields.get("owner", "?"),
        answer.fields.get("purpose", "?"),
        answer.number("left"),
        answer.number("held_for"),
    )


def holder_of(script: BoardScript) -> Holder | None:
    """Return who holds the board, or None.

    Raises:
        BoardFault: see `BoardScript.call`.
    """
    answer = script.call("lease_status")
    return _holder(answer) if answer.word == "held" else None


def free_by_force(script: BoardScript) -> Holder | None:
    """Free the lease of whoever holds it and return who that was; a run of theirs is ended by the board.

    Raises:
        BoardFault: see `BoardScript.call`.
    """
    answer = script.call("lease_free", "any")
    return _holder(answer) if answer.word == "freed" else None


def _own_name() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200] or "?"


class Lease:
    """A board for oneself, as a context; the heartbeat runs in a thread meanwhile."""

    def __init__(self, script: BoardScript, purpose: str, *, wait: float = 0.0) -> None:
        """Describe it; nothing is taken yet.

        Args:
            script: of a connected board.
            purpose: what for, told to others who want the board.
            wait: seconds to wait for another holder.
        """
        self.script = script
        self.token = uuid.uuid4().hex
        self.purpose = _one_line(purpose)
        self.wait = wait
        self._seconds = max(1, round(script.board.limits.lease_seconds))
        self._done = threading.Event()
        self._lost: BoardFault | None = None
        self._thread: threading.Thread | None = None
        self._renewed = 0.0

    def __enter__(self) -> Lease:
        """Take it.

        Raises:
            BoardBusy: another holds it and `wait` is over.
            ReadOnly: its folder is another account's of the board, and `lease_access` does not say so.
            LeftRunning: what an earlier holder left cannot be ended.
        """
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        """Free it."""
        self.free()

    def take(self) -> None:
        """See `__enter__`."""
        deadline = time.monotonic() + self.wait
        told = None
        while True:
            self._renewed = time.monotonic()
            access = self.script.board.lease_access
            words = (self.token, self._seconds, _own_name(), self.purpose, access)
            answer = self.script.call("lease_take", *words)
            if answer.word == "taken":
                break
            holder = _holder(answer)
            if time.monotonic() >= deadline:
                raise BoardBusy(
                    f"is held by {holder}",
                    file=self.script.board.name,
                    hint="wait for it, or `facekiln board free` if you are sure that nobody measures",
                )
            if told != holder.owner:
                log.info("%s: waiting for %s", self.script.board.name, holder)
                told = holder.owner
            time.sleep(min(1.0, self.script.board.limits.poll_seconds * 2))
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Go on only while the lease is ours.

        Raises:
            LeaseLost: it was taken over, or no heartbeat reached the board in time.
        """
        if self._lost is None and time.monotonic() - self._renewed > self._seconds:
            self._lost = LeaseLost(
                "no heartbeat reached the board within the lease's time",
                file=self.script.board.name,
                limit=f"{self._seconds} s",
                hint="run the same command again; a slow network wants a longer `limits.lease_seconds`",
            )
        if self._lost is not None:
            raise self._lost

    @property
    def lost(self) -> bool:
        """It is known to be lost."""
        try:
            self.check()
        except BoardFault:
            return True
        return False

    def free(self) -> None:
        """End the heartbeat and free the lease; one that is lost already is left alone."""
        self._done.set()
        if self._thread:
            self._thread.join(timeout=self.script.board.limits.command_seconds)
        try:
            self.script.call("lease_free", self.token)
        except BoardFault as fault:
            log.warning(
                "%s: the lease was not freed (%s); it runs out in %d s",
                self.script.board.name,
                fault.what,
                self._seconds,
            )

    def _beat(self) -> None:
        counter = 0
        while not self._done.wait(self._seconds / 4):
            counter += 1
            sent = time.monotonic()
            try:
                # A link that is silent for so long is given up, while there is time to find another.
                answer = self.script.call(
                    "beat", "-", counter, self.token, self._seconds, idle=max(1.0, self._seconds / 3)
                )
            except BoardFault as fault:
                # `check` judges by the time since the last heartbeat that arrived.
                log.warning("%s: heartbeat: %s", self.script.board.name, fault.what)
                if not fault.transient:
                    self._lost = fault
                    return
                continue
            if answer.word != "held":
                if not self._done.is_set():
                    self._lost = LeaseLost(
                        f"the lease is now held by {_holder(answer)}",
                        file=self.script.board.name,
                        hint="run the same command again",
                    )
                return
            self._renewed = sent
