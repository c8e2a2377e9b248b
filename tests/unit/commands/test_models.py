"""`facekiln models`: the table, without torch unless it counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from facekiln.cli import main


def table(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> dict[str, str]:
    assert main(["models", "--config", str(root / "config"), *arguments]) == 0
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}


def test_lists_every_model(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, root)
    assert {"retinaface", "retinaface_1mb", "retinaface_first"} <= set(rows)
    assert "512 640 768 1024" in rows["retinaface"]
    assert "synthetic* published" in rows["retinaface"]
    assert "foamliu/MobileFaceNet-PyTorch" in rows["retinaface"]
    assert "426,608" not in rows["retinaface"]


def test_counts_on_request(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = table(capsys, root, "--count")["retinaface"].split()
    assert row[2:4] == ["300", "426,608"]


def test_needs_no_torch(root: Path) -> None:
    code = (
        "import sys\nfrom facekiln.cli import main\n"
        f"main(['models', '--config', {str(root / 'config')!r}])\nsys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
