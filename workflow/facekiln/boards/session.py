"""One SSH session to a board: pinned host keys, keys only, a jump host, limits, and a way back after a cut.

Transfers go through the channel of a command (`cat`) and not through SFTP: boards with dropbear often have no
SFTP server, and a plain channel is faster, since nothing waits for acknowledgements of blocks.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import paramiko

from facekiln.boards.faults import BadAnswer, BoardFault, ConnectionLost, Unsupported
from facekiln.boards.login import logged_in, tcp_to, tunnel
from facekiln.boards.settings import Board

Feed = bytes | Callable[[], Iterable[bytes | memoryview]]

_CHUNK = 1 << 18
# Bytes of an answer that is kept; board.sh answers in a few kilobytes, and a board is not to fill our memory.
_ANSWER = 1 << 24
_SENTINEL = re.compile(rb"\nkiln-exit:(\d+)\n?$")


@dataclass(frozen=True)
class Completed:
    """What a command left: exit status (0..255) and whole output."""

    status: int
    stdout: bytes
    stderr: bytes


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
        kept = 0
        try:
            channel.settimeout(idle or limits.command_seconds)
            channel.exec_command(f"exec sh -c {shlex.quote(command)}")

            def keep(chunk: bytes) -> None:
                if sum(map(len, errors)) < _ANSWER:
                    errors.append(chunk)

            reader = threading.Thread(
                target=_drain, args=(channel, on_stderr or keep), name="board-stderr", daemon=True
            )
            reader.start()
            self._feed(channel, stdin)
            take = on_stdout or output.append
            while chunk := channel.recv(_CHUNK):
                take(chunk)
                kept += len(chunk) if on_stdout is None else 0
                if kept > _ANSWER:
                    raise BadAnswer(
                        "the board answers without an end",
                        file=self.board.name,
                        limit=f"{_ANSWER >> 20} MB",
                        hint="is it the right board, and its login shell silent?",
                    )
            reader.join(idle or limits.command_seconds)
            # paramiko ends the channels of a broken connection before it calls that inactive.
            broken = transport.saved_exception is not None or not transport.is_active()
            if broken and not channel.eof_received:
                # The status comes by another stream: it may be here while the rest of the output is not.
                raise self._lost("cut before the end of a command's output")
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
            return logged_in(self._address, tcp_to(self._address, board), board)
        self._jump = logged_in(board.jump, tcp_to(board.jump, board), board)
        return logged_in(self._address, tunnel(self._jump, self._address, board), board)


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
