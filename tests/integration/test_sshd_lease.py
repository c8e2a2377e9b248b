"""The lease of a board over a real OpenSSH server: never two holders, and no dead one stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from facekiln.boards.faults import BoardBusy, LeaseLost
from facekiln.boards.lease import Lease, free_by_force, holder_of
from facekiln.boards.remote import RemoteRunner
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from support.sshd import Proxy, Sshd, kill_watcher, processes_with, running_sshd, wait_until

pytestmark = pytest.mark.bound(300)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "boot").write_text("first\n")
    with running_sshd(folder, environment=(f"KILN_BOOT_FILE={folder}/boot",)) as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def client(stack: ExitStack, sshd: Sshd, tmp_path: Path, **limits: float) -> BoardScript:
    return BoardScript(stack.enter_context(Session(sshd.board(tmp_path, **limits))))


def test_second_client_is_told_who_holds_it(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one, two = client(stack, sshd, tmp_path), client(stack, sshd, tmp_path)
    with Lease(one, "bench of\nx"):
        with pytest.raises(BoardBusy, match=rf":{os.getpid()} for 'bench of x' since"):
            Lease(two, "other").take()
        holder = holder_of(two)
        assert holder is not None
        assert 0 < holder.left <= 61
    assert holder_of(two) is None
    with Lease(two, "other"):
        pass


def test_waiting_client_gets_it_when_it_is_freed(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one, two = client(stack, sshd, tmp_path), client(stack, sshd, tmp_path)
    first = Lease(one, "first")
    first.take()
    threading.Timer(0.5, first.free).start()
    with Lease(two, "second", wait=90):
        pass


def test_heartbeat_keeps_it_beyond_its_time(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one = client(stack, sshd, tmp_path, lease_seconds=12)
    with Lease(one, "long") as lease:
        time.sleep(13.2)
        lease.check()
        holder = holder_of(one)
        assert holder is not None
        assert holder.held_for >= 12


def test_dead_holder_frees_it_by_silence(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one, two = client(stack, sshd, tmp_path, lease_seconds=600), client(stack, sshd, tmp_path)
    lease = Lease(one, "dies")
    lease.take()
    lease._done.set()  # no heartbeat from here on, as after SIGKILL
    with pytest.raises(BoardBusy):
        Lease(two, "too early").take()
    lease._seconds = 2
    assert one.call("beat", "-", 1, lease.token, lease._seconds).word == "held"
    with Lease(two, "next", wait=90):
        with pytest.raises(LeaseLost):
            lease.check()
        assert one.call("beat", "-", 1, lease.token, 4).word == "lost"
        assert one.call("lease_free", lease.token).word == "lost"
        holder = holder_of(two)
        assert holder is not None
        assert holder.purpose == "next"


def test_late_holder_does_not_renew_what_ran_out(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one = client(stack, sshd, tmp_path)
    one.call("lease_take", "token", 1, "me", "x")
    time.sleep(2.1)
    assert one.call("beat", "-", 1, "token", 10).word == "lost"


def test_lease_freed_by_force_is_noticed_by_its_holder(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one, two = client(stack, sshd, tmp_path, lease_seconds=12), client(stack, sshd, tmp_path)
    with Lease(one, "robbed") as lease:
        robbed = free_by_force(two)
        assert robbed is not None
        assert robbed.purpose == "robbed"
        wait_until(lambda: lease.lost)
        with pytest.raises(LeaseLost):
            RemoteRunner(one, lease).run(["true"])


@pytest.mark.bound(150)
def test_run_ends_with_its_stolen_lease(stack: ExitStack, sshd: Sshd, tmp_path: Path, mark: str) -> None:
    one, two = client(stack, sshd, tmp_path), client(stack, sshd, tmp_path)
    thief = threading.Thread(target=lambda: (wait_until(lambda: processes_with(mark)), free_by_force(two)))
    thief.start()
    with Lease(one, "robbed") as lease, pytest.raises(LeaseLost):
        RemoteRunner(one, lease).run(["sleep", mark])
    thief.join()
    assert not processes_with(mark)


def test_reboot_frees_it(stack: ExitStack, sshd: Sshd, tmp_path: Path) -> None:
    one = client(stack, sshd, tmp_path)
    one.call("lease_take", "before", 1000, "me", "x")
    (sshd.folder / "boot").write_text("second\n")
    assert one.call("lease_take", "after", 5, "me", "x").word == "taken"
    assert one.call("beat", "-", 1, "before", 5).word == "lost"


def test_lease_survives_cuts(stack: ExitStack, sshd: Sshd, proxy: Proxy, tmp_path: Path) -> None:
    one = BoardScript(stack.enter_context(Session(sshd.board(tmp_path, port=proxy.port, lease_seconds=16))))
    with Lease(one, "cut") as lease:
        for _ in range(3):
            proxy.cut()
            time.sleep(0.7)
        cut = time.monotonic()
        wait_until(lambda: lease._renewed > cut)
        token = one.call("lease_take", lease.token, 16, "me", "x")
        assert token.word == "taken"
        lease.check()


def test_racing_clients_never_hold_it_at_once(sshd: Sshd, tmp_path: Path) -> None:
    inside = 0
    rounds = 0

    def race(index: int) -> None:
        nonlocal inside, rounds
        with Session(sshd.board(tmp_path)) as session:
            script = BoardScript(session)
            for turn in range(4):
                with Lease(script, f"{index} {turn}", wait=250):
                    inside += 1
                    assert inside == 1
                    rounds += 1
                    time.sleep(0.01)
                    inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(4)))
    assert rounds == 16


HOLDER = """
import sys, time
from facekiln.boards.lease import Lease
from facekiln.boards.remote import RemoteRunner
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Address, Board, Limits
host, port, user, key, host_key, work, lease, mark = sys.argv[1:]
limits = Limits(lease_seconds=12, grace_seconds=12, poll_seconds=0.1)
address = Address(host, int(port), user, key, host_key)
board = Board("loop", "ssh", None, None, address, None, None, work, lease, limits=limits)
with Session(board) as session:
    script = BoardScript(session)
    with Lease(script, "killed") as held:
        RemoteRunner(script, held).run(["sleep", mark])
"""


def test_killed_client_leaves_nothing_running_and_frees_it(
    stack: ExitStack, sshd: Sshd, tmp_path: Path, mark: str
) -> None:
    board = sshd.board(tmp_path)
    address = board.address
    assert address is not None
    words = [address.host, address.port, address.user, address.key, address.host_key, board.work, board.lease]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, words), mark], env={**os.environ, "PYTHONPATH": "workflow"}
    )
    wait_until(lambda: any(line.startswith("sleep") for line in processes_with(mark)))
    holder.kill()
    holder.wait()
    with Lease(client(stack, sshd, tmp_path), "next", wait=90):
        # Whoever gets the board finds it idle.
        assert not processes_with(mark)


def test_taker_ends_what_a_killed_watcher_left(
    stack: ExitStack, sshd: Sshd, tmp_path: Path, mark: str
) -> None:
    one = client(stack, sshd, tmp_path)
    one.call("lease_take", "token", 600, "me", "x")
    job = f"exec sleep {mark}\n# end\n"
    one.call("start", "orphan", 1000, 1000, 0.1, 0, 0, "token", stdin=job.encode())
    wait_until(lambda: any(line.startswith("sleep") for line in processes_with(mark)))
    kill_watcher(one.board.work, guard=True)
    assert processes_with(mark)
    free_by_force(one)
    with Lease(one, "next"):
        assert not processes_with(mark)
