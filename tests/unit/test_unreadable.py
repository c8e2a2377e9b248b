"""What cannot be read or written is named with the next step."""

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facekiln import cli
from facekiln.artifact import (
    atomic_folder,
    atomic_path,
    check_folder,
    read_bytes,
    read_json,
    read_text,
    sha256_of,
)
from facekiln.errors import KilnError
from facekiln.unreadable import MAKERS, unreadable

READERS = (read_bytes, read_text, read_json, sha256_of)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("results/onnx/m_320.sim.onnx", "make it: snakemake --cores 4 results/onnx/m_320.sim.onnx"),
        ("mine.sim.onnx", "make it: facekiln onnx simplify --help"),
        ("calibration.json", "facekiln calibration make --help"),
        ("config.yaml", "--config FOLDER"),
        ("recorts/a.csv", "did you mean .*records"),
        ("nowhere/a.csv", "the folder .*nowhere is not there"),
        ("a.csv", "check the name"),
        ("dangling", "a link to /nowhere/x"),
        ("file/below", "file is no folder: name the folder that holds below"),
        ("records", r"name a file in it, e\.g\. .*records/one\.csv"),
        ("n" * 300, "name a file that is there"),
    ],
)
def test_the_next_step_of_what_cannot_be_read(
    tmp_path: Path, read: Callable[[Path], Any], name: str, step: str
) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.csv").write_text("1")
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("/nowhere/x")
    with pytest.raises(KilnError, match=rf"^{tmp_path}.*: cannot be read: .*\n  next step: .*{step}"):
        read(tmp_path / name)


def test_what_this_account_may_not_read_is_said_so(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert "chmod" in str(unreadable(tmp_path / "a", error))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_is_not_read_for_ever(read: Callable[[Path], Any]) -> None:
    with pytest.raises(KilnError, match="/dev/full: is a device"):
        read(Path("/dev/full"))


@pytest.mark.parametrize("verb", sorted(set(MAKERS.values())))
def test_the_verbs_that_are_named_exist(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*verb.split(), "--help"])
    assert ended.value.code == 0 and f"facekiln {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "step"), [(b"", "holds nothing"), (b"<html>", "a web page"), (b"x", "the right file")]
)
def test_json_that_is_none_tells_what_it_looks_like(tmp_path: Path, data: bytes, step: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(KilnError, match=rf"is not JSON: .*\n  next step: .*{step}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "Read-only"),
    ],
)
def test_why_nothing_could_be_written(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(KilnError, match=rf"{said}(.|\n)*next step"), atomic_path(tmp_path / "a.bin"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_without_a_name_of_its_own_is_not_replaced(name: str) -> None:
    with pytest.raises(KilnError, match="name a new one"), atomic_folder(name):
        pass
    with pytest.raises(KilnError, match="name a new one"):
        check_folder(name, ())


def test_a_folder_is_checked_before_long_work(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    check_folder(folder, ("a.npz",))
    folder.mkdir()
    for name in ("a.npz", "a.npz.kiln.json", ".snakemake_timestamp"):
        (folder / name).write_text("")
    check_folder(folder, ("a.npz",))
    (folder / "mine.txt").write_text("")
    with pytest.raises(KilnError, match=r"holds other files.*mine\.txt"):
        check_folder(folder, ("a.npz",))
    with pytest.raises(KilnError, match="is a file, where a folder"):
        check_folder(folder / "mine.txt", ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("filename", [None, "hidden.part"])
def test_a_full_disk_that_numpy_met_names_the_output(
    filename: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`numpy.savez` raises without a file's name; a copy names its source first."""

    def run(_: argparse.Namespace) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), filename)

    options = argparse.Namespace(run=run, log=None, output=Path("out.npz"))
    monkeypatch.setattr(cli, "build_parser", lambda _: argparse.Namespace(parse_args=lambda _: options))
    said: list[str] = []
    from facekiln.progress import log

    monkeypatch.setattr(log, "error", lambda text, *rest: said.append(text % rest))
    assert cli.main(["models"]) == 1
    assert said[0].startswith("facekiln: error: out.npz: the disk is full; nothing was written")


def test_a_folder_where_a_file_stands_is_told_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    options = argparse.Namespace(run=lambda _: (tmp_path / "file" / "bin").mkdir(), log=None)
    monkeypatch.setattr(cli, "build_parser", lambda _: argparse.Namespace(parse_args=lambda _: options))
    said: list[str] = []
    from facekiln.progress import log

    monkeypatch.setattr(log, "error", lambda text, *rest: said.append(text % rest))
    assert cli.main(["models"]) == 1
    assert "next step" in said[0] and "is no folder" in said[0]
