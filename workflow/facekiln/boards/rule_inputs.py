"""What the rule of measurements asks: the files of an artifact, with the board's name checked."""

from __future__ import annotations

from pathlib import Path

from facekiln.boards.settings import load_boards
from facekiln.config import DEFAULT_FOLDER, known
from facekiln.targets import RESULTS

LOCAL = "local"


def benched(board: str, artifact: str, folder: Path | str = DEFAULT_FOLDER) -> list[str]:
    """Return the files that a measurement of `results/{artifact}` needs, the artifact first.

    Args:
        board: of config/boards.yaml, or "local" for this machine.
        artifact: path below `results/`.
        folder: the config folder.

    Raises:
        KilnError: no such board; the message suggests the nearest.
    """
    known(board, [LOCAL, *load_boards(folder)], "board")
    weights = [f"{RESULTS}/{artifact.removesuffix('.param')}.bin"] if artifact.endswith(".param") else []
    return [f"{RESULTS}/{artifact}", *weights]
