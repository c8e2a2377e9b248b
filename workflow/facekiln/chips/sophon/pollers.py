"""The C model of BM1684X computes in one thread while six others ask without pause whether it has done so.

On two cores these seven share what the one could have alone: UltraFace slim 320 in float16 took 15.1 s, and
4.1 s with the six lowered by ten steps; on one core 34.8 and 8.5 s, beside two busy programs 28.9 and
11.6; its outputs are the same to the bit (`benchmarks/bench_sophon_cmodel.py` measures it anew). Much lower
is no better: what computes polls as well while it waits for them, and beside other programs they would
starve it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# The engine that computes; the names of the library's threads are its own.
ENGINE = "TPU_BD"
STEPS, _LOWEST = 10, 19
_PROC = Path("/proc")


def lower_pollers(process: int) -> int:
    """Lower the priority of every thread that polls, of a process and of all its descendants.

    Does nothing to processes without the engine's thread, nor twice to one; any user may do this to processes
    of theirs. Where there is no /proc nothing is done.

    Returns:
        How many threads were lowered.
    """
    return sum(_lower(one) for one in _descendants(process))


def _lower(process: int) -> int:
    threads = {}
    with contextlib.suppress(OSError):
        for task in (_PROC / str(process) / "task").iterdir():
            with contextlib.suppress(OSError):
                threads[int(task.name)] = (task / "comm").read_bytes().decode("utf-8", "replace").strip()
    engines = [thread for thread, name in threads.items() if name == ENGINE]
    lowered = 0
    with contextlib.suppress(OSError):  # it ended meanwhile
        if engines:
            wanted = min(os.getpriority(os.PRIO_PROCESS, engines[0]) + STEPS, _LOWEST)
            for thread in sorted(threads.keys() - set(engines)):
                if os.getpriority(os.PRIO_PROCESS, thread) < wanted:
                    os.setpriority(os.PRIO_PROCESS, thread, wanted)
                    lowered += 1
    return lowered


def _descendants(process: int) -> Iterator[int]:
    yield process
    with contextlib.suppress(OSError):
        for task in (_PROC / str(process) / "task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from _descendants(int(child))
