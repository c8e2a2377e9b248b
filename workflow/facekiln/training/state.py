"""What a killed training needs to go on as if nothing had happened: one file, replaced whole."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from facekiln.artifact import write_bytes
from facekiln.errors import KilnError
from facekiln.progress import log

FORMAT = 1


class StateFile:
    """The state of one training on disk, named after all that decides its outcome.

    Saving does not change the outcome, so it is by time: a kill costs at most about `every` seconds.
    """

    def __init__(self, folder: Path, key: str, every: float = 60.0) -> None:
        """Name the file.

        Args:
            folder: where it lies; states of other trainings may lie beside it.
            key: a hash of all that decides the outcome: recipe, model, data, code, releases, device.
            every: seconds between two saves.
        """
        self.path = folder / f"state-{key[:16]}.pth"
        self._key, self._every = key, every
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none of this training.

        Raises:
            KilnError: the file is damaged.
        """
        if not self.path.exists():
            others = sorted(item.name for item in self.path.parent.glob("state-*.pth"))
            if others:
                log.info("%s: of another recipe, model, data or release; left alone", ", ".join(others))
            return None
        try:
            value = torch.load(self.path, map_location="cpu", weights_only=True)
            data = value["state"].numpy().tobytes()
            if (value["format"], value["key"]) != (FORMAT, self._key):
                raise ValueError("another training's")
            if hashlib.sha256(data).hexdigest() != value["sha256"]:
                raise ValueError("other bytes than were written")
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OSError,
        ) as error:
            raise KilnError(
                "is no state of this training, or damaged",
                file=self.path,
                hint="remove it to train from the start",
            ) from error
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            KilnError: the disk is full; the old file is still there.
        """
        inner = io.BytesIO()
        torch.save(state, inner)
        data = inner.getvalue()
        outer = io.BytesIO()
        packed = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        digest = hashlib.sha256(data).hexdigest()
        torch.save({"format": FORMAT, "key": self._key, "sha256": digest, "state": packed}, outer)
        write_bytes(self.path, outer.getvalue())
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= self._every

    def remove(self) -> None:
        """Remove the file of a training that is finished."""
        self.path.unlink(missing_ok=True)
