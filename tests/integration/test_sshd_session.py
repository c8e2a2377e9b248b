"""A real OpenSSH server on loopback: who is let in, what is refused, and ways back after a cut."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from facekiln.boards.faults import (
    AccessRefused,
    BadAnswer,
    BoardFault,
    ConnectionLost,
    HostKeyFault,
    Unreachable,
    Unsupported,
)
from facekiln.boards.login import fingerprint, offered_host_key
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Address, Board
from support.sshd import Proxy, Sshd, make_key, running_sshd, wait_until

pytestmark = pytest.mark.bound(300)


def with_address(board: Board, **changes: object) -> Board:
    assert board.address is not None
    return replace(board, address=replace(board.address, **changes))  # type: ignore[arg-type]


def refusal(board: Board, kind: type[BoardFault]) -> str:
    with pytest.raises(kind) as caught, Session(board):
        pass
    return str(caught.value)


def test_output_status_and_errors_come_apart(sshd: Sshd, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path)) as session:
        done = session.run("echo out; echo err >&2; (exit 5)")
    assert (done.status, done.stdout, done.stderr) == (5, b"out\n", b"err\n")


def test_large_input_and_output_do_not_block_each_other(sshd: Sshd, tmp_path: Path) -> None:
    data = os.urandom(6_000_000)
    with Session(sshd.board(tmp_path)) as session:
        done = session.run("cat >x; cat x; cat x >&2; rm x".replace("x", str(tmp_path / "x")), stdin=data)
    assert done.stdout == data
    assert done.stderr == data


def test_answer_without_an_end_is_not_kept(sshd: Sshd, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path)) as session, pytest.raises(BadAnswer, match="without an end"):
        session.run("head -c 40000000 /dev/zero")


def test_server_without_the_pinned_key_is_refused_with_its_fingerprint(sshd: Sshd, tmp_path: Path) -> None:
    told = refusal(with_address(sshd.board(tmp_path), host_key=None), HostKeyFault)
    assert "no host key is pinned" in told
    assert fingerprint(sshd.host_key) in told
    assert "facekiln board add" in told


def test_changed_host_key_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        board = server.board(tmp_path)
        server.stop()
        new = server.new_host_key()
        server.start()
        told = refusal(board, HostKeyFault)
    assert fingerprint(server.host_key) in told
    assert fingerprint(new) in told
    assert "nothing was sent" in told
    assert not (tmp_path / "work").exists()


def test_changed_host_key_is_refused_on_the_way_back_too(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server, Session(server.board(tmp_path)) as session:
        script = BoardScript(session)
        script.call("facts")
        server.stop()
        server.new_host_key()
        server.start()
        with pytest.raises(HostKeyFault):
            script.call("facts")


def test_fingerprint_is_what_ssh_keygen_prints(sshd: Sshd) -> None:
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(sshd.folder / "host_ed25519.pub")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert fingerprint(sshd.host_key) == listed.stdout.split()[1]


def test_refused_key_is_told(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    told = refusal(with_address(sshd.board(tmp_path), key=str(tmp_path / "other")), AccessRefused)
    assert "refuses" in told
    assert "authorized_keys" in told


def test_missing_key_file_is_told(sshd: Sshd, tmp_path: Path) -> None:
    told = refusal(with_address(sshd.board(tmp_path), key=str(tmp_path / "none")), AccessRefused)
    assert "there is no such key file" in told


def test_key_with_a_passphrase_is_sent_to_the_agent(sshd: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)
    assert "belongs into an agent" in refusal(
        with_address(sshd.board(tmp_path), key=str(path)), AccessRefused
    )


def test_agent_logs_in(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(link)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(link))
        add = ["ssh-add", "-q", str(sshd.key)]
        wait_until(lambda: subprocess.run(add, capture_output=True, check=False).returncode == 0)
        with Session(with_address(sshd.board(tmp_path), key=None)) as session:
            assert session.run("true").status == 0
    finally:
        agent.terminate()
        agent.wait()


def test_agent_without_keys_is_told(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "the agent holds no key" in refusal(with_address(sshd.board(tmp_path), key=None), AccessRefused)


def test_closed_port_is_told(sshd: Sshd, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        told = refusal(with_address(sshd.board(tmp_path), port=unused.getsockname()[1]), Unreachable)
    assert "cannot be reached" in told


@pytest.mark.parametrize("greeting", [None, b"HTTP/1.0 400 Bad Request\r\n\r\n"], ids=["silent", "http"])
def test_port_without_an_ssh_server_is_told(sshd: Sshd, tmp_path: Path, greeting: bytes | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            client, _ = other.accept()
            with client:
                if greeting:
                    client.sendall(greeting)
                else:
                    client.recv(1000)
                    client.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        board = with_address(sshd.board(tmp_path, connect_seconds=1), port=other.getsockname()[1])
        assert "does not answer as an SSH server" in refusal(board, Unreachable)


def jump_of(sshd: Sshd, host_key: str | None = None) -> Address:
    address = sshd.board(sshd.folder).address
    assert address is not None
    return replace(address, host_key=host_key or address.host_key)


def test_jump_host_is_passed_and_its_key_is_checked(sshd: Sshd, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "inner") as inner:
        board = replace(inner.board(tmp_path), jump=jump_of(sshd))
        with Session(board) as session:
            assert session.run("echo $SSH_CONNECTION").stdout.split()[3] == str(inner.port).encode()
        assert board.address is not None
        assert offered_host_key(board, board.address, board.jump) == inner.host_key
        told = refusal(replace(board, jump=jump_of(sshd, inner.host_key)), HostKeyFault)
    assert fingerprint(sshd.host_key) in told


def test_jump_host_that_does_not_reach_the_board_is_told(sshd: Sshd, tmp_path: Path) -> None:
    board = replace(sshd.board(tmp_path), jump=jump_of(sshd))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        told = refusal(with_address(board, port=unused.getsockname()[1]), Unreachable)
    assert "does not reach" in told


def test_cut_connection_is_found_again(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path, port=proxy.port)) as session:
        script = BoardScript(session)
        script.call("facts")
        proxy.cut()
        assert script.call("facts").word == "facts"
        assert session.generation == 2


@pytest.mark.parametrize("slow", [False, True], ids=["at-once", "slowly"])
def test_a_status_that_came_before_a_cut_is_no_whole_answer(
    sshd: Sshd, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """It comes on standard error: what standard output still holds may be cut off behind it."""
    unlink, said = paramiko.Channel._unlink, tmp_path / "said"
    if slow:  # the thread that notices the cut stands still before it has told that the connection is gone
        monkeypatch.setattr(paramiko.Channel, "_unlink", lambda channel: (unlink(channel), time.sleep(0.5)))

    def cut() -> None:
        wait_until(said.exists, 30)
        time.sleep(0.3)  # the status is on its way
        proxy.cut()

    with Session(sshd.board(tmp_path, port=proxy.port)) as session:
        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(ConnectionLost, match="before the end of a command's output"):
            session.run(f"printf '\\nkiln-exit:0\\n' >&2; touch {said}; sleep 40; echo late")
        cutter.join()


def test_cut_in_each_part_of_a_call_is_found_again(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path, port=proxy.port)) as session:
        script = BoardScript(session)
        for more in (1, 100, 400, 900, 1500):
            proxy.cut_in(more)
            assert script.call("facts").word == "facts"


def test_restarted_server_is_found_again(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server, Session(server.board(tmp_path)) as session:
        script = BoardScript(session)
        script.call("facts")
        server.stop()
        back = threading.Timer(0.5, server.start)
        back.start()
        assert script.call("facts").word == "facts"
        back.join()


def test_server_that_stays_away_is_told_with_the_limit(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd") as server,
        Session(server.board(tmp_path, reconnect_seconds=0.3)) as session,
    ):
        script = BoardScript(session)
        script.call("facts")
        server.stop()
        with pytest.raises(ConnectionLost, match="not found again") as caught:
            script.call("facts")
    assert "0.3 s" in str(caught.value)


def test_silent_link_is_given_up_and_replaced(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path, port=proxy.port, command_seconds=4)) as session:
        script = BoardScript(session)
        script.call("facts")
        proxy.silent = True
        threading.Timer(5, lambda: (setattr(proxy, "silent", False), proxy.cut())).start()
        assert script.call("facts").word == "facts"


def test_emptied_work_folder_gets_the_script_again(sshd: Sshd, tmp_path: Path) -> None:
    with Session(sshd.board(tmp_path)) as session:
        script = BoardScript(session)
        script.call("facts")
        (tmp_path / "work" / "bin").rename(tmp_path / "gone")
        assert script.call("facts").word == "facts"


def test_board_without_ssh_is_told(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="transport is 'directory'"):
        Session(replace(sshd.board(tmp_path), transport="directory", address=None))
