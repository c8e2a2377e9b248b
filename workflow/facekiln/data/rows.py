"""Reading annotation files line by line: text, numbers and names, each refused by file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facekiln.errors import KilnError
from facekiln.unreadable import readable_size, unreadable

AGAIN = "is it the right file? Mend it there, or fetch the annotation from its source again"
_LARGEST = 512 << 20  # bytes; the text of 300W-LP's 61,225 faces at 98 points is about 150 MB


def lines_of(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file without their ends (a byte-order mark and CRLF do no harm).

    Raises:
        KilnError: it cannot be read, is no UTF-8 text, or is larger than 512 MiB.
    """
    try:
        if readable_size(path) > _LARGEST:
            raise KilnError("is too large for an annotation file", file=path, limit=f"{_LARGEST} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise KilnError(
            f"is no UTF-8 text: {error.reason}", file=path, where=f"byte {error.start}", hint=AGAIN
        ) from error
    return [line.removesuffix("\r") for line in text.split("\n")]


def numbers(words: list[str], file: Path, place: int | str) -> list[float]:
    """Return words as finite numbers; `place` is the number of their line, or the name of their element.

    Raises:
        KilnError: one is no number, or not finite; names file and place.
    """
    where = f"line {place}" if isinstance(place, int) else place
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise KilnError("is no finite number", file=file, where=where, value=repr(word)[:60], hint=AGAIN)
        values.append(value)
    return values


def labels(names: Sequence[str], columns: ArrayLike, file: Path, where: str) -> dict[str, NDArray[np.int64]]:
    """Return the columns of [n,k] labels by name, each int64 [n].

    Raises:
        KilnError: a label is no small whole number; the columns are then not what they are taken for.
    """
    table = np.asarray(columns, np.float64).reshape(-1, len(names))
    whole = (table == np.round(table)) & (np.abs(table) < 1000)
    if not whole.all():
        row, column = np.argwhere(~whole)[0]
        raise KilnError(
            "is no label",
            file=file,
            where=f"{where}: {names[column]}",
            value=f"{table[row, column]:g}",
            limit="a whole number",
            hint="are the columns in the order of this layout?",
        )
    return {name: table[:, at].astype(np.int64) for at, name in enumerate(names)}


def below(folder: Path, name: str, *, file: Path, where: str | None = None) -> Path:
    """Return `folder / name`, where `name` comes from an annotation and must stay below the folder.

    Raises:
        KilnError: the name is empty, absolute, leaves the folder by `..`, or holds a backslash or a control
            character.
    """
    parts = PurePosixPath(name).parts
    if (
        not parts
        or PurePosixPath(name).is_absolute()
        or ".." in parts
        or re.match(r"[A-Za-z]:", name)
        or re.search(r"[\x00-\x1f\\]", name)
    ):
        raise KilnError(
            "names a picture outside its folder",
            file=file,
            where=where,
            value=repr(name)[:120],
            limit=f"a relative path with forward slashes, below {folder}",
            hint="do not trust this file; fetch the annotation from its source again",
        )
    return folder / name
