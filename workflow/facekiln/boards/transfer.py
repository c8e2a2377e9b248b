"""What transfers in both directions share: their limits, and a progress bar."""

from __future__ import annotations

import threading

from facekiln.progress import progress_bar

CHUNK = 1 << 18  # bytes
ATTEMPTS = 5  # without a byte of progress


class Meter:
    """A progress bar that several threads move; and back, when a transfer starts again."""

    def __init__(self, total: int, what: str) -> None:
        """Show a bar of `total` bytes."""
        self._bar = progress_bar(total, what, unit="B")
        self._bar.unit_scale = True
        self._lock = threading.Lock()

    def move(self, count: int) -> None:
        """Move it by so many bytes."""
        with self._lock:
            self._bar.update(count)

    def close(self) -> None:
        """End it."""
        self._bar.close()
