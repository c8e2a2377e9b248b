"""`facekiln sophon environment` and its line of `facekiln doctor`."""

from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.chips.sophon import environment as room
from facekiln.chips.sophon import make
from facekiln.cli import main
from facekiln.environment import findings
from support.sophon_stand_in import interpreter


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of toolchains; tools are taken to run, Python 3.10 is pretended."""
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(tmp_path / "toolchains"))
    monkeypatch.setenv("FACEKILN_PYTHON310", str(interpreter(tmp_path / "python3.10")))
    monkeypatch.setattr(make, "prove", lambda _: {"tool": "v1.26-20251229", "python": "3.10.9"})
    return tmp_path / "toolchains"


def verb(root: Path, *options: str) -> int:
    return main(["sophon", "environment", *options, "--config", str(root / "config")])


def line(root: Path) -> tuple[str, str]:
    row = next(row for row in findings(root / "config") if row.what == "sophon tools")
    return row.verdict, row.detail


def test_made_checked_and_removed(
    root: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verb(root) == 1
    assert "it is not made" in capsys.readouterr().out
    assert line(root)[0] == "absent" and "made on first need" in line(root)[1]
    assert verb(root, "--check") == 1
    assert "facekiln sophon environment --make" in capsys.readouterr().err

    assert verb(root, "--make") == 0
    assert verb(root) == 0 and "made" in capsys.readouterr().out
    assert line(root) == ("ok", f"tpu_mlir 1.26 in {next(place.glob('sophon-????????????'))}")
    assert verb(root, "--check") == 0
    assert "v1.26-20251229" in capsys.readouterr().out

    (next(place.glob("sophon-????????????")) / "bin" / "python").unlink()
    assert line(root)[0] == "missing" and "its interpreter is gone" in line(root)[1]
    assert verb(root, "--remove") == 0
    assert not list(place.glob("sophon-????????????"))

    monkeypatch.setenv("FACEKILN_PYTHON310", "/nowhere")
    assert line(root)[0] == "absent" and "cannot be: /nowhere" in line(root)[1]
    assert verb(root, "--make") == 1
    assert "$FACEKILN_PYTHON310: will not do" in capsys.readouterr().err


def test_a_release_that_is_wrong_on_bm1684_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb(root, "--make") == 0
    wanted = room.wanted
    monkeypatch.setattr(room, "wanted", lambda *given: replace(wanted(*given), version="1.27"))
    assert line(root)[1].endswith("WRONG ON BM1684: use 1.26")


def test_which_releases_are_wrong_on_bm1684() -> None:
    wrong = ("1.27", "1.28.1", "1.30.2", "v1.30.2-20260701", "2.0")
    assert all(room.is_faulty_on_bm1684(release) for release in wrong)
    assert not any(room.is_faulty_on_bm1684(release) for release in ("1.26", "1.21.1", "v1.26-20251229", ""))
