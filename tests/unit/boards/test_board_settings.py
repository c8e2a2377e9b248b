"""config/boards.yaml: typed, without passwords, and edited without a comment being lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln.boards.faults import HostKeyFault
from facekiln.boards.known import add_entry, pin
from facekiln.boards.settings import Board, load_board, load_boards
from facekiln.errors import KilnError

# Two real public keys of throw-away servers.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILrEZ5oVqoyvOSeenP4FXZUd5iblep1UDnKffRrnYeW"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM8tDoUqIQ7tjIinNJJSXVMLNeGgf4Jj7UbLenC6wdLJ"
ENTRY = {"host": "192.168.1.20", "user": "linaro"}


def write(folder: Path, boards: object) -> Path:
    (folder / "boards.yaml").write_text(yaml.safe_dump({"boards": boards}))
    return folder


def load(folder: Path, **entry: Any) -> Board:
    return load_board("se7", write(folder, {"se7": {**ENTRY, **entry}}))


def test_shipped_file_loads(root: Path) -> None:
    assert load_boards(root / "config") == {} or all(load_boards(root / "config").values())


def test_no_file_is_no_board(tmp_path: Path) -> None:
    assert load_boards(tmp_path) == {}


def test_a_config_folder_that_is_none_is_told(tmp_path: Path) -> None:
    """It read as one without boards."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(KilnError, match=r"is no config folder(.|\n)*--config FOLDER"):
            load_boards(folder)


@pytest.mark.parametrize("chip", ["", "../x", "a b"])
def test_a_chip_is_a_word(tmp_path: Path, chip: str) -> None:
    with pytest.raises(KilnError, match="chip"):
        load(tmp_path, chip=chip)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    board = load(tmp_path, runtimes={"bmrt_test": {"tool": "bmrt_test"}})
    assert str(board.address) == "linaro@192.168.1.20:22"
    assert (board.work, board.lease) == ("/tmp/facekiln", "/tmp/facekiln-lease")
    assert board.limits.grace_seconds == 30
    assert board.runtime("bmrt_test").version_command == ()


def test_full_entry_is_typed(tmp_path: Path) -> None:
    board = load(
        tmp_path,
        agent=True,
        jump={"host": "bastion", "user": "me", "host_key": OTHER},
        host_key=KEY,
        runtimes={"x": {"tool": "t", "version_command": ["t", "-v"], "version": ">=1"}},
        environment={"LD_LIBRARY_PATH": "/lib"},
        limits={"run_seconds": 5},
    )
    assert board.address is not None
    assert board.address.key is None
    assert board.jump is not None
    assert board.jump.port == 22
    assert board.runtime("x").version_command == ("t", "-v")
    assert board.limits.run_seconds == 5


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"hots": "x"}, "unknown key 'hots'; did you mean 'host'"),
        ({"limits": {"run_second": 1}}, r"limits: unknown key 'run_second'; did you mean 'run_seconds'"),
        ({"password": "x"}, "passwords and tokens do not belong into this file"),
        ({"jump": {"host": "a", "user": "b", "passwd": "c"}}, r"boards\.se7\.jump\.passwd: passwords"),
        ({"key": "a", "agent": True}, "exclude each other"),
        ({"port": 70000}, "70000 is greater than the maximum"),
        ({"host_key": "AAAA"}, "host_key: 'AAAA' does not match"),
        ({"work": "relative"}, "work: 'relative' does not match"),
        ({"host": "-oProxyCommand=x"}, "host: '-oProxyCommand=x' does not match"),
        ({"transport": "directory"}, "`folder` is needed by transport 'directory'"),
        ({"user": None}, "user: None is not of type"),
        ({"limits": {"grace_seconds": 2}}, "shorter than three polls"),
        ({"environment": {"A-B": "x"}}, "'A-B' does not match"),
        ({"transport": "telnet"}, "'telnet' is not one of"),
    ],
)
def test_wrong_entry_is_refused_by_key(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    with pytest.raises(KilnError, match=told):
        load(tmp_path, **entry)


def test_host_is_needed_over_ssh(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="`host` is needed by transport 'ssh'"):
        load_boards(write(tmp_path, {"se7": {"user": "x"}}))


def test_unknown_board_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="unknown board 'se8'; did you mean 'se7'"):
        load_board("se8", write(tmp_path, {"se7": ENTRY}))


@pytest.mark.parametrize("name", ["a-b", "7", "a b"])
def test_name_that_is_no_wildcard_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KilnError, match="does not match"):
        load_boards(write(tmp_path, {name: ENTRY}))


# --- known.py ----------------------------------------------------------------------------------------------


def test_entry_is_added_below_the_comments(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    shipped = (root / "config" / "boards.yaml").read_text()
    file.write_text(shipped)
    add_entry(file, "se7", {**ENTRY, "host_key": KEY})
    text = file.read_text()
    assert load_board("se7", tmp_path).address.host_key == KEY  # type: ignore[union-attr]
    assert all(line in text for line in shipped.splitlines() if line.startswith("#"))


def test_entries_follow_each_other_in_the_files_own_indentation(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    file.write_text("boards:  # ours\n    one:  # first\n        host: a\n        user: b\n# end\n")
    add_entry(file, "two", ENTRY)
    assert list(load_boards(tmp_path)) == ["two", "one"]
    pin(file, "one", KEY)
    text = file.read_text()
    assert f"    one:  # first\n        host_key: {KEY}\n        host: a\n" in text
    assert text.endswith("# end\n")


def test_missing_and_empty_files_are_begun(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    add_entry(file, "se7", ENTRY)
    assert list(load_boards(tmp_path)) == ["se7"]
    file.write_text("boards: {}\n")
    add_entry(file, "se7", ENTRY)
    assert list(load_boards(tmp_path)) == ["se7"]


def test_other_key_is_refused_with_both_fingerprints_and_replaced_on_request(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    add_entry(file, "se7", {**ENTRY, "host_key": KEY})
    assert not pin(file, "se7", KEY)
    with pytest.raises(HostKeyFault, match=r"value: SHA256:\S+; limit: SHA256:"):
        pin(file, "se7", OTHER)
    assert KEY in file.read_text()
    assert pin(file, "se7", OTHER, replace=True)
    assert KEY not in file.read_text()
    assert OTHER in file.read_text()


def test_file_of_another_form_is_left_and_the_line_is_told(tmp_path: Path) -> None:
    file = tmp_path / "boards.yaml"
    text = "boards: {se7: {host: a, user: b}}\n"
    file.write_text(text)
    with pytest.raises(KilnError, match=r"not edited here.*\n.*\n *host_key: ssh-ed25519"):
        pin(file, "se7", KEY)
    with pytest.raises(KilnError, match="not edited here"):
        add_entry(file, "two", ENTRY)
    assert file.read_text() == text
