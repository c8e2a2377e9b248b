"""One thread ahead: in order, no further than told, errors where their results would be."""

from __future__ import annotations

import threading
import time

import pytest

from facekiln.ahead import ahead


def test_results_come_in_order_and_from_another_thread() -> None:
    made = list(ahead(lambda n: (n, threading.current_thread().name), range(20)))
    assert [n for n, _ in made] == list(range(20))
    assert {name for _, name in made} != {threading.current_thread().name}


def test_it_stays_a_little_ahead_and_no_more() -> None:
    started: list[int] = []

    def make(n: int) -> int:
        started.append(n)
        return n

    results = ahead(make, range(100), depth=2)
    assert next(results) == 0
    for _ in range(6000):
        if len(started) == 3:
            break
        time.sleep(0.01)
    assert started == [0, 1, 2]
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= 3


def test_an_error_is_raised_in_its_place() -> None:
    def make(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    results = ahead(make, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_nothing_is_given() -> None:
    assert list(ahead(str, [])) == []
