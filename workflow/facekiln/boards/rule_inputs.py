"""What the rule of measurements asks: the files of an artifact, with the board's name checked."""

from __future__ import annotations

from pathlib import Path

from facekiln.boards.settings import load_boards
from facekiln.config import DEFAULT_FOLDER, Config, known
from facekiln.errors import KilnError
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


def compared(board: str, artifact: str, config: Config) -> dict[str, str]:
    """Return the two records of a gate of throughput: `new`, and `stored` of the config's folder.

    Raises:
        KilnError: nothing is stored for this artifact on this board.
    """
    new = f"{RESULTS}/bench/{board}/{artifact}.json"
    stored = Path(config.gates["throughput"]["stored"], board, f"{artifact}.json")
    if not stored.is_file():
        raise KilnError(
            "no throughput is stored to compare with",
            file=stored,
            hint=f"measure, look at it, and keep it: mkdir -p {stored.parent} && cp {new} {stored}",
        )
    return {"new": new, "stored": str(stored)}


def throughput_gates(config: Config) -> list[str]:
    """Return the verdicts that stored records ask for, in order of names; none where nothing is stored."""
    folder = Path(config.gates["throughput"]["stored"])
    found = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    stored = [path for path in found if not path.name.endswith(".kiln.json")]
    return [f"{RESULTS}/gates/throughput/{path.relative_to(folder).as_posix()}" for path in stored]
