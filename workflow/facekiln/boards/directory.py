"""Boards without an SSH server: a folder that both sides see (NFS), or that is carried (SD card).

The folder holds what a board's work folder holds over SSH: blobs, runs, and board.sh. On the board somebody
starts `sh board.sh ... serve` once, over a serial line or from an init script; it takes jobs from the folder,
under the same watcher and limits. Where nothing serves, the steps are printed as a plan.
"""

from __future__ import annotations

import math
import shlex
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from facekiln.artifact import sha256_of, write_text
from facekiln.boards.faults import BoardBusy, DiskFull, ReadOnly, RunEnded, RunTimeout, Unreachable
from facekiln.boards.job import RemoteResult, job_text
from facekiln.boards.script import parse_answer, script_text
from facekiln.boards.settings import Board
from facekiln.boards.shared_files import bring_home, read_inside
from facekiln.errors import KilnError, printable
from facekiln.progress import log

SCRIPT = "board.sh"
_SILENT = 15.0  # seconds after which a server that wrote no new sign of life is taken for gone
_SLICE = 0.2


def serve_command(board: Board) -> str:
    """Return what has to be started on the board, once."""
    return f"sh {shlex.join([f'{board.work}/{SCRIPT}', board.work, board.lease, 'serve'])}"


def _folder_of(board: Board) -> Path:
    if board.folder is None:
        raise KilnError(f"its transport is '{board.transport}': there is no folder", where=board.name)
    return Path(board.folder)


