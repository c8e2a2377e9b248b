"""The Snakemake above us, which may be killed and can then tell nobody.

Between it and a job stand as many processes as there happen to be: a shell that pipes or activates an
environment, the Snakemake of a job's own. The kernel tells a child only of its parent's end (`prctl`), so
each Snakemake among the ancestors is watched.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_POLL = 1.0  # seconds, where the kernel has no pidfd
_PROC = Path("/proc")


def _stat(pid: int) -> list[str] | None:
    """Return the fields behind the name: state, parent, ..., the 20th of them when it was started."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def ancestors_named(name: str) -> list[tuple[int, str]]:
    """Return (process, time of its start) of ancestors that run a program, nearest first; none without /proc.

    `python .../bin/NAME`, `python -m NAME` and NAME itself count.
    """
    found: list[tuple[int, str]] = []
    pid = os.getppid()
    while pid > 1 and (fields := _stat(pid)) is not None:
        with suppress(OSError):
            words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:3]
            if name.encode() in map(os.path.basename, words):
                found.append((pid, fields[19]))
        pid = int(fields[1])
    return found


def _gone(process: tuple[int, str]) -> bool:
    fields = _stat(process[0])
    return fields is None or fields[0] in "ZX" or fields[19] != process[1]


def _wait(processes: list[tuple[int, str]]) -> None:
    """Return when one of them has ended."""
    handles: list[int] = []
    try:
        with suppress(OSError, AttributeError):
            handles += [os.pidfd_open(pid) for pid, _ in processes]
        if len(handles) == len(processes) and not any(map(_gone, processes)):
            poller = select.poll()
            for handle in handles:
                poller.register(handle, select.POLLIN)
            poller.poll()
            return
        while not any(map(_gone, processes)):
            time.sleep(_POLL)
    finally:
        for handle in handles:
            os.close(handle)


def when_gone(processes: Iterable[tuple[int, str]], act: Callable[[], object]) -> None:
    """Call `act` from a thread when one of the processes (of `ancestors_named`) has ended."""
    watched = list(processes)

    def watch() -> None:
        _wait(watched)
        act()

    if watched:
        threading.Thread(target=watch, name="ancestors", daemon=True).start()
