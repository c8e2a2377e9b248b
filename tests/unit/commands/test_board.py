"""`facekiln board`: the steps of a board that nothing connects to, from the plan to what came back."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from facekiln.boards.directory import DirectoryRunner, serve_command
from facekiln.boards.settings import load_board
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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[list[str]]:
    """The options of a shared folder that is served."""
    folder = tmp_path / "shared"
    places = f"folder: {folder}, work: {folder}, lease: {tmp_path}/lease"
    (tmp_path / "boards.yaml").write_text(f"boards:\n  cam: {{transport: directory, {places}}}\n")
    runner = DirectoryRunner(load_board("cam", tmp_path))
    server = subprocess.Popen(shlex.split(serve_command(runner.board)), stdout=subprocess.DEVNULL)
    yield ["--config", str(tmp_path)]
    (folder / "stop").touch()
    server.wait(20)


def test_files_of_a_shared_folder_come_home(served: list[str], tmp_path: Path) -> None:
    words = ["--get", f"deep/b={tmp_path}/home/out", "--", "sh", "-c", "mkdir deep; echo it >deep/b"]
    assert main(["board", "run", "cam", *served, *words]) == 0
    assert (tmp_path / "home" / "out").read_text() == "it\n"
    assert not list((tmp_path / "shared" / "runs").iterdir())


@pytest.mark.parametrize(
    ("makes", "told"),
    [
        ("ln -s {private} out", "out: is a symbolic link, which is not followed"),
        ("rmdir deep; ln -s {folder} deep", "deep: is a symbolic link, which is not followed"),
        ("mkfifo out", "out: is no file but a folder, pipe or device"),
        ("mkdir out", "out: is no file but a folder, pipe or device"),
        ("true", "there is no such file in the board's folder"),
    ],
)
def test_what_is_no_file_of_the_board_is_not_brought_home(
    makes: str, told: str, served: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "private").mkdir()
    private = tmp_path / "private" / "key"
    private.write_text("of this machine")
    name = "deep/key" if "deep" in makes else "out"
    command = f"mkdir deep; {makes.format(private=private, folder=private.parent)}"
    words = ["--get", f"{name}={tmp_path}/home", "--", "sh", "-c", command]
    (tmp_path / "home").write_text("before")
    assert main(["board", "run", "cam", *served, *words]) == 1
    assert told in capfd.readouterr().err
    assert (tmp_path / "home").read_text() == "before"


@pytest.mark.parametrize("name", ["stdout", "status"])
def test_links_in_what_was_carried_back_are_not_followed(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "card"
    (tmp_path / "boards.yaml").write_text(
        f"boards:\n  cam: {{transport: plan, folder: {folder}, work: {folder}, lease: {tmp_path}/lease}}\n"
    )
    here = folder / "runs" / "r1"
    here.mkdir(parents=True)
    for file, text in (("status", "ended\nstatus=0\nreason=done\n"), ("stdout", ""), ("stderr", "")):
        (here / file).write_text(text)
    (tmp_path / "private").write_text("ended\nof this machine")
    (here / name).unlink()
    (here / name).symlink_to(tmp_path / "private")
    assert main(["board", "collect", "cam", "r1", "--config", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert "of this machine" not in out
    assert f"runs/r1/{name}: is a symbolic link" in err


@pytest.mark.parametrize("verb", ["list", "status"])
def test_no_board_is_told(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "boards.yaml").write_text("boards: {}\n")
    assert main(["board", verb, "--config", str(tmp_path)]) == 0
    assert "no board is declared; see config/boards.yaml" in "".join(capsys.readouterr())
