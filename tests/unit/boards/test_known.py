"""Entries of boards.yaml: nothing of the owner's is lost, and two writers do not undo each other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from facekiln.boards.known import add_entry
from facekiln.boards.settings import boards_from
from facekiln.config import read_yaml
from facekiln.errors import KilnError


def _entry(port: int) -> dict[str, object]:
    return {"host": "127.0.0.1", "user": "me", "port": port}


@pytest.mark.parametrize(
    "head",
    [
        "boards:\n  # the lab, second floor\n",
        "boards:\n\n  # the lab, second floor",
        "boards: {} # the lab, second floor\n",
        "boards:  # the lab, second floor\n  old: {host: h, user: u}\n",
    ],
)
def test_comments_stay_and_the_file_ends_with_a_line(tmp_path: Path, head: str) -> None:
    file = tmp_path / "boards.yaml"
    file.write_text(head)
    add_entry(file, "one", _entry(1))
    add_entry(file, "two", _entry(2))
    text = file.read_text()
    assert text.count("# the lab, second floor") == 1
    assert text.endswith("\n")
    assert {"one", "two"} <= boards_from(read_yaml(file), file).keys()


def test_writers_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    file.write_text("boards:\n")
    start = threading.Barrier(8)

    def add(number: int) -> None:
        start.wait()
        add_entry(file, f"b{number}", _entry(number + 1))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(boards_from(read_yaml(file), file)) == [f"b{number}" for number in range(8)]


def test_board_is_declared_once(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    file.write_text("boards:\n")
    add_entry(file, "one", _entry(1))
    with pytest.raises(KilnError, match="declared already"):
        add_entry(file, "one", _entry(2))
    assert boards_from(read_yaml(file), file)["one"].address.port == 1  # type: ignore[union-attr]