class DirectoryRunner:
    """Runs commands through a folder, one at a time; see `RemoteRunner` for the arguments."""

    def __init__(self, board: Board) -> None:
        """Prepare the folder.

        Raises:
            ReadOnly: it is not there or cannot be written.
        """
        self.board = board
        self.folder = _folder_of(board)
        try:
            for name in ("blobs", "runs", "queue"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            if not self._is(SCRIPT, script_text()):
                write_text(self.folder / SCRIPT, script_text())
        except (OSError, KilnError) as error:
            raise ReadOnly(
                f"the shared folder cannot be written: {error}",
                file=board.name,
                where=str(self.folder),
                hint="is it mounted here, with the right to write?",
            ) from error

    def _is(self, name: str, text: str) -> bool:
        path = self.folder / name
        return path.is_file() and path.read_text(encoding="utf-8") == text

    def prepare(
        self,
        command: Sequence[str],
        *,
        run: str,
        timeout: float | None = None,
        files: Mapping[str, Path | str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Path:
        """Put files and job into the folder and return the run's folder; nothing is queued yet.

        Raises:
            DiskFull: they do not fit.
            KilnError: a file cannot be read.
        """
        here = self.folder / "runs" / run
        here.mkdir(parents=True, exist_ok=True)
        for name, path in (files or {}).items():
            self._place(Path(path), here / name)
        job = job_text(command, {**self.board.environment, **dict(environment or {})})
        write_text(here / "job.sh", job)
        limits = self.board.limits
        words = [
            run,
            math.ceil(timeout or limits.run_seconds),
            math.ceil(limits.grace_seconds),
            f"{limits.poll_seconds:g}",
            limits.output_mb << 10,
            limits.memory_mb << 10,
        ]
        write_text(here / "arguments", " ".join(map(str, words)) + "\n")
        return here

    def _place(self, source: Path, target: Path) -> None:
        """Copy once per content; where there are no links (FAT), a run gets a copy of its own."""
        blob = self.folder / "blobs" / sha256_of(source)
        part = blob.with_name(f"{blob.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            size = source.stat().st_size
            if shutil.disk_usage(self.folder).free < size + (self.board.limits.reserve_mb << 20):
                raise DiskFull(
                    "too little space in the shared folder",
                    file=self.board.name,
                    where=str(self.folder),
                    limit=f"{(size >> 20) + 1 + self.board.limits.reserve_mb} MB",
                    hint="remove old runs and blobs there",
                )
            if not blob.exists():
                shutil.copyfile(source, part)
                if sha256_of(part) != blob.name:
                    raise DiskFull("a copy is not what was copied", file=self.board.name, where=str(blob))
                part.replace(blob)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(blob)
            except OSError:
                shutil.copyfile(blob, target)
        except OSError as error:
            raise KilnError(f"cannot be brought to the board: {error.strerror}", file=source) from error
        finally:
            part.unlink(missing_ok=True)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        files: Mapping[str, Path | str] | None = None,
        environment: Mapping[str, str] | None = None,
        log_file: Path | str | None = None,
        on_line: Callable[[str], object] | None = None,
        keep: bool = False,
    ) -> RemoteResult:
        """Run a command and wait for its end.

        Raises:
            Unreachable: nothing serves the folder; the message has the command to start.
            RunTimeout, RunEnded: as `RemoteRunner.run`.
            BoardFault: it does not fit, or the board was taken by another.
        """
        run = uuid.uuid4().hex[:16]
        here = self.prepare(command, run=run, timeout=timeout, files=files, environment=environment)
        limit = timeout or self.board.limits.run_seconds
        ended = False
        try:
            (self.folder / "queue" / run).touch()
            self._wait(here, limit)
            ended = True
        finally:
            if not ended:
                (here / "cancel").touch()
                (self.folder / "queue" / run).unlink(missing_ok=True)
        result = collect(self.board, run)
        if log_file:
            for name, suffix in (("stdout", ""), ("stderr", ".stderr")):
                self.fetch(run, name, f"{log_file}{suffix}")
        if on_line:
            for line in (result.stdout + result.stderr).splitlines():
                on_line(printable(line))
        if not keep:
            self.drop(run)
        return result

    def fetch(self, run: str, name: str, target: Path | str) -> None:
        """Bring a file of a run's folder home, whole or not at all.

        Raises:
            BoardFault: no such file, or a symbolic link, which might lead out of the folder.
            KilnError: this machine cannot write it.
        """
        bring_home(self.folder, f"runs/{run}/{name}", target)

    def drop(self, run: str) -> None:
        """Remove the folder of a run that has ended."""
        shutil.rmtree(self.folder / "runs" / run, ignore_errors=True)

    def _wait(self, here: Path, limit: float) -> None:
        beats, sign, since, begun = 0, "", time.monotonic(), None
        told = time.monotonic()
        while not (here / "status").exists():
            beats += 1
            write_text(here / "beat", f"{beats}\n")
            now = time.monotonic()
            served = self.folder / "served"
            seen = served.read_text(encoding="utf-8") if served.exists() else ""
            if seen != sign:
                sign, since = seen, now
            if begun is None and (here / "pid").exists():
                begun = now
            if now - since > _SILENT:
                raise Unreachable(
                    "nothing serves the shared folder",
                    file=self.board.name,
                    where=str(self.folder),
                    limit=f"{_SILENT:g} s",
                    hint=f"start on the board: {serve_command(self.board)}",
                )
            if begun is not None and now - begun > limit + self.board.limits.grace_seconds + _SILENT:
                raise RunTimeout(
                    "the board does not end the command", file=self.board.name, limit=f"{limit:g} s"
                )
            if begun is None and now - told > 10:
                log.info("%s: waiting for the board to take the job", self.board.name)
                told = now
            time.sleep(_SLICE)


def collect(board: Board, run: str) -> RemoteResult:
    """Return the result of a run that has ended in the shared (or carried) folder.

    Raises:
        BoardBusy: it has not ended.
        RunTimeout, RunEnded: a limit ended it.
        BoardFault: what came back is not whole, or a link stands in place of a file.
    """
    folder = _folder_of(board)
    here = folder / "runs" / run
    if not (here / "status").exists():
        raise BoardBusy(
            "the run has not ended",
            file=board.name,
            where=run,
            hint="follow the plan to its end, then bring the folder back",
        )
    files = {name: read_inside(folder, f"runs/{run}/{name}") for name in ("status", "stdout", "stderr")}
    texts = {name: data.decode("utf-8", "replace") for name, data in files.items()}
    state = parse_answer(board.name, texts["status"])
    reason = state.fields.get("reason", "done")
    if reason == "timeout":
        raise RunTimeout("the command was ended at its time limit", file=board.name, where=run)
    if reason != "done":
        raise RunEnded(f"the command was ended: {reason}", file=board.name, where=run)
    return RemoteResult(
        status=state.number("status"),
        stdout=texts["stdout"],
        stderr=texts["stderr"],
        seconds=state.number("centi") / 100,
        run=run,
        folder=f"{board.work}/runs/{run}",
    )


def plan_of(board: Board, run: str) -> str:
    """Return the steps, for a person, by which a prepared run comes to be and comes home."""
    folder = _folder_of(board)
    words = shlex.join([f"{board.work}/{SCRIPT}", board.work, board.lease, "once", run])
    return "\n".join(
        [
            f"1. {folder} is what the board is to see as {board.work}. If it is not shared, copy it there:",
            f"     SD card:  cp -r {shlex.quote(str(folder))}/. /media/CARD/ ; umount /media/CARD",
            f"     NFS:      mount -o nolock HOST:{shlex.quote(str(folder.resolve()))} {board.work}",
            "2. On the board (serial line, telnet, keyboard):",
            f"     sh {words}",
            "   It prints `kiln-end STATUS` when it is done.",
            f"3. Bring {board.work}/runs/{run} back to {folder / 'runs' / run}, if it is not shared.",
            f"4. Here:  facekiln board collect {board.name} {run}",
            "",
        ]
    )
