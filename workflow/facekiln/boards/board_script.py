"""The text of board.sh, our part on the board; a module of its own, so that results depend on it and no more.

What a board computes and how long it takes depends on the script that starts and watches it there, but not
on how the board is reached.
"""

from __future__ import annotations

import functools
from pathlib import Path

from facekiln.artifact import sha256_of_text

_FILE = Path(__file__).with_name("board.sh")


@functools.cache
def script_text() -> str:
    """Return the text of board.sh."""
    return _FILE.read_text(encoding="utf-8")


def script_digest() -> str:
    """Return the hash of board.sh, for its name on the board."""
    return sha256_of_text(script_text())[:12]
