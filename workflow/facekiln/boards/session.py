"""One SSH session to a board: pinned host keys, keys only, a jump host, limits, and a way back after a cut.

Transfers go through the channel of a command (`cat`) and not through SFTP: boards with dropbear often have no
SFTP server, and a plain channel is faster, since nothing waits for acknowledgements of blocks.
"""

from __future__ import annotations

import logging
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko

from facekiln.boards.faults import (
    AccessRefused,
    BoardFault,
    ConnectionLost,
    HostKeyFault,
    Unreachable,
    Unsupported,
)
from facekiln.boards.settings import Address, Board

# Its transport thread prints tracebacks for every cut connection; what matters comes as an exception.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

Feed = bytes | Callable[[], Iterable[bytes | memoryview]]

# Bytes that the board may send ahead. Measured on loopback: 2 MB makes sshd wait for us, and with 16 MB and
# more it shifts its own buffer about; 4 MB is the fastest.
_WINDOW = 1 << 22
_CHUNK = 1 << 18
_KEEPALIVE = 15  # seconds
# AES-GCM is authenticated in one pass; paramiko prefers CTR with a separate HMAC, which takes twice the time.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
_SENTINEL = re.compile(rb"\nkiln-exit:(\d+)\n?$")


@dataclass(frozen=True)
class Completed:
    """What a command left: exit status (0..255) and whole output."""

    status: int
    stdout: bytes
    stderr: bytes


def fingerprint(host_key: str) -> str:
    """Return "SHA256:..." of "type base64", as `ssh-keygen -lf` prints it."""
    kind, _, text = host_key.partition(" ")
    try:
        key = paramiko.PKey.from_type_string(kind, _decoded(text))
        return str(key.fingerprint)
    except (paramiko.SSHException, ValueError, TypeError) as error:
        raise HostKeyFault(f"is not a public key: {error}", value=host_key) from error


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


