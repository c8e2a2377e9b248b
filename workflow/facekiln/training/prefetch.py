"""Batches made ahead of the training by threads, in the order of the steps."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

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
    steps = iter(range(first, last))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Arrays]] = deque()
        try:
            while True:
                while len(waiting) <= threads * _AHEAD and (step := next(steps, None)) is not None:
                    waiting.append(pool.submit(task.batch, step))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
