"""Files that a board wrote into a shared or carried folder, read without leaving that folder.

Whoever controls the board writes there what they like, also a link to a file of this machine, which would be
read with our rights, or a pipe that never ends.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from facekiln.artifact import atomic_path
from facekiln.boards.faults import BoardFault
from facekiln.errors import KilnError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe is waited for before one can see that it is one.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file below a folder for reading, name by name, without following a link on the way.

    Args:
        folder: of this machine; it may be a link itself.
        name: relative, with `/`.

    Raises:
        BoardFault: there is no such file, it is none, or a link stands in its path.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise BoardFault("is no name inside the folder", file=folder, where=name)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        handle = os.open(parts[-1], _FILE, dir_fd=here)
    except OSError as error:
        raise _refusal(folder, name, error) from error
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BoardFault("is no file but a folder, pipe or device; it was not read", file=folder, where=name)
    return os.fdopen(handle, "rb")


def _refusal(folder: Path, name: str, error: OSError) -> BoardFault:
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            return BoardFault(
                "is a symbolic link, which is not followed out of the board's folder",
                file=folder,
                where=str(path.relative_to(folder)),
                value=path.readlink(),
                hint="name the file itself, or let the command on the board copy it",
            )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return BoardFault("there is no such file in the board's folder", file=folder, where=name)
    return BoardFault(f"cannot be read: {error.strerror}", file=folder, where=name)


def read_inside(folder: Path, name: str) -> bytes:
    """Return the content of a file below a folder; see `open_inside`."""
    with open_inside(folder, name) as stream:
        return stream.read()


def bring_home(folder: Path, name: str, target: Path | str) -> None:
    """Copy a file from below a folder to this machine, whole or not at all; see `open_inside`.

    Raises:
        BoardFault: see `open_inside`; what was at `target` stays.
        KilnError: this machine cannot write it.
    """
    try:
        with open_inside(folder, name) as source, atomic_path(target) as part, part.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except OSError as error:
        raise KilnError(f"cannot be written: {error.strerror}", file=target) from error
