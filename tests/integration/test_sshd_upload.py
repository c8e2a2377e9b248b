"""Files to a board and home over a real OpenSSH server: once per content, resumed, verified."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.boards import upload
from facekiln.boards.faults import BoardFault, Damaged, DiskFull, ReadOnly
from facekiln.boards.script import Answer, BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Board
from facekiln.errors import KilnError
from support.sshd import Proxy, Sshd, running_sshd, wait_until

pytestmark = pytest.mark.bound(300)

MB = 1 << 20


@pytest.fixture
def script(sshd: Sshd, tmp_path: Path) -> Iterator[BoardScript]:
    with Session(sshd.board(tmp_path)) as session:
        yield BoardScript(session)


@pytest.fixture
def far(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> Iterator[BoardScript]:
    """A board behind the proxy."""
    with Session(sshd.board(tmp_path, port=proxy.port)) as session:
        yield BoardScript(session)


def file_of(path: Path, size: int, seed: int = 1) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blobs(script: BoardScript) -> list[str]:
    return sorted(path.name for path in Path(script.board.work, "blobs").iterdir())


def test_file_is_sent_once_per_content(script: BoardScript, tmp_path: Path) -> None:
    first = file_of(tmp_path / "a", 3 * MB)
    second = tmp_path / "b"
    shutil.copy(first, second)
    empty = file_of(tmp_path / "empty", 0)
    assert upload.store(script, [first, second, empty]).sent == 2
    assert upload.store(script, [second, empty]).sent == 0
    assert blobs(script) == sorted([sha(first), sha(empty)])
    assert all(sha(Path(script.board.work, "blobs", name)) == name for name in blobs(script))


def test_many_small_files_go_in_parallel(script: BoardScript, tmp_path: Path) -> None:
    files = [file_of(tmp_path / f"{index}", 1000 + index, index) for index in range(60)]
    assert upload.store(script, files, parallel=8).sent == 60
    assert blobs(script) == sorted(map(sha, files))


def test_blobs_get_names_in_a_run(script: BoardScript, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a", 100)
    stored = upload.store(script, [path])
    folder = upload.place(script, "run", {"deep/model's file": stored.hashes[path]})
    assert (Path(folder) / "deep" / "model's file").read_bytes() == path.read_bytes()


def test_cut_upload_goes_on_where_it_stopped(far: BoardScript, proxy: Proxy, tmp_path: Path) -> None:
    path = file_of(tmp_path / "big", 12 * MB)
    far.call("facts")
    sent_before = proxy.forwarded
    proxy.cut_in(7 * MB)
    upload.store(far, [path])
    assert blobs(far) == [sha(path)]
    assert proxy.connections == 2
    # What was on its way when it was cut goes twice, the rest once.
    assert proxy.forwarded - sent_before < 18 * MB


def test_upload_over_a_link_that_breaks_every_megabyte(
    far: BoardScript, proxy: Proxy, tmp_path: Path
) -> None:
    path = file_of(tmp_path / "big", 5 * MB)
    far.call("facts")
    done = threading.Event()

    def breaker() -> None:
        while not done.wait(0.02):
            if proxy.cut_after is None:
                proxy.cut_in(3 * MB)

    thread = threading.Thread(target=breaker)
    thread.start()
    try:
        upload.store(far, [path])
    finally:
        done.set()
        thread.join()
        proxy.cut_after = None
    assert blobs(far) == [sha(path)]


def test_parallel_uploads_survive_one_cut(far: BoardScript, proxy: Proxy, tmp_path: Path) -> None:
    files = [file_of(tmp_path / f"{index}", 2 * MB, index) for index in range(5)]
    far.call("facts")
    proxy.cut_in(4 * MB)
    upload.store(far, files, parallel=4)
    assert blobs(far) == sorted(map(sha, files))


def test_server_killed_in_mid_upload(tmp_path: Path) -> None:
    path = file_of(tmp_path / "big", 12 * MB)
    with running_sshd(tmp_path / "sshd") as server:
        proxy = Proxy(server.port)
        with Session(server.board(tmp_path, port=proxy.port)) as session:
            script = BoardScript(session)
            script.call("facts")
            killer = threading.Thread(
                target=lambda: (wait_until(lambda: proxy.forwarded > 4 * MB), server.stop(), server.start())
            )
            killer.start()
            upload.store(script, [path])
            killer.join()
        proxy.close()
        assert blobs(script) == [sha(path)]


def test_two_clients_send_the_same_file(sshd: Sshd, tmp_path: Path) -> None:
    path = file_of(tmp_path / "big", 8 * MB)

    def client(_: int) -> None:
        with Session(sshd.board(tmp_path)) as session:
            upload.store(BoardScript(session), [path])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(client, range(3)))
    assert [path.name for path in (tmp_path / "work" / "blobs").iterdir()] == [sha(path)]
    assert sha(tmp_path / "work" / "blobs" / sha(path)) == sha(path)


CLIENT = """
import sys
from pathlib import Path
from facekiln.boards import upload
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Address, Board
host, port, user, key, host_key, work, path = sys.argv[1:]
address = Address(host, int(port), user, key, host_key)
board = Board("loop", "ssh", None, None, address, None, None, work, work + "l")
with Session(board) as session:
    upload.store(BoardScript(session), [Path(path)])
