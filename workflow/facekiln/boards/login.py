"""Logging in to a board: TCP or a jump host, the pinned host key, keys only."""

from __future__ import annotations

import base64
import logging
import socket
from pathlib import Path

import paramiko

from facekiln.boards.faults import AccessRefused, HostKeyFault, Unreachable, Unsupported
from facekiln.boards.settings import Address, Board

# Its transport thread prints tracebacks for every cut connection; what matters comes as an exception.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

# Bytes that the board may send ahead. Measured on loopback: 2 MB makes sshd wait for us, and with 16 MB and
# more it shifts its own buffer about; 4 MB is the fastest.
_WINDOW = 1 << 22
_KEEPALIVE = 15  # seconds
# AES-GCM is authenticated in one pass; paramiko prefers CTR with a separate HMAC, which takes twice the time.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")

# What paramiko's AuthenticationException says.
_REFUSED, _TOO_SLOW = "Authentication failed.", "Authentication timeout."


def fingerprint(host_key: str) -> str:
    """Return "SHA256:..." of "type base64", as `ssh-keygen -lf` prints it."""
    kind, _, text = host_key.partition(" ")
    try:
        key = paramiko.PKey.from_type_string(kind, _decoded(text))
        return str(key.fingerprint)
    except (paramiko.SSHException, ValueError, TypeError) as error:
        raise HostKeyFault(f"is not a public key: {error}", value=host_key) from error


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def tcp_to(address: Address, board: Board) -> socket.socket:
    """Return a TCP connection to a server, which notices when nobody acknowledges any more.

    Raises:
        Unreachable: nobody answers within `limits.connect_seconds`.
    """
    limits = board.limits
    try:
        connected = socket.create_connection((address.host, address.port), timeout=limits.connect_seconds)
    except OSError as error:
        raise Unreachable(
            f"{address} cannot be reached: {error}",
            file=board.name,
            hint="is it up, and host and port right in config/boards.yaml?",
        ) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # paramiko's keepalive waits for no answer, so the kernel has to tell that nobody acknowledges.
        limit = int(1000 * max(limits.stall_seconds, 2))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
    return connected


def tunnel(jump: paramiko.Transport, address: Address, board: Board) -> paramiko.Channel:
    """Return a connection to a server through a jump host that we are logged in to.

    Raises:
        Unreachable: the jump host does not reach it.
    """
    try:
        return jump.open_channel(
            "direct-tcpip",
            (address.host, address.port),
            ("127.0.0.1", 0),
            timeout=board.limits.connect_seconds,
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Unreachable(
            f"the jump host {board.jump} does not reach {address}: {error}",
            file=board.name,
            hint=f"try it: `ssh -J {board.jump} {address.user}@{address.host}`",
        ) from error


def logged_in(address: Address, link: socket.socket | paramiko.Channel, board: Board) -> paramiko.Transport:
    """Return a transport over a link, the host key checked and the user logged in.

    Raises:
        HostKeyFault: no key is pinned, or the server shows another.
        AccessRefused: it takes none of our keys, or a key cannot be used.
        Unsupported: no algorithm in common.
        Unreachable: it does not answer as an SSH server.
    """
    limits = board.limits
    transport = paramiko.Transport(link, default_window_size=_WINDOW)  # type: ignore[arg-type, unused-ignore]
    transport.daemon = True
    transport.banner_timeout = limits.connect_seconds
    transport.handshake_timeout = limits.connect_seconds
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
            # paramiko tells a cut, and a server that is too slow, by the same error as a refusal.
            if str(error) == _TOO_SLOW or (not transport.is_active() and str(error) != _REFUSED):
                raise Unreachable(
                    f"the connection to {address} was lost while logging in: {error}",
                    file=board,
                    hint="run the same command again",
                ) from error
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
        BoardFault: see `logged_in`.
    """
    jump = logged_in(through, tcp_to(through, board), board) if through else None
    try:
        link = tunnel(jump, address, board) if jump else tcp_to(address, board)
        transport = paramiko.Transport(link)  # type: ignore[arg-type, unused-ignore]
        try:
            transport.start_client(timeout=board.limits.connect_seconds)
            return host_key_of(transport)
        finally:
            transport.close()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Unreachable(f"{address} does not answer as an SSH server: {error}", file=board.name) from error
    finally:
        if jump:
            jump.close()
