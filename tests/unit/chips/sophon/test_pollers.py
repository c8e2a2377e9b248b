from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facekiln.chips.sophon.pollers import ENGINE, STEPS, lower_pollers

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")

# A program with the threads of the C model, by the names that it gives them; argument: those names.
_PROGRAM = """
import ctypes, sys, threading
ready = threading.Barrier(len(sys.argv))
def idle(name):
    ctypes.CDLL(None).prctl(15, name.encode())
    ready.wait()
    threading.Event().wait()
for name in sys.argv[1:]:
    threading.Thread(target=idle, args=(name,), daemon=True).start()
ready.wait()
print("ready", flush=True)
sys.stdin.read()
"""

Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a shell whose child is the program with such threads; return the shell's process id."""
    started = []

    def run(*names: str, nice: int = 0) -> int:
        # Not `exec`: the program is to be a grandchild, as the tool's simulation is.
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'nice -n "$0" "$@"; exit', str(nice), sys.executable, "-c", _PROGRAM, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield run
    for process in started:
        process.communicate(timeout=90)


def priorities(process: int) -> dict[str, int]:
    """Return the nice values of the threads of a process's only child, by name."""
    child = Path(f"/proc/{process}/task/{process}/children").read_text().strip()
    return {
        (task / "comm").read_text().strip(): os.getpriority(os.PRIO_PROCESS, int(task.name))
        for task in Path(f"/proc/{child}/task").iterdir()
    }


def test_all_but_the_engine_make_way(start: Start) -> None:
    # The tests themselves may run at a priority that leaves less than a whole step.
    process = start(ENGINE, "TPU_GDMA", "CORE_MAIN", nice=3)
    before = os.getpriority(os.PRIO_PROCESS, process)
    base = priorities(process)[ENGINE]
    assert lower_pollers(process) == 3
    after = priorities(process)
    assert after.pop(ENGINE) == base
    assert len(after) == 3
    assert set(after.values()) == {min(base + STEPS, 19)}
    assert os.getpriority(os.PRIO_PROCESS, process) == before


def test_nothing_is_lowered_twice(start: Start) -> None:
    process = start(ENGINE, "TPU_NMS")
    lower_pollers(process)
    found = priorities(process)
    assert lower_pollers(process) == 0
    assert priorities(process) == found


def test_no_lower_than_there_is(start: Start) -> None:
    process = start(ENGINE, "TPU_NMS", nice=15)
    lower_pollers(process)
    assert priorities(process)["TPU_NMS"] == 19


def test_other_programs_keep_their_priority(start: Start) -> None:
    process = start("TPU_GDMA", "worker")
    found = priorities(process)
    assert lower_pollers(process) == 0
    assert priorities(process) == found


def test_a_process_that_has_ended_is_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert lower_pollers(process.pid) == 0