"""


def test_killed_client_is_followed_by_one_that_goes_on(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> None:
    path = file_of(tmp_path / "big", 40 * MB)
    board = sshd.board(tmp_path, port=proxy.port)
    assert board.address is not None
    address = board.address
    words = [address.host, address.port, address.user, address.key, address.host_key, board.work, path]
    stored = Path(board.work, "blobs")

    def there() -> int:
        return sum(part.stat().st_size for part in stored.glob(f"{sha(path)}.*-*"))

    proxy.pause_in(20 * MB)  # it is not to be done before we look
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, words)], env={**os.environ, "PYTHONPATH": "workflow"}
    )
    wait_until(lambda: there() > 2 * MB)
    client.send_signal(signal.SIGKILL)
    client.wait()
    had = there()
    proxy.paused_at = None
    before = proxy.forwarded
    with Session(board) as session:
        upload.store(BoardScript(session), [path])
    assert blobs(BoardScript(session)) == [sha(path)]
    assert proxy.forwarded - before < 40 * MB - had + 2 * MB


def test_damaged_part_is_sent_anew(script: BoardScript, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a", 2 * MB)
    script.call("facts")
    Path(script.board.work, "blobs", f"{sha(path)}.open-left-1-x").write_bytes(bytes(MB))
    upload.store(script, [path])
    assert blobs(script) == [sha(path)]
    assert sha(Path(script.board.work, "blobs", sha(path))) == sha(path)


def test_part_that_is_too_long_is_sent_anew(script: BoardScript, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a", 2 * MB)
    script.call("facts")
    Path(script.board.work, "blobs", f"{sha(path)}.open-left-1-x").write_bytes(bytes(3 * MB))
    upload.store(script, [path])
    assert blobs(script) == [sha(path)]


def test_file_changed_under_way_is_told(
    script: BoardScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path / "a", 2 * MB)
    monkeypatch.setattr(upload, "sha256_of", lambda _: "0" * 64)
    with pytest.raises(Damaged, match="not those that were sent"):
        upload.store(script, [path])
    assert blobs(script) == []


def test_blob_that_vanished_is_told(script: BoardScript, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a", 10)
    stored = upload.store(script, [path])
    Path(script.board.work, "blobs", stored.hashes[path]).unlink()
    with pytest.raises(Damaged, match="no longer on the board"):
        upload.place(script, "run", {"a": stored.hashes[path]})


def test_too_little_space_is_told_before_anything_is_sent(script: BoardScript, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a", 10)
    script.board = replace(script.board, limits=replace(script.board.limits, reserve_mb=1 << 40))
    with pytest.raises(DiskFull, match="nothing was sent"):
        upload.store(script, [path])
    assert blobs(script) == []


def test_clean_removes_by_last_use(script: BoardScript, tmp_path: Path) -> None:
    old, used = file_of(tmp_path / "old", 10, 1), file_of(tmp_path / "used", 10, 2)
    upload.store(script, [old, used])
    for name in blobs(script):
        os.utime(Path(script.board.work, "blobs", name), (0, 0))
    upload.store(script, [used])
    assert upload.clean(script) == 1
    assert blobs(script) == [sha(used)]


# --- home --------------------------------------------------------------------------------------------------


def test_file_comes_home(script: BoardScript, tmp_path: Path) -> None:
    remote = file_of(tmp_path / "it's far", 3 * MB)
    assert upload.fetch(script, str(remote), tmp_path / "home" / "near") == 3 * MB
    assert sha(tmp_path / "home" / "near") == sha(remote)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["near"]


def test_files_come_home_in_parallel(script: BoardScript, tmp_path: Path) -> None:
    remote = {
        str(file_of(tmp_path / f"r{index}", index * 1000)): tmp_path / f"l{index}" for index in range(9)
    }
    assert upload.fetch_all(script, remote) == 36_000
    assert all(local.read_bytes() == Path(name).read_bytes() for name, local in remote.items())


def test_cut_download_goes_on_where_it_stopped(far: BoardScript, proxy: Proxy, tmp_path: Path) -> None:
    remote = file_of(tmp_path / "far", 12 * MB)
    far.call("facts")
    before = proxy.forwarded
    proxy.cut_in(7 * MB)
    upload.fetch(far, str(remote), tmp_path / "near")
    assert sha(tmp_path / "near") == sha(remote)
    assert proxy.forwarded - before < 18 * MB


def test_download_lost_for_good_leaves_the_old_file_and_is_resumed(
    far: BoardScript, proxy: Proxy, sshd: Sshd, tmp_path: Path
) -> None:
    remote, near = file_of(tmp_path / "far", 12 * MB), tmp_path / "home" / "near"
    near.parent.mkdir()
    near.write_text("old")
    far.call("facts")
    far.session.board = replace(far.board, limits=replace(far.board.limits, reconnect_seconds=0))
    proxy.refusing = True
    proxy.cut_in(5 * MB)
    with pytest.raises(BoardFault):
        upload.fetch(far, str(remote), near)
    assert near.read_text() == "old"
    second = Proxy(sshd.port)
    with Session(sshd.board(tmp_path, port=second.port)) as session:
        upload.fetch(BoardScript(session), str(remote), near)
    assert sha(near) == sha(remote)
    assert second.forwarded < 10 * MB
    assert [path.name for path in near.parent.iterdir()] == ["near"]
    second.close()


def test_rest_of_another_file_is_not_kept(script: BoardScript, tmp_path: Path) -> None:
    remote, near = file_of(tmp_path / "far", 2 * MB), tmp_path / "near"
    label = hashlib.sha256(f"{script.board.name}:{remote}".encode()).hexdigest()[:12]
    (tmp_path / f".near.{label}.part").write_bytes(bytes(MB))
    upload.fetch(script, str(remote), near)
    assert sha(near) == sha(remote)


def test_file_that_is_longer_than_told_does_not_fill_the_disk(
    script: BoardScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, near = file_of(tmp_path / "far", 8 * MB), tmp_path / "near"
    call = script.call

    def lying(*words: object, **options: object) -> Answer:
        told = call(*words, **options)  # type: ignore[arg-type]
        return Answer("file", {"size": "1000"}) if words[0] == "stat" else told

    monkeypatch.setattr(script, "call", lying)
    with pytest.raises(Damaged):
        upload.fetch(script, str(remote), near)
    assert not list(tmp_path.glob("*near*"))


def test_file_that_does_not_fit_here_is_told(
    script: BoardScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = file_of(tmp_path / "far", MB)
    monkeypatch.setattr(script, "call", lambda *_, **__: Answer("file", {"size": str(1 << 60)}))
    with pytest.raises(KilnError, match="does not fit"):
        upload.fetch(script, str(remote), tmp_path / "near")


def test_missing_remote_file_is_told(script: BoardScript, tmp_path: Path) -> None:
    with pytest.raises(BoardFault, match="no such file on the board"):
        upload.fetch(script, str(tmp_path / "none"), tmp_path / "near")
    assert not list(tmp_path.glob("near*"))


# --- a board whose disk is full or read-only ---------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Sshd, Board]]:
    """A board whose work folder is a file system of 4 MB in a mount namespace of its own."""
    work = tmp_path / "disk"
    work.mkdir()
    mount = f"mount -t tmpfs -o size=4m none {work}"
    if os.getuid() or subprocess.run(["unshare", "--mount", "sh", "-c", mount], check=False).returncode:
        pytest.skip("needs root and `unshare --mount`")
    with running_sshd(
        tmp_path / "sshd", before=("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "-")
    ) as server:
        yield server, server.board(work, reserve_mb=0)


def test_file_larger_than_the_disk_is_refused(small_disk: tuple[Sshd, Board], tmp_path: Path) -> None:
    with Session(small_disk[1]) as session, pytest.raises(DiskFull, match="nothing was sent"):
        upload.store(BoardScript(session), [file_of(tmp_path / "a", 5 * MB)])


def test_disk_that_fills_up_under_way_is_told_and_left_clean(
    small_disk: tuple[Sshd, Board], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_check_space", lambda *_: None)
    with Session(small_disk[1]) as session:
        script = BoardScript(session)
        with pytest.raises(DiskFull, match="the disk is full"):
            upload.store(script, [file_of(tmp_path / "a", 5 * MB)])
        assert session.run(f"ls {script.board.work}/blobs").stdout == b""
        small = file_of(tmp_path / "b", MB)
        assert upload.store(script, [small]).sent == 1


def test_work_folder_on_a_read_only_file_system_is_told(small_disk: tuple[Sshd, Board]) -> None:
    board = small_disk[1]
    with Session(board) as session:
        script = BoardScript(session)
        script.call("facts")
        session.run(f"mount -o remount,ro {Path(board.work).parent}")
        with pytest.raises(ReadOnly, match="read-only"):
            script.call("facts")
        fresh = replace(board, work=f"{board.work}2")
    with Session(fresh) as session, pytest.raises(ReadOnly, match="read-only"):
        BoardScript(session).call("facts")
