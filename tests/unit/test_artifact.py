"""Atomic writes: all or nothing, whatever interrupts them."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from facekiln.artifact import (
    atomic_folder,
    atomic_path,
    is_running,
    read_bytes,
    read_json,
    read_text,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)
from facekiln.errors import KilnError


def test_write_is_whole_and_leaves_no_part(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a.bin", b"abc")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_interrupted_write_keeps_the_old_file(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(interruption), atomic_path(target) as part:
        part.write_bytes(b"half")
        raise interruption
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_interrupted_folder_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with atomic_folder(target) as part:
        (part / "one").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as part:
        (part / "two").write_text("2")
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    """`--output` may name a folder full of somebody's work."""
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.tex").write_text("x")
    with (
        pytest.raises(KilnError, match=r"home: holds other files.*thesis\.tex"),
        atomic_folder(target) as part,
    ):
        (part / "one").write_text("1")
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "thesis.tex"]
    (target / "one").write_text("of an earlier run")
    with atomic_folder(target) as part:
        (part / "one").write_text("1")
    assert [path.name for path in target.iterdir()] == ["one"]


def test_a_link_in_place_of_a_folder_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    wanted = pytest.raises(KilnError, match=r"link: cannot be written: .*symbolic link")
    with wanted, atomic_folder(tmp_path / "link") as part:
        (part / "one").write_text("1")


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Nor is /dev/null, which a container's root may replace."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KilnError, match=r"pipe: is a device or a pipe"):
        write_bytes(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    code = (
        "import os, signal, sys\nfrom facekiln.artifact import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    write_bytes(target, b"whole")
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_running_process_writes_stays(tmp_path: Path) -> None:
    """Two jobs that write the same file at once: the second must not take the first's part away."""
    theirs = tmp_path / f".a.bin.{socket.gethostname()}.{os.getppid()}.part"
    theirs.write_bytes(b"half")
    write_bytes(tmp_path / "a.bin", b"whole")
    assert theirs.read_bytes() == b"half"


def test_a_process_of_another_account_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    assert is_running(os.getpid())
    monkeypatch.setattr(os, "kill", refuse)
    assert is_running(1)


def test_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="disk is full"), atomic_path(tmp_path / "a.bin") as part:
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_really_full_device_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(KilnError, match="disk is full"),
        atomic_path(tmp_path / "a.bin"),
        Path("/dev/full").open("wb") as stream,
    ):
        stream.write(b"x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_whole_files_come_back_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "é\n")
    assert read_text(file) == "é\n" and read_bytes(file) == b"\xc3\xa9\n"
    for read in (read_text, read_bytes):
        for path, why in ((tmp_path / "missing", "No such file"), (tmp_path, "directory")):
            with pytest.raises(KilnError, match=rf"^{path}: cannot be read: .*{why}"):
                read(path)
    file.write_bytes(b"\xff")
    with pytest.raises(KilnError, match=r"a\.txt: cannot be read: .*utf-8"):
        read_text(file)


def test_json_is_the_same_to_the_byte_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "b.json", {"a": [1.5, "é"], "b": 1})
    assert sha256_of(tmp_path / "a.json") == sha256_of(tmp_path / "b.json")
    with pytest.raises(ValueError):
        write_json(tmp_path / "c.json", float("nan"))
    assert not (tmp_path / "c.json").exists()


def test_unreadable_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(KilnError, match=r"a\.json: is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(KilnError, match=r"b\.json: cannot be read"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("[" * 100_000)  # deeper than Python's reader recurses
    with pytest.raises(KilnError, match=r"c\.json: is not JSON"):
        read_json(tmp_path / "c.json")
