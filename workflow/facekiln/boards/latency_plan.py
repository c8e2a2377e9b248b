"""Which measurements stand in results/tables/latency.md: each artifact on each board that can run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from facekiln.boards.chips import chip_of, planned_chips, suits
from facekiln.boards.latency_log import RUNTIMES
from facekiln.boards.rule_inputs import LOCAL
from facekiln.boards.settings import Board, load_boards
from facekiln.boards.tools import TOOLS
from facekiln.config import DEFAULT_FOLDER, Config, known
from facekiln.errors import KilnError
from facekiln.targets import RESULTS


def fits(artifact: str, board: Board | None, folder: Path | str = DEFAULT_FOLDER) -> bool:
    """Return whether a board can run an artifact: it declares a tool of this kind, and is of its chip.

    Args:
        artifact: path below `results/`.
        board: None for this machine, which has ONNX Runtime and ncnn. Of SOPHON's it has to tell its chip.
        folder: the config folder, which tells what NNIE and MagicMind files are made for.
    """
    tools = {tool.name for tool in TOOLS.values() if artifact.endswith(tool.suffix)}
    if board is None:
        return bool(tools & set(RUNTIMES))
    if (
        board.transport != "ssh"
        or not tools & set(board.runtimes)
        or chip_of(artifact) not in (None, board.chip)
    ):
        return False
    return suits(planned_chips(artifact, folder), board.chip)


def records_of(config: Config, folder: Path | str = DEFAULT_FOLDER) -> list[str]:
    """Return the records of the table of latencies, board by board.

    Raises:
        KilnError: an unknown board, or nothing that any of the boards can run.
    """
    declared = load_boards(folder)
    boards: Mapping[str, Board | None] = {**declared, LOCAL: None}
    chosen = config.latency["boards"] or list(declared) or [LOCAL]
    artifacts = config.latency["artifacts"]
    found = [
        f"{RESULTS}/bench/{name}/{artifact}.json"
        for name in chosen
        for artifact in artifacts
        if fits(artifact, boards[known(name, boards, "board")], folder)
    ]
    if not found:
        raise KilnError(
            "none of the boards runs any of these artifacts",
            file=f"{folder}/config.yaml",
            where="latency",
            value=f"{', '.join(artifacts) or 'no artifact'} on {', '.join(chosen)}",
            hint="`facekiln board list` tells their tools; try `facekiln virtual up v1 --chip mlu370_s4`",
        )
    return found
