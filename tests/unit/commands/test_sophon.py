"""`facekiln sophon compile` by hand: what it asks for before the tool runs."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.environment import Environment
from facekiln.cli import main
from support.sophon import fake_environment


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Tools that are taken to be there; nothing here comes as far as running one."""
    made = fake_environment(tmp_path)
    monkeypatch.setattr("facekiln.chips.sophon.environment.environment_of", lambda *_: made)
    return made


def test_int8_is_not_compiled_without_pictures_to_judge_it_by(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bm1684x" / "retinaface_640_int8_1b.bmodel"
    named = ["sophon", "compile", str(tmp_path / "top"), "--table", "a.table", "--output", str(output)]
    assert main([*named, "--config", str(root / "config")]) == 1
    told = capsys.readouterr().err
    assert "int8 is judged by the faces that it sees" in told and "give --calibration FOLDER" in told
    assert not output.parent.exists()


def test_what_a_chip_lacks_is_refused_by_hand_too(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bm1684" / "retinaface_640_fp16_1b.bmodel"
    named = ["sophon", "compile", str(tmp_path / "top"), "--output", str(output)]
    assert main([*named, "--config", str(root / "config")]) == 1
    assert "bm1684 has no fp16: its tensor units compute" in capsys.readouterr().err
