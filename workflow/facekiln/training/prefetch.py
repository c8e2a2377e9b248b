"""Batches made ahead of the training by threads, in the order of the steps."""

from __future__ import annotations

import os
from collections.abc import Generator

from facekiln.ahead import ahead
from facekiln.training.task import Arrays, Task

_AHEAD = 2  # batches that each thread may be ahead
_MOST = 8


def loaders(threads: int) -> int:
    """Return how many threads make batches: the cores that torch leaves, at least one."""
    return max(1, min(_MOST, len(os.sched_getaffinity(0)) - threads))


def prefetched(task: Task, first: int, last: int, threads: int) -> Generator[Arrays]:
    """Yield the batches of steps `first` to before `last`, made ahead by so many threads.

    Their number changes nothing but the time: a batch depends on its step only.
    """
    return ahead(task.batch, range(first, last), depth=threads * _AHEAD, threads=threads)
