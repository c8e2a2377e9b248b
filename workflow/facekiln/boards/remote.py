"""Commands on a board: limits, raw logs, progress, a way back after a cut, and nothing left running.

A command runs detached below a watcher of board.sh, with its output in files. The client follows these files
and sends heartbeats. So a cut connection is found again and followed on; and whatever happens to the client
(SIGINT, SIGKILL, a lost network), the watcher ends the command and everything that it started.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from facekiln.boards.attempt import Attempt, drop
from facekiln.boards.job import RemoteResult, job_text
from facekiln.boards.lease import Lease
from facekiln.boards.output import Output, raw_log
from facekiln.boards.runner import RunResult
from facekiln.boards.script import BoardScript
from facekiln.boards.upload import place, store

__all__ = ["RemoteResult", "RemoteRunner", "RunResult", "job_text"]


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
        with raw_log(raw) as out_log, raw_log(raw and raw.with_name(f"{raw.name}.stderr")) as err_log:
            most = 2 * self.board.limits.output_mb << 20
            outputs = Output(out_log, on_line, most), Output(err_log, on_line, most)
            attempt = Attempt(self.script, self.lease, run, limit, outputs)
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
        drop(self.script, run)
