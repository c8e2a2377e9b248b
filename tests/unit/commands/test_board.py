"""`facekiln board`: the steps of a board that nothing connects to, from the plan to what came back."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from facekiln.cli import main


def test_plan_is_printed_followed_and_collected(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "card"
    (tmp_path / "boards.yaml").write_text(
        f"boards:\n  cam: {{transport: plan, folder: {folder}, work: {folder}, lease: {tmp_path}/lease}}\n"
    )
    config = ["--config", str(tmp_path)]
    assert main(["board", "run", "cam", *config, "--", "echo", "came home"]) == 0
    plan = [line.strip() for line in capfd.readouterr().out.splitlines()]
    subprocess.run(shlex.split(next(line for line in plan if line.startswith("sh "))), check=True)
    capfd.readouterr()
    words = shlex.split(next(line for line in plan if "board collect" in line).partition("facekiln ")[2])
    assert main([*words, *config]) == 0
    assert capfd.readouterr().out == "came home\n"
