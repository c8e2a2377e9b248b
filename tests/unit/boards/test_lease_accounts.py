"""Accounts of one board and its lease: by default for one, and sticky where several share it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facekiln.boards.faults import ReadOnly
from facekiln.boards.remote import job_text
from facekiln.boards.script import parse_answer

SCRIPT = Path(__file__).parents[3] / "workflow" / "facekiln" / "boards" / "board.sh"
ANNE, BEN = 65534, 1  # nobody, daemon
SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
Call = Callable[..., str]


@pytest.fixture(params=SHELLS, ids=" ".join)
def call(request: pytest.FixtureRequest, folder: Path) -> Call:
    """A function that calls board.sh as an account of this machine and returns the answer."""
    if os.getuid() != 0:
        pytest.skip("only root can be several accounts")
    shutil.copy(SCRIPT, folder / "board.sh")

    def run(account: int, *words: object, data: bytes = b"") -> str:
        places = [folder / "board.sh", folder / f"work{account}", folder / "lease"]
        done = subprocess.run(
            [*request.param, *map(str, places), *map(str, words)],
            input=data,
            capture_output=True,
            cwd="/",
            user=account,
            group=account,
            extra_groups=[],
            umask=0o077,
            start_new_session=True,
            timeout=60,
            check=False,
        )
        return done.stdout.decode()

    return run


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder as /tmp is; pytest's own lets no other account in."""
    with tempfile.TemporaryDirectory(prefix="lease-") as made:
        Path(made).chmod(0o1777)
        yield Path(made)


def mode(folder: Path) -> int:
    return (folder / "lease").stat().st_mode & 0o7777


def test_folder_is_for_the_account_alone(call: Call, folder: Path) -> None:
    (folder / "lease").mkdir(mode=0o777)
    os.chown(folder / "lease", ANNE, ANNE)
    (folder / "lease").chmod(0o777)  # as earlier releases left it
    assert call(ANNE, "lease_take", "a", 30, "anne", "x").startswith("taken")
    assert mode(folder) == 0o700
    for words in (("lease_take", "b", 30, "ben", "x"), ("lease_status",), ("lease_free", "any")):
        assert call(BEN, *words) == f"fault foreign {folder}/lease\n"
    with pytest.raises(ReadOnly, match=r"another account of the board.*\n.*lease_access"):
        parse_answer("se7", call(BEN, "lease_status"))
    assert call(ANNE, "lease_free", "a").startswith("freed")
    assert call(BEN, "lease_take", "b", 30, "ben", "x").startswith("fault foreign")


@pytest.mark.parametrize(("access", "wanted"), [("user", 0o700), ("group", 0o1770), ("all", 0o1777)])
def test_mode_is_what_the_entry_says(call: Call, folder: Path, access: str, wanted: int) -> None:
    assert call(ANNE, "lease_take", "a", 30, "anne", "x", access).startswith("taken")
    assert mode(folder) == wanted


def test_accounts_that_share_it_hold_it_in_turn(call: Call, folder: Path) -> None:
    take = ("x", "all")
    assert call(ANNE, "lease_take", "a", 30, "anne", *take).startswith("taken")
    assert "owner=anne" in call(BEN, "lease_take", "b", 30, "ben", *take)
    assert "owner=anne" in call(BEN, "lease_status")
    assert call(ANNE, "lease_free", "a").startswith("freed")
    assert call(BEN, "lease_take", "b", 30, "ben", *take).startswith("taken")
    assert call(ANNE, "lease_take", "a", 30, "anne", *take).startswith("busy")
    # What ran out is taken over, though the file of the other one stays.
    current = max((folder / "lease").glob("lease-*"))
    current.write_text(re.sub(r"expires=\d+", "expires=1", current.read_text()))
    assert call(ANNE, "lease_take", "a2", 30, "anne", *take).startswith("taken")
    assert call(BEN, "beat", "-", 1, "b", 30).startswith("lost")
    assert call(ANNE, "beat", "-", 1, "a2", 30).startswith("held")


def test_force_frees_what_another_account_holds(call: Call, folder: Path) -> None:
    assert call(ANNE, "lease_take", "a", 30, "anne", "x", "all").startswith("taken")
    assert call(BEN, "lease_free", "any").startswith("freed")
    assert call(ANNE, "beat", "-", 1, "a", 30).startswith("lost")
    assert call(ANNE, "lease_status").startswith("free")
    assert call(BEN, "lease_take", "b", 30, "ben", "x", "all").startswith("taken")


def test_lease_that_cannot_be_read_is_not_taken_for_free(call: Call, folder: Path) -> None:
    assert call(ANNE, "lease_take", "a", 30, "anne", "x", "all").startswith("taken")
    (current,) = (folder / "lease").glob("lease-*")
    current.chmod(0o600)
    assert call(BEN, "lease_take", "b", 30, "ben", "x", "all") == f"fault foreign {current}\n"


def test_board_is_not_taken_while_a_command_of_another_account_runs(call: Call, folder: Path) -> None:
    run = uuid.uuid4().hex
    assert call(ANNE, "lease_take", "a", 100, "anne", "x", "all").startswith("taken")
    # Its watcher looks so seldom that it does not notice.
    job = job_text(["sleep", "60"], {}).encode()
    assert call(ANNE, "start", run, 90, 90, 30, 0, 0, "a", data=job).startswith("started")
    for _ in range(100):
        if (folder / "lease" / f"run-{run}").exists():
            break
        time.sleep(0.05)
    try:
        assert call(BEN, "lease_free", "any").startswith("freed")
        assert call(BEN, "lease_take", "b", 30, "ben", "x", "all") == f"fault leftover {run}\n"
    finally:
        assert call(ANNE, "kill", run).startswith("killed")
    assert call(BEN, "lease_take", "b", 30, "ben", "x", "all").startswith("taken")
