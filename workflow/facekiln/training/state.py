"""What a killed training needs to go on as if nothing had happened: one file, replaced whole."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import torch

from facekiln.artifact import atomic_path
from facekiln.errors import KilnError
from facekiln.progress import log

FORMAT = 1


class StateFile:
    """The state of a training on disk, for one training only.

    Saving does not change the outcome, so it is by time: a training loses at most about `every` seconds.
    """

    def __init__(self, path: Path, key: str, every: float = 60.0) -> None:
        """Name the file.

        Args:
            path: of the file; one that is there and of another training is kept beside, as `.other`.
            key: a hash of all that decides the outcome: recipe, model, data, torch release, device.
            every: seconds between two saves.
        """
        self._path, self._key, self._every = path, key, every
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none of this training.

        Raises:
            KilnError: the file is damaged.
        """
        if not self._path.exists():
            return None
        try:
            value = torch.load(self._path, map_location="cpu", weights_only=True)
            stored = value["format"], value["key"]
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
        ) as error:
            raise KilnError(
                "is no state of a training, or damaged",
                file=self._path,
                hint="remove it to train from the start",
            ) from error
        if stored != (FORMAT, self._key):
            other = self._path.with_name(f"{self._path.name}.other")
            self._path.replace(other)
            log.warning(
                "the saved state is of another recipe, model, data or release: training from the start "
                "(it is kept as %s)",
                other,
            )
            return None
        state: dict[str, Any] = value["state"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            KilnError: the disk is full; the old file is still there.
        """
        with atomic_path(self._path) as part:
            torch.save({"format": FORMAT, "key": self._key, "state": state}, part)
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= self._every

    def remove(self) -> None:
        """Remove the file of a training that is finished."""
        self._path.unlink(missing_ok=True)
