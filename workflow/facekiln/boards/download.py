"""Files from the board, home: verified, resumable, never half there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from facekiln.artifact import check_writable
from facekiln.boards.faults import ConnectionLost, Damaged
from facekiln.boards.script import BoardScript
from facekiln.boards.transfer import ATTEMPTS, CHUNK, Meter
from facekiln.errors import KilnError


def fetch(script: BoardScript, remote: str, local: Path | str) -> int:
    """Bring one file home: resumed after cuts, verified, renamed when whole.

    Args:
        script: of a connected board.
        remote: absolute path on the board.
        local: where to; what was there is replaced only by a whole file.

    Returns:
        its size in bytes.

    Raises:
        BoardFault: no such file, the connection is lost for good, or it changes while it is read.
        KilnError: this machine cannot write it.
    """
    local = Path(local)
    local.parent.mkdir(parents=True, exist_ok=True)
    check_writable(local)
    size = script.call("stat", remote).number("size")
    if shutil.disk_usage(local.parent).free < size:
        raise KilnError("does not fit on this machine's disk", file=local, value=f"{size >> 20} MB")
    # Named by what it is of, so that another run of the same command goes on with it.
    part = local.with_name(
        f".{local.name}.{hashlib.sha256(f'{script.board.name}:{remote}'.encode()).hexdigest()[:12]}.part"
    )
    meter = Meter(size, f"from {script.board.name}")
    try:
        for attempt in range(ATTEMPTS - 2):
            with ThreadPoolExecutor(1, thread_name_prefix="hash") as beside:
                told = beside.submit(script.call, "hash", remote, idle=script.board.limits.run_seconds)
                seen = _fetch_part(script, remote, part, size, meter)
            if seen is not None and seen == told.result().fields["sha256"]:
                part.replace(local)
                return size
            # Bytes of an earlier file of that name, or it was written to meanwhile.
            part.unlink()
            meter.move(-size)
            if attempt:
                size = script.call("stat", remote).number("size")
    except OSError as error:
        raise KilnError(f"cannot be written: {error.strerror}", file=local) from error
    finally:
        meter.close()
    raise Damaged(
        "arrives with another hash each time",
        file=script.board.name,
        where=remote,
        hint="is it being written to?",
    )


class _TooLong(Exception):
    """The board sends more than it said."""


def _fetch_part(script: BoardScript, remote: str, part: Path, size: int, meter: Meter) -> str | None:
    """Bring what is missing into `part`; return the whole's hash, None where more comes than was told."""
    digest = hashlib.sha256()
    done = 0
    if part.exists() and part.stat().st_size <= size:
        with part.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
    elif part.exists():
        part.unlink()
    meter.move(done)
    failures, best = 0, done
    with part.open("ab") as sink:

        def take(chunk: bytes) -> None:
            nonlocal done
            if done + len(chunk) > size:
                raise _TooLong
            sink.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            meter.move(len(chunk))

        while done < size:
            generation = script.session.generation
            try:
                script.stream("send", remote, done, on_stdout=take, idle=script.board.limits.stall_seconds)
                if done < size:
                    raise ConnectionLost("the file ended early", file=script.board.name, where=remote)
            except _TooLong:
                return None
            except ConnectionLost:
                failures = 0 if done > best else failures + 1
                best = done
                if failures >= ATTEMPTS:
                    raise
                script.session.reconnect(generation)
    return digest.hexdigest()


def fetch_all(script: BoardScript, files: Mapping[str, Path], *, parallel: int | None = None) -> int:
    """Bring files home (remote -> local), several at a time, and return their bytes.

    Raises:
        BoardFault, KilnError: as `fetch`.
    """
    workers = min(len(files), parallel or script.board.limits.parallel_uploads) or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="fetch") as pool:
        jobs = [pool.submit(fetch, script, remote, local) for remote, local in files.items()]
        return sum(job.result() for job in jobs)
