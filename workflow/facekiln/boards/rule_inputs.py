"""What the rule of measurements asks: the files of an artifact, with the board's name checked."""

from __future__ import annotations

from pathlib import Path

from facekiln.boards.settings import load_boards
from facekiln.config import DEFAULT_FOLDER, known
from facekiln.targets import RESULTS

LOCAL = "local"


def benched(board: str, artifact: str, folder: Path | str = DEFAULT_FOLDER) -> dict[str, str]:
    """Return the files that a measurement of `results/{artifact}` needs: `artifact`, and `weights` of ncnn.

    Args:
        board: of config/boards.yaml, or "local" for this machine.
        artifact: path below `results/`.
        folder: the config folder.

    Raises:
        KilnError: no such board; the message suggests the nearest.
    """
    known(board, [LOCAL, *load_boards(folder)], "board")
    files = {"artifact": f"{RESULTS}/{artifact}"}
    if artifact.endswith(".param"):
        files["weights"] = f"{RESULTS}/{artifact.removesuffix('.param')}.bin"
    return files
