"""One command on a board from start to end, over as many connections as it takes."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress

from facekiln.boards.faults import (
    BoardFault,
    ConnectionLost,
    LeaseLost,
    Rebooted,
    RunEnded,
    RunLost,
    RunTimeout,
)
from facekiln.boards.job import RemoteResult
from facekiln.boards.lease import Lease
from facekiln.boards.output import Output
from facekiln.boards.script import Answer, BoardScript
from facekiln.errors import shortened
from facekiln.progress import log

_SHOWN = 4000  # characters of standard error in a message


def drop(script: BoardScript, run: str) -> None:
    """Remove the folder of a run that has ended."""
    with suppress(BoardFault):
        script.call("drop", run)


class Attempt:
    """One command from start to end, over as many connections as it takes."""

    def __init__(
        self,
        script: BoardScript,
        lease: Lease | None,
        run: str,
        timeout: float,
        outputs: tuple[Output, Output],
    ) -> None:
        """Take where it runs, under which lease, its name, its limit in seconds, and its streams."""
        self.script, self.lease, self.run, self.timeout, self.outputs = script, lease, run, timeout, outputs
        self.limits = script.board.limits
        self.reconnections = 0
        self.started = False
        self._done = threading.Event()

    def go(self, job: str) -> RemoteResult:
        """Start the job (see `job_text`) and follow it to its end; raises what `RemoteRunner.run` does."""
        limits, lease = self.limits, self.lease
        first = self.script.session.generation
        self.started = True
        answer = self.script.call(
            "start",
            self.run,
            math.ceil(self.timeout),
            math.ceil(limits.grace_seconds),
            limits.poll_seconds,
            limits.output_mb << 10,
            limits.memory_mb << 10,
            lease.token if lease else "",
            stdin=job.encode(),
        )
        boot, folder = answer.fields["boot"], answer.fields["folder"]
        beats = threading.Thread(target=self._beat, name="run-beat", daemon=True)
        beats.start()
        try:
            state = self._follow(boot)
        finally:
            self._done.set()
        beats.join(limits.command_seconds)
        reason = state.fields.get("reason", "done")
        self.started = False
        if reason != "done":
            raise self._ended(reason)
        return RemoteResult(
            status=state.number("status"),
            stdout=self.outputs[0].text(),
            stderr=self.outputs[1].text(),
            seconds=state.number("centi") / 100,
            run=self.run,
            folder=folder,
            reconnections=max(self.reconnections, self.script.session.generation - first),
        )

    def _follow(self, boot: str) -> Answer:
        """Take output until the command has ended, and return its state."""
        out, err = self.outputs

        def take(chunk: bytes) -> None:
            out.take(chunk)
            self._check_amount()

        backstop = time.monotonic() + self.timeout + self.limits.reconnect_seconds + self.limits.grace_seconds
        while True:
            if self.lease:
                self.lease.check()
            generation = self.script.session.generation
            try:
                self.script.stream(
                    "follow",
                    self.run,
                    len(out.data),
                    len(err.data),
                    self.limits.poll_seconds,
                    idle=self.timeout + self.limits.grace_seconds,
                    on_stdout=take,
                    on_stderr=err.take,
                )
                self._check_amount()
                state = self.script.call("state", self.run)
            except ConnectionLost as lost:
                # Looked at once more beyond its limit, as it may have ended well, but not for ever.
                if time.monotonic() > backstop:
                    raise self._endless() from lost
                log.warning("%s: %s; looking for it again", self.script.board.name, lost.what)
                self.script.session.reconnect(generation)
                self.reconnections += 1
                continue
            if state.fields.get("boot_now", boot) != boot:
                raise Rebooted(
                    "the board started anew while the command ran",
                    file=self.script.board.name,
                    hint="run the same command again; if it happens each time, it brings the board down",
                )
            whole = len(out.data) >= state.number("stdout") and len(err.data) >= state.number("stderr")
            if state.word == "ended" and whole:
                return state
            if state.word in ("gone", "none"):
                raise RunLost(
                    "the command's watcher was killed, or its folder was removed",
                    file=self.script.board.name,
                    where=self.run,
                    hint="out of memory on the board? see `dmesg` there",
                )
            time.sleep(self.limits.poll_seconds)
            if time.monotonic() > backstop:
                raise self._endless()

    def _endless(self) -> RunLost:
        return RunLost(
            "the command does not end, nor does the board end it at its limit",
            file=self.script.board.name,
            value=self.run,
            limit=f"{self.timeout:g} s",
            hint=f"see what still runs there: facekiln board status {self.script.board.name}",
        )

    def _check_amount(self) -> None:
        if any(output.over for output in self.outputs):
            raise self._ended("output")

    def _ended(self, reason: str) -> BoardFault:
        board, tail = self.script.board.name, self.outputs[1].text()[-_SHOWN:].strip()
        last = (
            f"its last words: {shortened(tail.splitlines()[-1])}"
            if tail
            else "it printed nothing to standard error"
        )
        if reason == "timeout":
            return RunTimeout(
                "the command was ended at its time limit",
                file=board,
                limit=f"{self.timeout:g} s",
                hint=f"{last}; a slow board wants a longer `limits.run_seconds`",
            )
        if reason == "lease":
            return LeaseLost("the lease was lost and the board ended the command", file=board, hint=last)
        if reason == "orphan":
            return ConnectionLost(
                "no heartbeat reached the board, which ended the command",
                file=board,
                limit=f"{self.limits.grace_seconds:g} s",
                hint="run the same command again",
            )
        if reason == "output":
            return RunEnded(
                "the command printed more than it may",
                file=board,
                limit=f"{self.limits.output_mb} MB",
                hint=last,
            )
        return RunEnded(f"the command was ended: {reason}", file=board, hint=last)

    def _beat(self) -> None:
        counter = 0
        while not self._done.is_set():
            counter += 1
            with suppress(BoardFault):  # the follower finds the way back and judges
                # A link that is silent for so long is given up; the follower then goes on over the new one.
                idle = max(1.0, self.limits.grace_seconds / 3)
                self.script.call("beat", self.run, counter, "-", 0, idle=idle)
            self._done.wait(self.limits.grace_seconds / 4)

    def end_by_force(self) -> None:
        """End the command at once, as far as the board can be reached; else its watcher does."""
        self._done.set()
        if not self.started:
            return
        try:
            self.script.call("kill", self.run)
            drop(self.script, self.run)
        except BoardFault as fault:
            log.warning(
                "%s: the command was not ended from here (%s); the board ends it within %g s",
                self.script.board.name,
                fault.what,
                self.limits.grace_seconds,
            )
