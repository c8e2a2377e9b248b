"""Progress of long work: a bar on a terminal, a line every ten seconds where there is none."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("facekiln")


def set_up_logging(log_file: Path | None = None) -> None:
    """Send messages to standard error, and to `log_file` too where one is given."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if log_file:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        written = logging.FileHandler(log_file, mode="w", encoding="utf-8")
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(written)


def progress_bar(total: int, what: str, unit: str = "it", initial: int = 0) -> tqdm:
    """Return a bar with time left; `update(n)` moves it, `set_postfix(loss=...)` shows figures."""
    from tqdm import tqdm  # slow to import, and every verb imports this module

    quiet = not sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        file=sys.stderr,
        mininterval=10.0 if quiet else 0.2,
        ascii=quiet,
        dynamic_ncols=not quiet,
    )
