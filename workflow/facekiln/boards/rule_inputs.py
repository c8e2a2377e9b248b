"""What the rule of measurements asks: the files of an artifact, with the board's name checked."""

from __future__ import annotations

import json
from pathlib import Path

from facekiln.artifact import sha256_of_text
from facekiln.boards.settings import load_board, load_boards
from facekiln.boards.tools import TOOLS
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


def measured_by(board: str, artifact: str, folder: Path | str = DEFAULT_FOLDER) -> str:
    """Return a hash of what decides a figure in a board's entry: its tools, and which board it is.

    How it is reached and its limits are left out.

    Raises:
        KilnError: no such board.
    """
    if board == LOCAL:
        return LOCAL
    entry = load_board(board, folder)
    tools = sorted(name for name, tool in TOOLS.items() if artifact.endswith(tool.suffix))
    runtimes = [(name, entry.runtimes[name].tool) for name in tools if name in entry.runtimes]
    key = entry.address.host_key if entry.address else None
    told = [entry.chip, entry.virtual, key, runtimes, sorted(entry.environment.items())]
    return sha256_of_text(json.dumps(told))[:16]


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
