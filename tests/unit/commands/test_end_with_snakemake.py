"""What runs on boards ends with its Snakemake, also where that one is killed and can end nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from facekiln.boards import ancestors

CHILD = """
import sys, time
from pathlib import Path
from facekiln.boards import ancestors
from facekiln.commands import end_on_sigterm
if sys.argv[2] == "without-pidfd":
    def missing(_): raise OSError
    ancestors.os.pidfd_open = missing
    ancestors._POLL = 0.1
end_on_sigterm()
try:
    Path(sys.argv[1]).write_text("begun")
    time.sleep(200)
except KeyboardInterrupt:
    Path(sys.argv[1]).write_text("ended")
"""
PARENT = "import subprocess, sys; subprocess.run([*sys.argv[4:], sys.executable, '-c', *sys.argv[1:4]])"
# A shell that has something to do afterwards stays between Snakemake and its job.
SHELL = ["sh", "-c", '"$@"; true', "-"]
ends_here = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def _is(path: Path, text: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.read_text() == text:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def parent_of(tmp_path: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    program = tmp_path / name
    program.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(program), *words], start_new_session=True)
    try:
        yield parent
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


@ends_here
@pytest.mark.parametrize("how", ["pidfd", "without-pidfd"])
@pytest.mark.parametrize(
    ("name", "between", "ends"),
    [
        ("snakemake", [], True),
        ("snakemake", SHELL, True),
        ("snakemake", [*SHELL, *SHELL], True),
        ("a-shell", [], False),
    ],
    ids=["child", "behind a shell", "behind two", "no Snakemake"],
)
def test_job_of_a_killed_snakemake_ends_as_after_ctrl_c(
    tmp_path: Path, name: str, between: list[str], ends: bool, how: str
) -> None:
    told = tmp_path / "told"
    with parent_of(tmp_path, name, CHILD, str(told), how, *between) as parent:
        assert _is(told, "begun", 90)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert _is(told, "ended", 90 if ends else 1.5) is ends


@ends_here
def test_process_that_got_a_dead_ones_number_is_another() -> None:
    mine = (os.getpid(), ancestors._stat(os.getpid())[19])  # type: ignore[index]
    assert not ancestors._gone(mine)
    assert ancestors._gone((mine[0], "1"))
