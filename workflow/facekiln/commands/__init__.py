"""One module per noun of the command line: arguments and calls only, the logic is in the rooms.

Each module has `add_arguments(parser)`, which sets `run` on the namespace, and imports its room inside the
functions that run.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_SET_PDEATHSIG = 1  # of prctl(2): a signal when the parent ends


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, example: str
) -> argparse.ArgumentParser:
    """Add one verb to a noun's subparsers: its summary, an example and the function that runs it."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config FOLDER`, by default the checkout's."""
    parser.add_argument("--config", type=Path, default=Path("config"), metavar="FOLDER")


def end_on_sigterm() -> None:
    """Let SIGTERM, by which Snakemake ends its jobs, end this one as Ctrl-C does.

    Then what was started on a board ends too, and its lease is freed. A Snakemake that was killed itself ends
    nothing, so its job asks the kernel to be told.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    parent = os.getppid()
    with suppress(OSError, AttributeError):  # not Linux
        # `python .../bin/snakemake` or `python -m snakemake`
        words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[:3]
        if b"snakemake" in map(os.path.basename, words):
            ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                raise KeyboardInterrupt
