"""What the verbs of `facekiln board` share: a board by name, connected, and words to a person."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.boards.script import BoardScript
    from facekiln.boards.settings import Board


def on_board(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a verb that takes the name of a board."""
    parser = add_verb(verbs, name, run, summary, example)
    parser.add_argument("name", metavar="NAME", help="a board of config/boards.yaml")
    add_config(parser)
    return parser


@contextmanager
def connected(board: Board) -> Iterator[BoardScript]:
    """Yield board.sh of a board, connected."""
    from facekiln.boards.script import BoardScript
    from facekiln.boards.session import Session

    with Session(board) as session:
        yield BoardScript(session)


@contextmanager
def board_of(options: argparse.Namespace) -> Iterator[BoardScript]:
    """Yield board.sh of the board that the command line names, connected."""
    from facekiln.boards.settings import load_board

    with connected(load_board(options.name, options.config)) as script:
        yield script


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
