"""Boards without an SSH server: a folder that is served by board.sh here, and a plan followed by hand."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facekiln.boards import directory
from facekiln.boards.directory import DirectoryRunner, collect, plan_of, serve_command
from facekiln.boards.faults import BoardBusy, DiskFull, ReadOnly, RunTimeout, Unreachable
from facekiln.boards.settings import Board, Limits
from support.sshd import wait_until


def board_in(folder: Path, transport: str = "directory") -> Board:
    limits = Limits(poll_seconds=0.1, grace_seconds=60, run_seconds=60, reserve_mb=1)
    work = str(folder / "shared")
    return Board("loop", transport, None, None, None, None, work, work, str(folder / "lease"), limits=limits)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[DirectoryRunner]:
    """A folder that is served."""
    found = DirectoryRunner(board_in(tmp_path))
    server = subprocess.Popen(shlex.split(serve_command(found.board)), stdout=subprocess.DEVNULL)
    yield found
    (found.folder / "stop").touch()
    server.wait(90)


def test_job_is_taken_and_its_files_are_there(runner: DirectoryRunner, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("content\n")
    lines: list[str] = []
    done = runner.run(
        ["sh", "-c", 'cat in; echo "$1" >&2; exit 3', "-", "it's"],
        files={"in": source},
        log_file=tmp_path / "raw.log",
        on_line=lines.append,
    )
    assert (done.status, done.stdout, done.stderr) == (3, "content\n", "it's\n")
    assert lines == ["content", "it's"]
    assert (tmp_path / "raw.log.stderr").read_text() == "it's\n"
    assert not list((runner.folder / "runs").iterdir())


def test_time_limit_holds(runner: DirectoryRunner) -> None:
    with pytest.raises(RunTimeout):
        runner.run(["sleep", "30"], timeout=1)


def test_interrupted_client_ends_the_command(
    runner: DirectoryRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        if list((runner.folder / "runs").glob("*/pid")):
            raise KeyboardInterrupt

    monkeypatch.setattr(directory.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run(["sleep", "30"])
    monkeypatch.undo()
    wait_until(lambda: list((runner.folder / "runs").glob("*/status")))
    (found,) = (runner.folder / "runs").glob("*/status")
    assert "reason=cancelled" in found.read_text()


KILLED = """
import sys
from facekiln.boards.directory import DirectoryRunner
from facekiln.boards.settings import Board, Limits
limits = Limits(poll_seconds=0.1, grace_seconds=4, run_seconds=600, reserve_mb=1)
work = sys.argv[1]
board = Board("loop", "directory", None, None, None, None, work, work, work + "-lease", limits=limits)
DirectoryRunner(board).run(["sleep", "600"])
"""


def test_killed_client_is_noticed_and_its_command_ended(runner: DirectoryRunner) -> None:
    workflow = str(Path(directory.__file__).parents[2])
    client = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(runner.folder)], env={**os.environ, "PYTHONPATH": workflow}
    )
    wait_until(lambda: list((runner.folder / "runs").glob("*/pid")))
    client.kill()
    client.wait()
    wait_until(lambda: list((runner.folder / "runs").glob("*/status")))
    (found,) = (runner.folder / "runs").glob("*/status")
    assert "reason=orphan" in found.read_text()


def test_folder_that_nobody_serves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_SILENT", 0.5)
    runner = DirectoryRunner(board_in(tmp_path))
    with pytest.raises(Unreachable, match=r"start on the board: sh .*/shared/board\.sh .* serve"):
        runner.run(["true"])
    assert not list((runner.folder / "queue").iterdir())


def test_plan_is_followed_by_hand(tmp_path: Path) -> None:
    runner = DirectoryRunner(board_in(tmp_path, "plan"))
    runner.prepare(["sh", "-c", "echo said; exit 4"], run="r1")
    with pytest.raises(BoardBusy, match="has not ended"):
        collect(runner.board, "r1")
    steps = plan_of(runner.board, "r1")
    (line,) = [line.strip() for line in steps.splitlines() if " once " in line]
    told = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
    assert told.stdout == "kiln-end 4\n"
    done = collect(runner.board, "r1")
    assert (done.status, done.stdout) == (4, "said\n")


def test_file_is_copied_once_per_content(tmp_path: Path) -> None:
    runner = DirectoryRunner(board_in(tmp_path))
    source = tmp_path / "in"
    source.write_text("content")
    runner.prepare(["true"], run="a", files={"x": source})
    runner.prepare(["true"], run="b", files={"deep/y": source})
    assert len(list((runner.folder / "blobs").iterdir())) == 1
    assert (runner.folder / "runs" / "b" / "deep" / "y").read_text() == "content"


def test_too_little_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = DirectoryRunner(board_in(tmp_path))
    source = tmp_path / "in"
    source.write_text("content")
    monkeypatch.setattr(directory.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DiskFull):
        runner.prepare(["true"], run="a", files={"x": source})
    assert not list((runner.folder / "blobs").iterdir())


def test_missing_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    with pytest.raises(ReadOnly, match="shared folder cannot be written"):
        DirectoryRunner(board_in(tmp_path))


def test_second_client_waits_for_the_first(runner: DirectoryRunner) -> None:
    results: list[float] = []

    def client() -> None:
        results.append(DirectoryRunner(runner.board).run(["sleep", "0.5"]).seconds)

    threads = [threading.Thread(target=client) for _ in range(2)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 1.0
    assert len(results) == 2
