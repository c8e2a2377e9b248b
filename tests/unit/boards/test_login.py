"""Logging in to a server that refuses, that is cut off, or that does not answer in time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from facekiln.boards.faults import AccessRefused, Unreachable
from facekiln.boards.login import logged_in, tcp_to
from facekiln.boards.settings import Address, Board, Limits

HOST_KEY = paramiko.ECDSAKey.generate()


class Server(paramiko.ServerInterface):
    """A server that refuses a key, or does with the connection what it is told to."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        self.act()
        return paramiko.AUTH_FAILED


@pytest.fixture
def key(tmp_path: Path) -> Path:
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "id"))
    return tmp_path / "id"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.mark.parametrize(
    ("how", "fault", "said"),
    [
        ("refuses", AccessRefused, "refuses .*: Authentication failed"),
        ("is cut", Unreachable, "was lost while logging in"),
        ("is silent", Unreachable, r"was lost while logging in: Authentication timeout"),
    ],
)
def test_cut_while_logging_in_is_no_refusal(
    how: str, fault: type[Exception], said: str, key: Path, listener: socket.socket
) -> None:
    done = threading.Event()

    def serve() -> None:
        link = listener.accept()[0]
        transport = paramiko.Transport(link)
        transport.add_server_key(HOST_KEY)
        acts = {"refuses": lambda: None, "is cut": link.close, "is silent": lambda: done.wait(90)}
        transport.start_server(server=Server(acts[how]))
        done.wait(90)
        transport.close()

    thread = threading.Thread(target=serve)
    thread.start()
    pinned = f"{HOST_KEY.get_name()} {HOST_KEY.get_base64()}"
    address = Address("127.0.0.1", listener.getsockname()[1], "me", str(key), pinned)
    limits = Limits(connect_seconds=5 if how == "is silent" else 60)
    board = Board("loop", "ssh", None, None, address, None, None, "/w", "/l", limits=limits)
    try:
        with pytest.raises(fault, match=said) as told:
            logged_in(address, tcp_to(address, board), board)
        assert told.value.transient is (fault is Unreachable)  # type: ignore[attr-defined]
    finally:
        done.set()
        thread.join()
