"""What a run has done so far, in a folder beside its output, so that a killed run goes on where it was.

`run.json` says what the run is; `{first picture}.npz` hold the pictures done, in order. A run that is another
one than the folder's, in any value of `run.json`, starts anew and says which value differs.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from facekiln.artifact import atomic_path, write_json
from facekiln.errors import KilnError
from facekiln.predictions.store import Predictions, join, read_arrays, write_arrays
from facekiln.progress import log

_RUN = "run.json"


class Partial:
    """Results so far; `done` pictures of the run have been kept."""

    def __init__(
        self, output: Path, run: dict[str, Any], *, pictures: int = 256, seconds: float = 30.0
    ) -> None:
        """Open the folder of a run, and find out what is done.

        Args:
            output: the folder that the run will write.
            run: everything that decides its result, ready for JSON.
            pictures: kept at the latest after so many, or
            seconds: after so long.

        Raises:
            KilnError: the disk is full.
        """
        self.folder = output.with_name(f".{output.name}.partial")
        self._limits = (pictures, seconds)
        self._waiting: list[Predictions] = []
        self._kept_at = time.monotonic()
        self._parts: list[Predictions] = []
        self.done = 0
        if self.folder.is_dir():
            different = self._different(run)
            if different:
                log.warning("%s: is of another run, so all is predicted anew: %s", self.folder, different)
                shutil.rmtree(self.folder)
            else:
                self._read()
        if not (self.folder / _RUN).is_file():
            write_json(self.folder / _RUN, run)

    def add(self, one: Predictions) -> None:
        """Take the next picture's predictions; write what is waiting when it is time.

        Raises:
            KilnError: the disk is full; what was kept stays.
        """
        self._waiting.append(one)
        pictures, seconds = self._limits
        if len(self._waiting) >= pictures or time.monotonic() - self._kept_at >= seconds:
            self.keep()

    def keep(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            part = join(self._waiting, {})
            with atomic_path(self.folder / f"{self.done:08d}.npz") as path:
                write_arrays(path, part)
            self._parts.append(part)
            self.done += len(part)
            self._waiting = []
        self._kept_at = time.monotonic()

    def whole(self, meta: dict[str, Any]) -> Predictions:
        """Return everything so far, in order."""
        self.keep()
        return join(self._parts, meta)

    def remove(self) -> None:
        """Remove the folder, the output being written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _different(self, run: dict[str, Any]) -> str:
        """Name the values in which the folder's run is another one; empty where it is this one."""
        try:
            found = json.loads((self.folder / _RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{_RUN} is missing or damaged"
        wanted = json.loads(json.dumps(run))
        if not isinstance(found, dict):
            return f"{_RUN} is damaged"
        keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        return ", ".join(f"{key} was {found.get(key)}, is {wanted.get(key)}" for key in keys)

    def _read(self) -> None:
        """Read the parts up to the first that is missing or damaged; those after it are made again."""
        names = {int(path.stem): path for path in self.folder.glob("*.npz") if path.stem.isdigit()}
        while path := names.pop(self.done, None):
            try:
                part = read_arrays(path, {})
            except KilnError as error:
                log.warning("%s; it is made again", error.what)
                path.unlink(missing_ok=True)
                break
            self._parts.append(part)
            self.done += len(part)
        for path in names.values():
            path.unlink(missing_ok=True)
