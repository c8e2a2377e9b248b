"""Declaring what lies there: the entry that it prints opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from facekiln.cli import main
from facekiln.data.declare import as_yaml, declare
from facekiln.data.declared import load_datasets, open_dataset
from facekiln.errors import KilnError

TEXT = "a/1.png\n1\n1 2 30 40 0 0 0 0 0 0\nb/2.png\n2\n1 2 30 40 0 0 0 1 0 0\n5 6 7 8 0 0 0 0 0 0\n"


@pytest.fixture
def folder(tmp_path: Path, make_picture: Callable[..., Path]) -> Path:
    for name in ("a/1.png", "b/2.png"):
        make_picture(tmp_path / "set/images" / name)
    (tmp_path / "set/gt.txt").write_text(TEXT)
    return tmp_path / "set"


def test_what_it_prints_opens(folder: Path, tmp_path: Path) -> None:
    entry = declare("mine", "wider_text", folder, "images", ["gt.txt"], "made here")
    assert entry["expected"] == {"images": 2, "faces": 3, "counted": 2, "folders": 2}
    (tmp_path / "datasets.yaml").write_text("datasets:\n" + as_yaml("mine", entry))
    assert len(open_dataset(load_datasets(tmp_path)["mine"])) == 2


def test_the_command_prints_yaml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb = ["dataset", "declare", "mine", "--kind", "wider_text", "--folder", str(folder)]
    assert main([*verb, "--annotation", "gt.txt", "--licence", "made here"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["mine"]["expected"]["images"] == 2


@pytest.mark.parametrize(
    ("kind", "annotation", "told"),
    [("wider_txt", "gt.txt", "did you mean 'wider_text'"), ("wider_text", "no.txt", "does not exist")],
)
def test_what_is_wrong_is_told(folder: Path, kind: str, annotation: str, told: str) -> None:
    with pytest.raises(KilnError, match=told):
        declare("mine", kind, folder, "images", [annotation], "made here")
