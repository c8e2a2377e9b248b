"""An unprivileged OpenSSH server on loopback with keys of its own, and a proxy before it that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facekiln.boards.settings import Address, Board, Limits
from facekiln.boards.virtual import server as virtual
from facekiln.errors import KilnError


def find_sshd() -> str:
    """Return the path of sshd, or skip."""
    try:
        return virtual.find_sshd()
    except KilnError as error:
        pytest.skip(f"no sshd here: {error}")


def make_key(path: Path, kind: str = "ed25519") -> str:
    """Make a key pair and return the public key as "type base64"."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@dataclass
class Sshd:
    """A server in a folder; `start` again after `stop` keeps port and keys."""

    folder: Path
    port: int = field(default_factory=virtual.free_port)
    lines: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    host_key: str = ""

    def __post_init__(self) -> None:
        self.program = find_sshd()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.host_key = make_key(self.folder / "host_ed25519")
        make_key(self.folder / "id_ed25519")
        shutil.copy(self.folder / "id_ed25519.pub", self.folder / "authorized_keys")

    @property
    def key(self) -> Path:
        """The client's private key."""
        return self.folder / "id_ed25519"

    def new_host_key(self) -> str:
        """Give the server another host key, as after a reinstallation."""
        for suffix in ("", ".pub"):
            (self.folder / f"host_ed25519{suffix}").unlink()
        return make_key(self.folder / "host_ed25519")

    def start(self) -> None:
        """Start and wait until it listens."""
        config = self.folder / "sshd_config"
        config.write_text(
            "\n".join(
                [
                    "ListenAddress 127.0.0.1",
                    f"Port {self.port}",
                    f"HostKey {self.folder}/host_ed25519",
                    f"PidFile {self.folder}/sshd.pid",
                    f"AuthorizedKeysFile {self.folder}/authorized_keys",
                    "AuthenticationMethods publickey",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "UsePAM no",
                    "PermitRootLogin prohibit-password",
                    "StrictModes no",
                    "MaxSessions 64",
                    "MaxStartups 64",
                    "Subsystem sftp internal-sftp",
                    # A bash that sshd starts reads ~/.bashrc; at a deeper level it does not.
                    " ".join(["SetEnv SHLVL=2", *self.environment]),
                    *self.lines,
                ]
            )
            + "\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        # Written once it listens; another program may have taken the port meanwhile, which would answer too.
        listens = self.folder / "sshd.pid"
        listens.unlink(missing_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, self.program, "-D", "-e", "-f", str(config)],
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if listens.exists():
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "sshd.log").read_text()[-500:])

    def drop_connections(self) -> None:
        """End every connection of the server at once; the server goes on."""
        assert self.process is not None
        for pid in children_of(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and every connection of it, at once."""
        if self.process is None:
            return
        self.drop_connections()
        self.process.kill()
        self.process.wait()
        self.process = None

    def board(self, work: Path, *, port: int | None = None, **limits: float) -> Board:
        """Return an entry of this server; `limits` replace ones that a busy machine keeps."""
        quick: dict[str, float] = {
            "connect_seconds": 60,
            "command_seconds": 60,
            "stall_seconds": 60,
            "reconnect_seconds": 60,
            "run_seconds": 60,
            "grace_seconds": 60,
            "lease_seconds": 60,
            "poll_seconds": 0.1,
            "reserve_mb": 1,
        }
        return Board(
            name="loop",
            transport="ssh",
            chip=None,
            machine=None,
            address=Address(
                "127.0.0.1",
                port or self.port,
                os.environ.get("USER") or _user(),
                str(self.key),
                self.host_key,
            ),
            jump=None,
            folder=None,
            work=str(work / "work"),
            lease=str(work / "lease"),
            limits=Limits(**{**quick, **limits}),  # type: ignore[arg-type]
        )


def _user() -> str:
    import getpass

    return getpass.getuser()


def children_of(pid: int) -> list[int]:
    """Direct children only: the processes that serve one connection each, not what users run below them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def running_sshd(folder: Path, **kwargs: object) -> Iterator[Sshd]:
    """A started server."""
    server = Sshd(folder, **kwargs)  # type: ignore[arg-type]
    for _ in range(5):
        try:
            server.start()
            break
        except RuntimeError:  # its port was taken between the choice and now
            server.stop()
            server.port = virtual.free_port()
    else:
        server.start()
    try:
        yield server
    finally:
        server.stop()


class Proxy:
    """A TCP proxy that forwards until it is told to cut (at once or later), to be silent, or to refuse."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_after: int | None = None
        self.silent = False
        self.paused_at: int | None = None
        self.refusing = False
        self.connections = 0
        self.forwarded = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=60)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            self.connections += 1
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self.silent:
                    continue
                while self.paused_at is not None and self.forwarded >= self.paused_at:
                    time.sleep(0.02)
                sink.sendall(data)
                with self._lock:
                    self.forwarded += len(data)
                    due = self.cut_after is not None and self.forwarded >= self.cut_after
                    if due:
                        self.cut_after = None
                if due:
                    self.cut()
                    return
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection with a reset, as a pulled cable and a stateful firewall would."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    end.shutdown(socket.SHUT_RDWR)
                with contextlib.suppress(OSError):
                    end.close()

    def pause_in(self, more: int) -> None:
        """Let nothing pass after so many further bytes, until `paused_at` is None again."""
        with self._lock:
            self.paused_at = self.forwarded + more

    def cut_in(self, more: int) -> None:
        """Cut after so many further bytes."""
        with self._lock:
            self.cut_after = self.forwarded + more

    def close(self) -> None:
        """End it."""
        self.paused_at = None
        # Only closed, it is waited at further on, in the end by its number, which is the next one's then.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(60)
        self._listener.close()
        self.cut()


def _processes_with(text: str) -> dict[int, str]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if text in line and int(path.parent.name) != os.getpid():
                found[int(path.parent.name)] = line
    return found


def processes_with(text: str) -> list[str]:
    """Return the command lines of this machine's processes that hold a text, but for our own."""
    return list(_processes_with(text).values())


def end_processes_with(text: str) -> None:
    """End them: what a failed test left must not stay on the machine."""
    for pid in _processes_with(text):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until something is true; fail when it does not come, not when the machine is slow."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.02)


def kill_watcher(work: str, *, guard: bool, command_too: bool = False) -> None:
    """Kill the watcher of the one run below a work folder, and its guard and command where asked for."""
    (path,) = Path(work, "runs").glob("*/pid")
    command, watcher = (int(word) for word in path.read_text().split()[:2])
    others = [child for child in children_of(watcher) if guard and child != command]
    for pid in [watcher, *others, *([command] if command_too else [])]:
        os.kill(pid, signal.SIGKILL)
