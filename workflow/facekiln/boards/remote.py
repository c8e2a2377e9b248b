"""Commands on a board: limits, raw logs, progress, a way back after a cut, and nothing left running.

A command runs detached below a watcher of board.sh, with its output in files. The client follows these files
and sends heartbeats. So a cut connection is found again and followed on; and whatever happens to the client
(SIGINT, SIGKILL, a lost network), the watcher ends the command and everything that it started.
"""

from __future__ import annotations

import math
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from facekiln.boards.faults import (
    BoardFault,
    ConnectionLost,
    LeaseLost,
    Rebooted,
    RunEnded,
    RunLost,
    RunTimeout,
)
from facekiln.boards.lease import Lease
from facekiln.boards.runner import RunResult
from facekiln.boards.script import Answer, BoardScript
from facekiln.boards.upload import place, store
from facekiln.errors import KilnError, printable, shortened
from facekiln.progress import log

_SHOWN = 4000  # characters of standard error in a message


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


class _Output:
    """One stream as it comes: kept, written to the raw log, told to a listener by lines."""

    def __init__(self, raw: BinaryIO | None, listen: Callable[[str], object] | None, limit: int) -> None:
        self.data = bytearray()
        self.limit, self.over = limit, False
        self._raw, self._listen, self._line = raw, listen, b""

    def take(self, chunk: bytes) -> None:
        # The board ends a command that prints too much; one that does not is not to fill our memory and disk.
        self.over = self.over or 0 < self.limit < len(self.data) + len(chunk)
        if self.over:
            return
        self.data += chunk
        if self._raw:
            self._raw.write(chunk)
            self._raw.flush()
        if self._listen:
            # Tools draw their progress with carriage returns.
            *lines, self._line = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if line:
                    self._listen(printable(line.decode("utf-8", "replace")))

    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


class RemoteRunner:
    """Runs commands on one board, one at a time."""

    def __init__(self, script: BoardScript, lease: Lease | None = None) -> None:
        """Take a connected board, and the lease under which runs happen (None for short harmless ones)."""
        self.script = script
        self.board = script.board
        self.lease = lease

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        files: Mapping[str, Path | str] | None = None,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        log_file: Path | str | None = None,
        on_line: Callable[[str], object] | None = None,
        name: str | None = None,
        keep: bool = False,
    ) -> RemoteResult:
        """Run a command and wait for its end.

        Args:
            command: program and arguments; no shell reads them.
            timeout: seconds, by default `limits.run_seconds`; the board itself ends the command then.
            files: name in the run's folder -> local file, brought there first. The command starts in it.
            environment: variables beside those of the board's entry.
            folder: another folder on the board to start in.
            log_file: raw log: standard output here, standard error in the same name with `.stderr`.
            on_line: gets each line of output as it comes, for progress. It must not raise.
            name: name of the run's folder; the same name finds a run that goes on.
            keep: leave the run's folder on the board (for `upload.fetch`); `drop` removes it.

        Returns:
            the result, whatever the exit status is.

        Raises:
            RunTimeout: ended at its time limit.
            RunEnded: ended as it printed too much, or on request.
            LeaseLost: the lease was lost; the command was ended.
            Rebooted: the board started anew meanwhile.
            RunLost: its watcher was killed.
            BoardFault: the connection is lost for good; the board ends the command after
                `limits.grace_seconds`.
        """
        run = name or uuid.uuid4().hex[:16]
        if self.lease:
            self.lease.check()
        if files:
            hashes = {label: Path(path) for label, path in files.items()}
            stored = store(self.script, hashes.values())
            place(self.script, run, {label: stored.hashes[path] for label, path in hashes.items()})
        job = job_text(command, {**self.board.environment, **dict(environment or {})}, folder)
        limit = timeout or self.board.limits.run_seconds
        raw = Path(log_file) if log_file else None
        with _raw_log(raw) as out_log, _raw_log(raw and raw.with_name(f"{raw.name}.stderr")) as err_log:
            most = 2 * self.board.limits.output_mb << 20
            outputs = _Output(out_log, on_line, most), _Output(err_log, on_line, most)
            attempt = _Attempt(self, run, limit, outputs)
            try:
                result = attempt.go(job)
            except BaseException:
                attempt.end_by_force()
                raise
        if not keep:
            self.drop(run)
        return result

    def drop(self, run: str) -> None:
        """Remove the folder of a run that has ended."""
        with suppress(BoardFault):
            self.script.call("drop", run)


class _raw_log:
    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.stream: BinaryIO | None = None

    def __enter__(self) -> BinaryIO | None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = self.path.open("wb")
        return self.stream

    def __exit__(self, *_: object) -> None:
        if self.stream:
            self.stream.close()


class _Attempt:
    """One command from start to end, over as many connections as it takes."""

    def __init__(
        self, runner: RemoteRunner, run: str, timeout: float, outputs: tuple[_Output, _Output]
    ) -> None:
        self.runner, self.run, self.timeout, self.outputs = runner, run, timeout, outputs
        self.script, self.limits = runner.script, runner.board.limits
        self.reconnections = 0
        self.started = False
        self._done = threading.Event()

    def go(self, job: str) -> RemoteResult:
        limits, lease = self.limits, self.runner.lease
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
            if self.runner.lease:
                self.runner.lease.check()
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
                raise RunLost("the command does not end", file=self.script.board.name, where=self.run)

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
            self.runner.drop(self.run)
        except BoardFault as fault:
            log.warning(
                "%s: the command was not ended from here (%s); the board ends it within %g s",
                self.script.board.name,
                fault.what,
                self.limits.grace_seconds,
            )
