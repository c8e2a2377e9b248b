"""Files to the board, once per content: verified, resumable, never half there.

On the board a file is `WORK/blobs/SHA256`; a run gets it under a name of its own by a link. What was cut goes
on where it stopped; what arrives is hashed there, and named only when the hash is right.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from facekiln.artifact import sha256_of
from facekiln.boards.download import fetch, fetch_all
from facekiln.boards.faults import BadAnswer, BoardFault, ConnectionLost, Damaged, DiskFull
from facekiln.boards.script import BoardScript
from facekiln.boards.transfer import ATTEMPTS, CHUNK, Meter
from facekiln.errors import shortened
from facekiln.unreadable import unreadable

__all__ = ["Stored", "clean", "fetch", "fetch_all", "place", "store"]

_SMALL = 1 << 20  # bytes; below it a file is sent without asking first where to go on
_PER_CALL = 400  # hashes on one command line


@dataclass(frozen=True)
class Stored:
    """What `store` did.

    Attributes:
        hashes: local path -> sha256, the blob's name on the board.
        sent: files that were sent; the others were there.
        sent_bytes: bytes of those files.
    """

    hashes: dict[Path, str]
    sent: int
    sent_bytes: int


def store(script: BoardScript, paths: Iterable[Path | str], *, parallel: int | None = None) -> Stored:
    """Bring files into the board's store, each content once.

    Args:
        script: of a connected board.
        paths: local files.
        parallel: files at the same time, by default `limits.parallel_uploads`.

    Raises:
        DiskFull: they do not fit and leave `limits.reserve_mb`; nothing was sent.
        BoardFault: the connection is lost for good, or bytes arrive damaged again and again.
        KilnError: a file cannot be read.
    """
    hashes = {path: sha256_of(path) for path in dict.fromkeys(Path(path) for path in paths)}
    wanted = {sha: path for path, sha in hashes.items()}
    present, free = _present(script, list(wanted))
    missing = {sha: path for sha, path in wanted.items() if sha not in present}
    sizes = {sha: path.stat().st_size for sha, path in missing.items()}
    total = sum(sizes.values())
    if missing:
        _check_space(script, total, free)
        meter = Meter(total, f"to {script.board.name}")
        workers = min(len(missing), parallel or script.board.limits.parallel_uploads)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="upload")
        try:
            # The largest first, so that the last ones to end are small.
            order = sorted(missing, key=lambda sha: -sizes[sha])
            jobs = [
                pool.submit(_Upload(script, missing[sha], sha, sizes[sha], meter.move).send) for sha in order
            ]
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            meter.close()
    return Stored(hashes, len(missing), total)


def _present(script: BoardScript, hashes: list[str]) -> tuple[set[str], int]:
    found: set[str] = set()
    free_kb = 0
    for start in range(0, len(hashes), _PER_CALL) or (0,):
        answer = script.call("has", *hashes[start : start + _PER_CALL])
        free_kb = answer.number("free_kb")
        found.update(key for key in answer.fields if key != "free_kb")
    return found, free_kb << 10


def _check_space(script: BoardScript, needed: int, free: int) -> None:
    reserve = script.board.limits.reserve_mb << 20
    if needed + reserve > free:
        raise DiskFull(
            "too little space on the board; nothing was sent",
            file=script.board.name,
            where=script.board.work,
            value=f"{free >> 20} MB free",
            limit=f"{(needed + reserve + (1 << 20) - 1) >> 20} MB, with `limits.reserve_mb`",
            hint=f"`facekiln board clean {script.board.name}`, or another work folder",
        )


class _Upload:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self, script: BoardScript, path: Path, sha: str, size: int, moved: Callable[[int], None]
    ) -> None:
        self.script, self.path, self.sha, self.size, self.moved = script, path, sha, size, moved
        self.token = uuid.uuid4().hex
        self.shown = 0  # bytes that the meter shows for this file

    def send(self) -> None:
        failures, damaged, best = 0, 0, -1
        lost: ConnectionLost | None
        offset: int | None = 0 if self.size < _SMALL else None
        while True:
            generation = self.script.session.generation
            try:
                if offset is None:
                    offset = self._begin()
                if offset is None or self._receive(offset):
                    self._show(self.size)
                    return
                lost = None  # cut short, or another client was at it: ask again where to go on
            except ConnectionLost as fault:
                lost = fault
            except Damaged:
                damaged += 1
                if damaged == ATTEMPTS - 2:
                    raise
                offset = None
                continue
            offset = None
            failures = 0 if self.shown > best else failures + 1
            best = max(best, self.shown)
            if failures >= ATTEMPTS:
                raise lost or ConnectionLost(
                    "the board never gets all of it", file=self.script.board.name, where=str(self.path)
                )
            if lost:
                self.script.session.reconnect(generation)

    def _show(self, count: int) -> None:
        self.moved(count - self.shown)
        self.shown = count

    def _begin(self) -> int | None:
        """Return where to go on, or None when the blob is there."""
        watched, since, steal = -1, time.monotonic(), False
        while True:
            answer = self.script.ask("begin", self.sha, self.token, self.size, *(["steal"] if steal else []))
            if answer.word == "have":
                return None
            if answer.word == "at":
                offset = answer.number("offset")
                _check_space(self.script, self.size - offset, answer.number("free_kb") << 10)
                return offset
            if answer.word != "busy":
                raise BadAnswer(f"'{answer.word}' to begin", file=self.script.board.name)
            # Another client sends the same bytes: wait while they come in.
            if answer.number("size") != watched:
                watched, since = answer.number("size"), time.monotonic()
                self._show(min(watched, self.size))
            steal = time.monotonic() - since > self.script.board.limits.stall_seconds
            time.sleep(0.2)

    def _receive(self, offset: int) -> bool:
        """Send from there; True when the board has verified and named it."""
        self._show(offset)
        answer = self.script.ask(
            "receive",
            self.sha,
            self.token,
            offset,
            self.size,
            stdin=lambda: self._chunks(offset),
            idle=self.script.board.limits.stall_seconds,
        )
        if answer.word == "mismatch":
            self._show(0)
            raise Damaged(
                "the bytes that arrived are not those that were sent; they were removed",
                file=self.script.board.name,
                where=str(self.path),
                value=answer.fields.get("sha256"),
                limit=self.sha,
                hint="was the file changed meanwhile? Otherwise check the board's memory and storage",
            )
        if answer.word not in ("stored", "short", "moved"):
            raise BadAnswer(f"'{answer.word}' to receive", file=self.script.board.name)
        return answer.word == "stored"

    def _chunks(self, offset: int) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                while chunk := stream.read(CHUNK):
                    yield chunk
                    self._show(self.shown + len(chunk))
        except OSError as error:
            raise unreadable(self.path, error) from error


def place(script: BoardScript, run: str, names: Mapping[str, str]) -> str:
    """Link blobs into a run's folder and return that folder's path on the board.

    Args:
        script: of a connected board.
        run: the run, see `facekiln.boards.remote`.
        names: file name in the folder -> sha256.

    Raises:
        BoardFault: a blob is not there (any more).
    """
    pairs = [word for name, sha in names.items() for word in (sha, name)]
    folder = f"{script.board.work}/runs/{run}"
    for start in range(0, len(pairs), _PER_CALL):
        folder = script.call("place", run, *pairs[start : start + _PER_CALL]).fields["folder"]
    return folder


def clean(script: BoardScript, days: int | None = None) -> int:
    """Remove blobs and runs that were not used for `days` (`limits.keep_days`), and return how many.

    Raises:
        BoardFault: see `BoardScript.call`.
    """
    keep = script.board.limits.keep_days if days is None else days
    done = script.stream("clean", keep)
    if done.status:
        raise BoardFault(
            "could not be cleaned",
            file=script.board.name,
            hint=shortened(done.stderr.decode("utf-8", "replace")),
        )
    return sum(line.startswith(b"removed=") for line in done.stdout.splitlines())
