"""This machine as a board: streams apart, limits kept, nothing left running."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from facekiln.boards.runner import LocalRunner
from facekiln.errors import KilnError
from support.sshd import wait_until


def test_streams_status_and_environment() -> None:
    command = ["sh", "-c", "echo out $KILN_TEST; echo err >&2; exit 7"]
    result = LocalRunner().run(command, timeout=20, environment={"KILN_TEST": "here"})
    assert (result.status, result.stdout, result.stderr) == (7, "out here\n", "err\n")
    assert result.text == "out here\nerr\n"
    assert result.seconds > 0


def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    assert LocalRunner().run(["echo", "$HOME; ls 'x y'"], timeout=20).stdout == "$HOME; ls 'x y'\n"


def test_bytes_that_are_no_text_do_not_end_the_run() -> None:
    assert LocalRunner().run(["printf", r"\377ok"], timeout=20).stdout == "\ufffdok"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(KilnError, match="no-such-tool: cannot be started"):
        LocalRunner().run(["no-such-tool"], timeout=1)


def _is_running(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[:1]
    return False


@pytest.mark.parametrize("end", ["wait", "exit 0"])
def test_children_are_gone_afterwards(tmp_path: Path, end: str) -> None:
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f'sleep 60 >/dev/null 2>&1 & echo $! > "{pid_file}"; {end}']
    if end == "wait":
        with pytest.raises(KilnError, match="did not end in time"):
            LocalRunner().run(command, timeout=4)
    else:
        LocalRunner().run(command, timeout=60)
    pid = int(pid_file.read_text())
    wait_until(lambda: not _is_running(pid))
