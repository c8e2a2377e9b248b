"""Declaring what lies there: the entry that it prints opens."""

from __future__ import annotations

import re
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


_FACE = "<annotation><object><name>face</name><bndbox>{box}</bndbox></object></annotation>"


def refusal(
    folder: Path, kind: str, annotation: str, capsys: pytest.CaptureFixture[str], images: str = "."
) -> str:
    """Declare a dataset that is refused, and return what is told."""
    verb = ["dataset", "declare", "mine", "--kind", kind, "--folder", str(folder), "--images", images]
    assert main([*verb, "--annotation", annotation, "--licence", "made here"]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "file", "text", "told"),
    [
        ("voc", "a.xml", "<?xml version='1.0' encoding='nope'?><annotation/>", r"a\.xml: is not XML"),
        ("voc", "a.xml", _FACE.format(box="<xmin>1</xmin>"), r"a\.xml: ymin: lacks a number"),
        ("voc", "a.xml", "", r"a\.xml: is not XML"),
        ("voc", "a.txt", "not looked at", "holds no picture of such a dataset"),
        ("lapa", "a.txt", "106\n1 2\n", r"a\.txt: is no LaPa landmark file"),
        ("lapa", "a.txt", "106\n" + "1 nan\n" * 106, r"a\.txt: line 2: is no finite number"),
        ("lapa", "a.xml", "not looked at", "holds no picture of such a dataset"),
        ("300w_lp", "a.txt", "not looked at", "holds no picture of such a dataset"),
    ],
)
def test_broken_annotations_are_named_with_the_next_step(
    tmp_path: Path, kind: str, file: str, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / file).write_text(text)
    told_all = refusal(tmp_path, kind, "notes", capsys)
    assert re.search(told, told_all) and "next step: " in told_all


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("wflw", "1 2 3 a.jpg\n", r"list\.txt: line 1: is no WFLW row"),
        ("wflw", "", r"list\.txt: holds no picture"),
        ("pfld_list", "", r"list\.txt: holds no picture"),
        ("wider_label", "", r"list\.txt: holds no picture"),
        ("wflw", "\udcff", r"list\.txt: byte 0: is no UTF-8 text"),
    ],
)
def test_broken_lists_are_named_with_the_next_step(
    tmp_path: Path, kind: str, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(text, errors="surrogateescape")
    told_all = refusal(tmp_path, kind, "list.txt", capsys)
    assert re.search(told, told_all) and "next step: " in told_all


@pytest.mark.parametrize(
    ("points", "images", "told"),
    [("words", ".", "a.mat: pt2d: is no array"), (None, "elsewhere", "a.mat: lies outside the folder")],
)
def test_300w_lp_files_that_are_none(
    tmp_path: Path, points: str | None, images: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from scipy.io import savemat

    (tmp_path / "AFW").mkdir()
    savemat(tmp_path / "AFW" / "a.mat", {"pt2d": points or [[1.0] * 68] * 2, "Pose_Para": [[0.0] * 7]})
    assert told in refusal(tmp_path, "300w_lp", "AFW", capsys, images)
