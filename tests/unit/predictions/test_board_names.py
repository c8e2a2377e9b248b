"""What predictions on a board depend on."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from facekiln.config import load_config
from facekiln.predictions.board_names import BoardTargets

BOARD = """
boards:
  here: {host: h, port: 22, user: u, runtimes: {onnxruntime: {tool: /a/python}}, limits: {run_seconds: 100}}
"""


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("/a/python", "/b/python", True),
        ("user: u,", "user: u, environment: {OMP_NUM_THREADS: '1'},", True),
        ("user: u,", "user: u, virtual: true,", True),
        ("run_seconds: 100", "run_seconds: 200", False),
        ("port: 22", "port: 2222", False),
    ],
)
def test_what_decides_predictions_is_in_the_digest(
    tmp_path: Path, root: Path, old: str, new: str, again: bool
) -> None:
    folder = tmp_path / "config"
    shutil.copytree(root / "config", folder)
    wanted = SimpleNamespace(board="here", artifact="onnx/retinaface_640.sim.onnx", dataset="procedural")

    def digest(text: str) -> str:
        (folder / "boards.yaml").write_text(text)
        return BoardTargets(load_config(folder), folder).digest(wanted)

    assert old in BOARD
    assert (digest(BOARD) != digest(BOARD.replace(old, new))) is again
