"""Artifacts on disk: atomic writes, hashes, and JSON that is the same to the byte every time."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from facekiln.errors import KilnError
from facekiln.unreadable import foreign_hint, readable_size, unreadable

_CHUNK = 1 << 20


def sha256_of(path: Path | str) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits.

    Raises:
        KilnError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        readable_size(path)
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the sha256 of a text's UTF-8 bytes as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _part_of(path: Path) -> Path:
    if path.name in ("", ".."):
        raise KilnError(
            "is a folder without a name of its own, which would be replaced", file=path, hint="name a new one"
        )
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def _remove_abandoned_parts(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path`."""
    prefix = f".{path.name}.{socket.gethostname()}."
    for part in path.parent.glob(f"{glob.escape(prefix)}*.part"):
        pid = part.name.removeprefix(prefix).removesuffix(".part")
        if pid.isdigit() and int(pid) != os.getpid() and not is_running(int(pid)):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Return whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# What a write ends with where there is no room: on the disk, in the quota, under `ulimit -f`.
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit of a file's size is reached (ulimit -f)",
}
_WRITE_HINTS = {
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "let this account write there (chmod, or its owner), or choose another folder",
    errno.ENOTDIR: "a file is where a folder should be, or the reverse: choose another name",
    errno.EISDIR: "a folder has this name: choose another, or remove it",
    errno.EEXIST: "a file has the name of the folder: choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def no_room(error: OSError, path: Path | str | None) -> KilnError | None:
    """Return the error for a write that found no room; None where something else is wrong."""
    if error.errno not in _NO_ROOM:
        return None
    return KilnError(
        f"{_NO_ROOM[error.errno]}; nothing was written",
        file=path,
        hint="free some space or choose another results folder, then run the same command again",
    )


def unwritable(path: Path | str, error: OSError) -> KilnError:
    """Return the error for a file or folder that cannot be written, with the next step."""
    return no_room(error, path) or KilnError(
        f"cannot be written: {error.strerror or error}", file=path, hint=_WRITE_HINTS.get(error.errno or 0)
    )


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` on success, remove it on any failure.

    Raises:
        KilnError: the disk is full or the folder cannot be written.
    """
    target = Path(path)
    part = _part_of(target)
    try:
        if target.exists() and not target.is_file() and not target.is_dir():  # the last fails by itself
            raise KilnError(
                "is a device or a pipe: it would be replaced by a file", file=target, hint="name a file"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_parts(target)
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):  # not to hide what went wrong
            part.unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Make the folder of a file that long work will write, and check that it can be written there.

    Raises:
        KilnError: it cannot.
    """
    trial = Path(path).with_name(f".{Path(path).name}.check")
    write_bytes(trial, b"")
    trial.unlink()


def check_folder(path: Path | str, names: Collection[str]) -> None:
    """Check that a folder that long work will write by `atomic_folder` can be written.

    Args:
        path: the folder.
        names: of all files that such work writes there; what else is there would be lost.

    Raises:
        KilnError: it cannot, a file has its name, or it holds something else.
    """
    target = Path(path)
    _part_of(target)
    if target.exists() and not target.is_dir():
        raise KilnError("is a file, where a folder would be written", file=target, hint="name a new folder")
    check_writable(target)
    held = {one.name.removesuffix(".kiln.json") for one in target.iterdir()} if target.is_dir() else set()
    for name in sorted(held.difference(names)):
        if not name.startswith("."):
            raise _foreign(target, name)


def _foreign(target: Path, name: str) -> KilnError:
    return KilnError(
        "holds other files, and would be replaced whole",
        file=target,
        value=name,
        hint="name a new folder, or remove this one",
    )


def _refuse_foreign(target: Path, part: Path) -> None:
    """Refuse to remove a folder that no earlier run of the same command can have written.

    Such a run left a sidecar beside it, or at least one of the same names in it; hidden ones are Snakemake's.
    """
    if not target.is_dir() or Path(f"{target}.kiln.json").exists():
        return
    held = {path.name for path in target.iterdir() if not path.name.startswith(".")}
    if held and held.isdisjoint(path.name for path in part.iterdir()):
        raise _foreign(target, sorted(held)[0])


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it replaces `path` whole, on failure it is removed.

    Raises:
        KilnError: the disk is full or the folder cannot be written; or `path` is a folder that holds files
            and none that this would replace, so that somebody else's files would go.
    """
    target = Path(path)
    part = _part_of(target)
    try:
        _remove_abandoned_parts(target)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        _refuse_foreign(target, part)
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a whole file atomically (see `atomic_path`)."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically (see `atomic_path`)."""
    write_bytes(path, text.encode())


def read_bytes(path: Path | str) -> bytes:
    """Read a whole file.

    Raises:
        KilnError: it cannot be read.
    """
    try:
        readable_size(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path | str, errors: str = "strict") -> str:
    """Read a whole UTF-8 text file.

    Args:
        path: the file.
        errors: what becomes of other bytes, as `bytes.decode` takes it.

    Raises:
        KilnError: it cannot be read, or is not UTF-8.
    """
    try:
        readable_size(path)
        return Path(path).read_text(encoding="utf-8", errors=errors)
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise KilnError(f"cannot be read: {error}", file=path, hint="is it the right file?") from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically and the same to the byte every time.

    Raises:
        KilnError: the disk is full or the folder cannot be written.
        ValueError: the value holds NaN or infinity, which JSON has no form for.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        KilnError: the file is missing, unreadable or not JSON.
    """
    data = read_bytes(path)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise KilnError(f"is not JSON: {error}", file=path, hint=foreign_hint(data)) from error
