"""What the tests over a real OpenSSH server share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count
from types import FrameType

import pytest

from support.sshd import Proxy, Sshd, end_processes_with, processes_with, running_sshd, wait_until

_marks = count()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "bound(seconds): the test fails where its body takes longer")


@pytest.fixture(autouse=True)
def bound(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that would wait for something that never comes, in whatever call it waits."""
    marker = request.node.get_closest_marker("bound")
    if marker is None:
        yield
        return
    (seconds,) = marker.args

    def end(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"does not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that a module's tests share."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    """A way to that server that can be cut."""
    between = Proxy(sshd.port)
    yield between
    between.close()


@pytest.fixture
def mark() -> Iterator[str]:
    """A number that only processes of this test have on their command lines; none may be left."""
    number = f"2718.{os.getpid():08}{next(_marks):04}"
    yield number
    try:
        wait_until(lambda: not processes_with(number))
    finally:
        end_processes_with(number)
