"""One module per noun of the command line: arguments and calls only, the logic is in the rooms.

Each module has `add_arguments(parser)`, which sets `run` on the namespace, and imports its room inside the
functions that run.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def seconds(text: str) -> float:
    """Return an argument's seconds: a number of 0 or more, neither infinite nor NaN.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds, 0 or more")
    return value


def end_on_sigterm() -> None:
    """Let SIGTERM, by which Snakemake ends its jobs, end this one as Ctrl-C does.

    Then what was started on a board ends too, and its lease is freed. A Snakemake that was killed itself ends
    nothing, so each one above this job is watched, also behind a shell.
    """
    from facekiln.boards.ancestors import ancestors_named, when_gone

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    parent = os.getppid()
    when_gone(ancestors_named("snakemake"), lambda: os.kill(os.getpid(), signal.SIGTERM))
    if os.getppid() != parent:  # it ended before it could be watched
        raise KeyboardInterrupt
