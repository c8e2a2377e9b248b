"""`facekiln models`: the table, without torch unless it counts."""

import subprocess
import sys
from collections.abc import Callable
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
    assert "synthetic* trained published" in rows["retinaface"]
    assert "foamliu/MobileFaceNet-PyTorch" in rows["retinaface"]
    assert "426,608" not in rows["retinaface"]


def test_counts_work_and_tells_sizes_and_licences(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, root, "--count")
    assert rows["retinaface"].split()[2:4] == ["300", "426,608"]
    assert "456 27,293,600 44264.7 74364.6 640 1024=672x1024" in " ".join(rows["retinaface_r50"].split())
    assert "244 276,292 100.4 320=240x320 synthetic* trained published 1,168,374 MIT Linzaer/" in " ".join(
        rows["ulfd_rfb_320"].split()
    )
    assert "291 1,729,674 433.6 112 synthetic* trained - BSD-2-Clause -" in " ".join(rows["pfpld"].split())


def test_a_model_born_as_onnx_is_counted_where_its_file_is(
    root: Path,
    mirror: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = mirror("pfld_ghostone_112.onnx").parent
    monkeypatch.setenv("FACEKILN_MIRROR", str(tmp_path))
    assert "pfld_ghostone - - - 112" in " ".join(table(capsys, root, "--count")["ghostone"].split())
    monkeypatch.setenv("FACEKILN_MIRROR", str(folder))
    assert "pfld_ghostone - 702,864 74.9 112" in " ".join(table(capsys, root, "--count")["ghostone"].split())


def told(capsys: pytest.CaptureFixture[str], root: Path, name: str) -> str:
    assert main(["models", name, "--config", str(root / "config")]) == 0
    return capsys.readouterr().out


def test_one_model_is_told_with_its_trap(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, root, "ulfd_slim_640")
    assert "480x640 (HxW), 17640 priors, 323.1 M multiply-accumulates" in text
    assert "nominal steps would move boxes by up to 30 pixels" in text
    assert "rgb, (x - [127, 127, 127]) * [0.0078125, 0.0078125, 0.0078125], stretch" in text
    assert "02ca778098127c46d2b2680f1c398c7b993c12a424e94c34e6d608beb73481e4" in text
    assert "move boxes" not in told(capsys, root, "retinaface")


def test_a_landmark_model_is_told_with_its_crop(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, root, "pfpld")
    assert "square of 0.9 x the box's longer side, 0.4 of it above the centre" in text
    assert "synthetic* trained" in text


def test_an_unknown_model_gets_a_suggestion(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "ulfd_rbf_320", "--config", str(root / "config")]) == 1
    assert "did you mean 'ulfd_rfb_320'?" in capsys.readouterr().err


def test_needs_no_torch(root: Path) -> None:
    code = (
        "import sys\nfrom facekiln.cli import main\n"
        f"main(['models', '--config', {str(root / 'config')!r}])\nsys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