class Session:
    """A connection to a board, which can be made anew after it was lost."""

    def __init__(self, board: Board) -> None:
        """Take the board's entry; nothing is connected yet.

        Raises:
            Unsupported: the board has no SSH server.
        """
        if board.address is None:
            raise Unsupported(f"its transport is '{board.transport}', not ssh", file=board.name)
        self.board = board
        self.generation = 0
        self._address = board.address
        self._lock = threading.RLock()
        self._transport: paramiko.Transport | None = None
        self._jump: paramiko.Transport | None = None

    def __enter__(self) -> Session:
        """Connect."""
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def connect(self) -> None:
        """Connect, check the host key, log in.

        Raises:
            Unreachable: refused, timed out, no such name, or no answer of an SSH server.
            HostKeyFault: no key is pinned, or the server has another.
            AccessRefused: the key is refused, missing or has a passphrase.
            Unsupported: no algorithm in common.
        """
        with self._lock:
            self.close()
            try:
                self._transport = self._logged_in()
            except BaseException:
                self.close()
                raise
            self.generation += 1

    def close(self) -> None:
        """Close; commands of this session that are not detached get an end of input."""
        with self._lock:
            for transport in (self._transport, self._jump):
                if transport is not None:
                    transport.close()
            self._transport = self._jump = None

    def reconnect(self, seen: int) -> None:
        """Connect again within `limits.reconnect_seconds`, unless another thread has done so since `seen`.

        Args:
            seen: `generation` at the time of the failure.

        Raises:
            BoardFault: a final fault at once, ConnectionLost when the time is over.
        """
        with self._lock:
            if self.generation != seen and self._transport is not None and self._transport.is_active():
                return  # another thread was quicker
            deadline = time.monotonic() + self.board.limits.reconnect_seconds
            wait = 0.1
            while True:
                try:
                    self.connect()
                    return
                except BoardFault as fault:
                    if not fault.transient:
                        raise
                    if time.monotonic() + wait > deadline:
                        raise ConnectionLost(
                            f"the connection was lost and not found again: {fault.what}",
                            file=self.board.name,
                            limit=f"{self.board.limits.reconnect_seconds:g} s",
                            hint="is the board up? `facekiln board check`; then run the same command again",
                        ) from fault
                time.sleep(wait)
                wait = min(wait * 2, 5.0)

    def run(
        self,
        command: str,
        *,
        stdin: Feed = b"",
        idle: float | None = None,
        on_stdout: Callable[[bytes], object] | None = None,
        on_stderr: Callable[[bytes], object] | None = None,
    ) -> Completed:
        """Run a POSIX shell command line; quote its arguments with `shlex.quote`.

        Args:
            command: the command line, given to `sh -c`.
            stdin: bytes, or a function that gives chunks.
            idle: seconds without a byte in either direction after which it is given up; by default
                `limits.command_seconds`.
            on_stdout: gets the output as it comes, which is then not kept; likewise `on_stderr`, whose thread
                is another one.

        Raises:
            ConnectionLost: cut, idle for too long, or ended without a status.
        """
        # Some servers of embedded systems send no exit status, so the shell tells it too.
        if on_stderr is None:
            command += "\nprintf '\\nkiln-exit:%s\\n' $? >&2"
        transport = self._transport
        if transport is None or not transport.is_active():
            raise self._lost("there is no connection")
        limits = self.board.limits
        try:
            channel = transport.open_session(timeout=limits.connect_seconds)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(f"no channel could be opened: {error}") from error
        errors: list[bytes] = []
        output: list[bytes] = []
        try:
            channel.settimeout(idle or limits.command_seconds)
            channel.exec_command(f"exec sh -c {shlex.quote(command)}")
            reader = threading.Thread(
                target=_drain, args=(channel, on_stderr or errors.append), name="board-stderr", daemon=True
            )
            reader.start()
            self._feed(channel, stdin)
            take = on_stdout or output.append
            while chunk := channel.recv(_CHUNK):
                take(chunk)
            reader.join(idle or limits.command_seconds)
            status = self._status(channel, b"".join(errors), streamed=on_stderr is not None)
        except TimeoutError as error:
            raise self._lost(
                "no byte moved within the limit", limit=f"{idle or limits.command_seconds:g} s"
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(f"it broke: {str(error) or type(error).__name__}") from error
        finally:
            with suppress(paramiko.SSHException, EOFError, OSError):
                channel.close()
        return Completed(status, b"".join(output), _SENTINEL.sub(b"", b"".join(errors)))

    def _feed(self, channel: paramiko.Channel, stdin: Feed) -> None:
        try:
            for chunk in [stdin] if isinstance(stdin, bytes) else stdin():
                if chunk:
                    channel.sendall(chunk)  # type: ignore[arg-type, unused-ignore]
            channel.shutdown_write()
        except TimeoutError:
            raise
        except (OSError, EOFError) as error:
            # The command ended before it had read all; its output tells why.
            if not (channel.closed or channel.eof_received):
                raise self._lost(f"it broke: {str(error) or type(error).__name__}") from error

    def _status(self, channel: paramiko.Channel, errors: bytes, *, streamed: bool) -> int:
        sentinel = _SENTINEL.search(errors)
        if sentinel:
            return int(sentinel[1])
        channel.status_event.wait(1.0)
        status = channel.recv_exit_status() if channel.exit_status_ready() else -1
        if status < 0 and streamed and self._transport is not None and self._transport.is_active():
            return 255  # a server that tells none; who streams errors asks the run's state anyway
        if status < 0:
            raise self._lost("a command ended without a status")
        return int(status)

    def _lost(self, what: str, limit: str | None = None) -> ConnectionLost:
        return ConnectionLost(f"the connection was lost: {what}", file=self.board.name, limit=limit)

    def _logged_in(self) -> paramiko.Transport:
        board = self.board
        if board.jump is None:
            return _transport(self._address, self._socket(self._address), board)
        self._jump = _transport(board.jump, self._socket(board.jump), board)
        try:
            channel = self._jump.open_channel(
                "direct-tcpip",
                (self._address.host, self._address.port),
                ("127.0.0.1", 0),
                timeout=board.limits.connect_seconds,
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Unreachable(
                f"the jump host {board.jump} does not reach {self._address}: {error}",
                file=board.name,
                hint=f"try it: `ssh -J {board.jump} {self._address.user}@{self._address.host}`",
            ) from error
        return _transport(self._address, channel, board)

    def _socket(self, address: Address) -> socket.socket:
        limits = self.board.limits
        try:
            connected = socket.create_connection((address.host, address.port), timeout=limits.connect_seconds)
        except OSError as error:
            raise Unreachable(
                f"{address} cannot be reached: {error}",
                file=self.board.name,
                hint="is it up, and host and port right in config/boards.yaml?",
            ) from error
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # paramiko's keepalive waits for no answer, so the kernel has to tell that nobody acknowledges.
            limit = int(1000 * max(limits.stall_seconds, 2))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
        return connected


def _drain(channel: paramiko.Channel, take: Callable[[bytes], object]) -> None:
    try:
        while True:
            try:
                chunk = channel.recv_stderr(_CHUNK)
            except TimeoutError:
                continue  # the reader of standard output judges idleness
            if not chunk:
                return
            take(chunk)
    except (OSError, paramiko.SSHException):
        return


def _transport(address: Address, link: socket.socket | paramiko.Channel, board: Board) -> paramiko.Transport:
    limits = board.limits
    transport = paramiko.Transport(link, default_window_size=_WINDOW)  # type: ignore[arg-type, unused-ignore]
    transport.daemon = True
    transport.banner_timeout = limits.connect_seconds
    transport.auth_timeout = limits.connect_seconds
    options = transport.get_security_options()
    fast = [cipher for cipher in _CIPHERS if cipher in options.ciphers]
    options.ciphers = [*fast, *(cipher for cipher in options.ciphers if cipher not in fast)]
    if address.host_key:
        kind = address.host_key.split(" ")[0]
        wanted = [name for name in options.key_types if name == kind or (kind == "ssh-rsa" and name in _RSA)]
        options.key_types = [*wanted, *(name for name in options.key_types if name not in wanted)]
    try:
        transport.start_client(timeout=limits.connect_seconds)
        _check_host_key(transport, address, board.name)
        _log_in(transport, address, board.name)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        transport.close()
        raise Unsupported(
            f"{address} has no algorithm in common with us: {error}",
            file=board.name,
            hint="servers that know only SHA-1 (ssh-rsa, group14-sha1) need `pip install 'paramiko<5'`",
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        raise Unreachable(
            f"{address} does not answer as an SSH server: {str(error) or type(error).__name__}",
            file=board.name,
            hint="is an SSH server behind that port?",
        ) from error
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(_KEEPALIVE)
    return transport


def host_key_of(transport: paramiko.Transport) -> str:
    """Return the server's key as "type base64"."""
    key = transport.get_remote_server_key()
    return f"{key.get_name()} {key.get_base64()}"


def _check_host_key(transport: paramiko.Transport, address: Address, board: str) -> None:
    seen = host_key_of(transport)
    if address.host_key is None:
        raise HostKeyFault(
            f"no host key is pinned for {address}; it shows {fingerprint(seen)}",
            file=board,
            hint="compare it on the board (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), "
            f"then `facekiln board add {board}`",
        )
    if seen != address.host_key:
        raise HostKeyFault(
            f"{address} has another host key than the pinned one; nothing was sent",
            file=board,
            value=fingerprint(seen),
            limit=fingerprint(address.host_key),
            hint=f"if the board was installed anew: compare, then `facekiln board add {board} --replace`; "
            "else somebody may stand between",
        )


def _log_in(transport: paramiko.Transport, address: Address, board: str) -> None:
    keys = [_key_of(address.key, board)] if address.key else list(paramiko.Agent().get_keys())
    if not keys:
        raise AccessRefused("the agent holds no key", file=board, hint="`ssh-add`, or name a `key:` file")
    refusals = []
    for key in keys:
        try:
            if not transport.auth_publickey(address.user, key):
                return
            refusals.append("it wants a second factor")
        except paramiko.AuthenticationException as error:
            refusals.append(str(error))
    raise AccessRefused(
        f"{address} refuses {address.key or 'every key of the agent'}: {', '.join(sorted(set(refusals)))}",
        file=board,
        hint="append the public key to ~/.ssh/authorized_keys there (`ssh-copy-id`); passwords are not used",
    )


def _key_of(path: str, board: str) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(Path(path))
    except FileNotFoundError as error:
        raise AccessRefused(
            "there is no such key file",
            file=board,
            where=path,
            hint="`ssh-keygen -t ed25519`, or name another",
        ) from error
    except (paramiko.SSHException, ValueError, TypeError, OSError) as error:
        raise AccessRefused(
            f"the key cannot be used: {error}",
            file=board,
            where=path,
            hint="a key with a passphrase belongs into an agent: `ssh-add`, and `agent: true`",
        ) from error


def offered_host_key(board: Board, address: Address, through: Address | None = None) -> str:
    """Return the key that a server offers, as "type base64", without logging in to it.

    Args:
        board: for its limits and name.
        address: of the server.
        through: the jump host, whose key must be pinned.

    Raises:
        BoardFault: see `Session.connect`.
    """
    session = Session(board)
    try:
        link: socket.socket | paramiko.Channel
        if through is None:
            link = session._socket(address)
        else:
            session._jump = _transport(through, session._socket(through), board)
            link = session._jump.open_channel(
                "direct-tcpip",
                (address.host, address.port),
                ("127.0.0.1", 0),
                timeout=board.limits.connect_seconds,
            )
        transport = paramiko.Transport(link)  # type: ignore[arg-type, unused-ignore]
        try:
            transport.start_client(timeout=board.limits.connect_seconds)
            return host_key_of(transport)
        finally:
            transport.close()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Unreachable(f"{address} does not answer as an SSH server: {error}", file=board.name) from error
    finally:
        session.close()
