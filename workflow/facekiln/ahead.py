"""Do the next things while the last one is used: threads that stay a little ahead, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Given], Made], given: Iterable[Given], depth: int = 2, threads: int = 1
) -> Generator[Made]:
    """Yield `make` of each given thing, in order, made by other threads while the caller is busy.

    Decoding a JPEG and resizing it release the interpreter's lock, and so does inference.

    Args:
        make: an error of it is raised where its result would be yielded.
        given: what to make from.
        depth: how many results may wait; each holds a picture in memory.
        threads: that make; their number changes nothing but the time.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for each in given:
                waiting.append(pool.submit(make, each))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
