"""What results/predictions/board-{board}/... asks: a declared board that runs the artifact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.boards.infer_board import tool_on
from facekiln.boards.settings import Board, load_boards
from facekiln.config import known
from facekiln.predictions.names import PredictionTargets, backend_on

# The modules that decide a board's predictions, and what runs on the board; how it is reached does not.
BOARD_CODE = (
    "facekiln.predictions.one",
    "facekiln.boards.infer_child",
    "facekiln.boards.infer_log",
    "facekiln.boards.board_script",
)


class BoardTargets(PredictionTargets):
    """Inputs and digests of predictions on boards; the rules' wildcards are board, artifact and dataset."""

    def board(self, name: str, artifact: str) -> Board:
        """Return a board, having seen that it runs such artifacts.

        Raises:
            KilnError: no such board (the nearest is suggested), or none that runs such files.
        """
        boards = load_boards(self._folder)
        board = boards[known(name, boards, "board")]
        tool_on(board, artifact)
        return board

    def files(self, wildcards: Any) -> dict[str, str | list[str]]:
        """See `PredictionTargets.files`.

        Raises:
            KilnError: see `board` and `PredictionTargets.wanted`.
        """
        self.board(wildcards.board, wildcards.artifact)
        return super().files(_as_backend(wildcards))

    def digest(self, wildcards: Any) -> str:
        """See `PredictionTargets.digest`; the board's runtime, and which board it is, are part of it."""
        board = self.board(wildcards.board, wildcards.artifact)
        runtime = board.runtime(tool_on(board, wildcards.artifact).name)
        key = board.address.host_key if board.address else None
        told = (
            board.chip,
            board.virtual,
            key,
            runtime.tool,
            runtime.infer,
            sorted(board.environment.items()),
        )
        return sha256_of_text(f"{super().digest(_as_backend(wildcards))} {told}")[:16]


def _as_backend(wildcards: Any) -> Any:
    return SimpleNamespace(
        backend=backend_on(wildcards.board), artifact=wildcards.artifact, dataset=wildcards.dataset
    )
