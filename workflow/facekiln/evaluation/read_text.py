"""Result files of WIDER FACE: a folder per event, a text file per picture.

A file has the picture's name, a count, and rows `x y width height score`. Both habits are read: the name with
or without its event and ending, and rows with or without a blank at their end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError
from facekiln.evaluation.detections import Detections, aligned, unknown_picture
from facekiln.evaluation.read_numbers import MARGIN
from facekiln.evaluation.read_rows import File, Table, block_rows
from facekiln.evaluation.wider_truth import Truth
from facekiln.unreadable import unreadable

Floats = NDArray[np.float64]

# Text is parsed in blocks of this size, which stay in the second-level cache.
_BLOCK = 1 << 18


def read_text(folder: Path | str, truth: Truth, *, official: bool = False) -> Detections:
    """Read a folder of result files.

    Args:
        folder: holds a folder per event; names with a leading dot are passed over.
        truth: the ground truth.
        official: as the official tool reads: a file's name says which picture it is, not its first line;
            the count is obeyed; a missing or malformed file is told and counts as empty. Else as the port:
            the first line counts, the count does not, and a missing picture is an error.

    Raises:
        KilnError: names the file and line of what is no number, NaN, infinite or missing, an event or
            picture that the truth does not have, or a picture that two files hold.
    """
    reader = _Reader(truth, official)
    for path in _event_folders(Path(folder), truth):
        reader.read_event(path)
    return reader.finish(folder)


def _event_folders(folder: Path, truth: Truth) -> Iterator[Path]:
    try:
        entries = {entry.name: entry for entry in os.scandir(folder) if not entry.name.startswith(".")}
    except OSError as error:
        raise unreadable(folder, error) from error
    for name, entry in sorted(entries.items()):
        if not entry.is_dir():
            raise KilnError(
                "is no folder of an event",
                file=entry.path,
                hint="the folder of results holds one folder per event, and nothing else",
            )
        if name not in truth.events:
            raise unknown_picture(f"{name}/", truth, entry.path)
    for event in truth.events:
        if event in entries:
            yield folder / event


class _Reader:
    """Collects files in one buffer, and parses it block by block."""

    def __init__(self, truth: Truth, official: bool) -> None:
        self.truth, self.official = truth, official
        self.files: list[File] = []
        self.pictures: list[int] = []
        self.counts: list[NDArray[np.int64]] = []
        self.declared: list[int] = []
        self.table = Table()
        self.malformed: list[str] = []
        self._reserve(2 * _BLOCK)

    def _reserve(self, size: int) -> None:
        """Make a buffer of a size, with what the old one held."""
        old = getattr(self, "buffer", None)
        self.buffer = bytearray(b"\n" * (size + 2 * MARGIN))
        self.view = memoryview(self.buffer)
        if old is None:
            self.end = MARGIN
        else:
            self.view[: self.end] = memoryview(old)[: self.end]

    def read_event(self, folder: Path) -> None:
        """Read one event's files, in the order of the truth."""
        event = folder.name
        pictures = self.truth.events[event]
        stems = [self.truth.images[at].partition("/")[2] for at in pictures]
        by_stem = {stem.encode(): at for stem, at in zip(stems, pictures, strict=True)}
        try:
            present = {entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")}
            handle = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise unreadable(folder, error) from error
        try:
            expected = [f"{stem}.txt" for stem in stems]
            for name in expected:
                if name in present:
                    self._read_file(name, handle, str(folder), by_stem)
            for name in sorted(present.difference(expected)):
                if self.official or not name.endswith(".txt"):
                    raise unknown_picture(
                        f"{event}/{name.removesuffix('.txt')}", self.truth, f"{folder}/{name}"
                    )
                self._read_file(name, handle, str(folder), by_stem)
        finally:
            os.close(handle)

    def _read_file(self, name: str, handle: int, folder: str, by_stem: dict[bytes, int]) -> None:
        begin = self.end
        try:
            file = os.open(name, os.O_RDONLY, dir_fd=handle)
            try:
                end = self._load(file)
            finally:
                os.close(file)
        except OSError as error:
            raise unreadable(f"{folder}/{name}", error) from error
        first = self.buffer.find(b"\n", begin, end)
        second = self.buffer.find(b"\n", first + 1, end) if first >= 0 else -1
        header = self.buffer[begin : end if first < 0 else first]
        line = self.buffer[first + 1 : end if second < 0 else second] if first >= 0 else b""
        stop = self._move(begin, end if second < 0 else second + 1, end)
        path = f"{folder}/{name}"
        picture = by_stem[name[:-4].encode()] if self.official else self._picture_of(header, path, by_stem)
        declared = self._declared(line, path)
        if declared is None:
            stop, declared = begin, 0
        self.files.append(File(path, picture, declared, begin, stop))
        self.end = stop
        if stop > _BLOCK:
            self._parse()

    def _load(self, file: int) -> int:
        """Read a whole file behind what the buffer holds; return where it ends."""
        end = self.end
        while True:
            room = len(self.buffer) - MARGIN - end
            if room < _BLOCK // 8:
                kept, self.end = self.end, end
                self._reserve(2 * len(self.buffer))
                self.end = kept
                continue
            got = os.readv(file, [self.view[end : end + room]])
            if not got:
                return end
            end += got

    def _move(self, begin: int, body: int, end: int) -> int:
        """Bring the rows to where the file begins; return where they end, a newline being last."""
        if self.buffer.find(b"\r", begin, end) >= 0:
            rows = self.buffer[body:end].replace(b"\r\n", b"\n")
            end = body + len(rows)
            self.view[body:end] = rows
        stop = begin + end - body
        self.view[begin:stop] = self.view[body:end]
        while stop > begin and self.buffer[stop - 1] == 10:
            stop -= 1
        if stop == begin:
            return begin
        self.buffer[stop] = 10
        return stop + 1

    def _picture_of(self, header: bytearray, path: str, by_stem: dict[bytes, int]) -> int:
        stem = bytes(header[header.rfind(b"/") + 1 :]).strip()
        picture = by_stem.get(stem.removesuffix(b".jpg"))
        if picture is not None:
            return picture
        if not stem:
            raise KilnError(
                "is empty: not even a picture's name",
                file=path,
                hint="a file without detections has the picture's name and the count 0",
            )
        event = Path(path).parent.name
        raise unknown_picture(
            f"{event}/{stem.removesuffix(b'.jpg').decode(errors='replace')[:80]}",
            self.truth,
            path,
            "line 1",
        )

    def _declared(self, line: bytes | bytearray, path: str) -> int | None:
        """Return the count line's number; None: the official tool would not understand this file."""
        word = bytes(line).strip()
        if word.isdigit() and len(word) < 16:
            return int(word)
        if self.official:
            self.malformed.append(path)
            return None
        if not word:
            return -1
        raise KilnError(
            "should be the number of detections",
            file=path,
            where="line 2",
            value=word[:60].decode(errors="replace"),
            hint="the first two lines are the picture's name and a count; the port drops both unread",
        )

    def _parse(self) -> None:
        """Parse the rows of all files in the buffer, and empty it."""
        table, counts, malformed = block_rows(self.buffer, self.end, self.files, self.official)
        self.table.append(table)
        self.counts.append(counts)
        self.malformed += malformed
        self.pictures += [file.picture for file in self.files]
        self.declared += [file.declared for file in self.files]
        self.files.clear()
        self.end = MARGIN

    def finish(self, folder: Path | str) -> Detections:
        """Return all detections in the order of the truth."""
        if self.files:
            self._parse()
        counts = np.concatenate([np.zeros(0, np.int64), *self.counts])
        table = self.table.rows()
        declared = np.array(self.declared, np.int64)
        if self.official:
            table, counts = self._obeyed(table, counts, declared)
        elif (other := int(((declared >= 0) & (declared != counts)).sum())) > 0:
            _warn(f"{folder}: {other} files have another number of rows than their count line says")
        if self.malformed:
            shown = ", ".join(self.malformed[:3])
            _warn(f"{folder}: {len(self.malformed)} files are malformed and count as empty: {shown}")
        return aligned(
            self.truth,
            self.pictures,
            counts,
            table,
            folder,
            missing="none" if self.official else "refuse",
        )

    def _obeyed(
        self, table: Floats, counts: NDArray[np.int64], declared: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Take as many rows of each file as its count says; one with fewer rows is malformed."""
        if (counts == declared).all():
            return table, counts
        kept = np.where(counts < declared, 0, declared)
        short = int((counts < declared).sum())
        if short:
            self.malformed += [f"{short} with fewer rows than their count line says"]
        within: Any = np.arange(table.shape[1]) - np.repeat(np.cumsum(counts) - counts, counts)
        return table[:, within < np.repeat(kept, counts)], kept


def _warn(text: str) -> None:
    from facekiln.progress import log

    log.warning("facekiln: %s", text)
