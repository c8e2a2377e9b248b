"""The SSH server of a virtual board: OpenSSH's own, unprivileged, on loopback, with keys of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import facekiln
from facekiln.artifact import write_text
from facekiln.boards.latency_log import RUNTIMES
from facekiln.boards.virtual.tools import INFER, TOOLS
from facekiln.errors import KilnError

_WAIT = 30.0  # seconds; a busy machine takes long for what mostly is done at once
_PORTS = range(20000, 32768)


def find_sshd() -> str:
    """Return the path of OpenSSH's server.

    Raises:
        KilnError: there is none, or no ssh-keygen.
    """
    found = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if not found or not shutil.which("ssh-keygen"):
        raise KilnError(
            "a virtual board needs OpenSSH's server, and there is none here",
            where="sshd",
            hint="Debian: apt-get install openssh-server (it need not be started); or use `--board local`",
        )
    return found


def free_port() -> int:
    """Return a port of loopback that nobody uses, below those that the kernel gives to outgoing connections.

    One of these might be taken whenever the server is down for a moment.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_key(path: Path) -> None:
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "virtual board", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


# What a chip's boards have, by how its name starts; others have Tengine's.
_RUNTIMES = (
    (("bm", "cv"), "bmrt_test"),
    (("mlu",), "mm_run"),
    (("hi",), "nnie_forward"),
    (("",), "tm_benchmark"),
)
# This machine through the whole path: no stand-in, and so not virtual.
HOST = "host"


def runtimes_of(chip: str, home: Path) -> dict[str, dict[str, str]]:
    """Return the runtimes of a board's entry: the stand-in of a chip's tool, or this machine's real ones."""
    if chip == HOST:
        return {name: {"tool": sys.executable} for name in RUNTIMES}
    name = next(name for starts, name in _RUNTIMES if chip.startswith(starts))
    return {name: {"tool": str(home / "bin" / name), "infer": str(home / "bin" / INFER)}}


@dataclass(frozen=True)
class VirtualServer:
    """A server in a folder, which outlives the command that started it.

    Attributes:
        home: keys, configuration, log, the stand-ins (`bin/`), the board's work and lease.
        port: of loopback.
    """

    home: Path
    port: int

    def prepare(self) -> None:
        """Make folder, keys, configuration and stand-ins; what is there stays.

        Raises:
            KilnError: no sshd here, or the folder cannot be written.
        """
        find_sshd()
        home = self.home
        (home / "bin").mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        for name in ("host_ed25519", "id_ed25519"):
            _make_key(home / name)
        shutil.copyfile(home / "id_ed25519.pub", home / "authorized_keys")
        write_text(
            home / "sshd_config",
            "\n".join(
                (
                    "ListenAddress 127.0.0.1",
                    f"Port {self.port}",
                    f'HostKey "{home}/host_ed25519"',
                    f'PidFile "{home}/sshd.pid"',
                    f'AuthorizedKeysFile "{home}/authorized_keys"',
                    "AuthenticationMethods publickey",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "UsePAM no",
                    "PermitRootLogin prohibit-password",
                    "StrictModes no",
                    "AllowTcpForwarding no",
                    "MaxSessions 64",
                    "Subsystem sftp internal-sftp",
                    # A bash that sshd starts reads ~/.bashrc; at a deeper level it does not.
                    "SetEnv SHLVL=2",
                    "",
                )
            ),
        )
        package = Path(facekiln.__file__).parents[1]
        for name in TOOLS:
            script = home / "bin" / name
            line = shlex.join([sys.executable, "-m", "facekiln.boards.virtual.tools", name])
            path = shlex.quote(str(package))
            # The working folder has the config that names the stand-ins' own tools.
            folder = shlex.quote(str(Path.cwd()))
            write_text(
                script,
                f"#!/bin/sh\n# A stand-in for {name}: executes the artifact on this machine.\n"
                'here=$(pwd)\nexport FACEKILN_HERE="$here"\n'
                f'for word do\n  shift\n  [ -e "$here/$word" ] && word=$here/$word\n'
                f'  set -- "$@" "$word"\ndone\ncd {folder} || exit 97\n'
                f'PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} exec {line} "$@"\n',
            )
            script.chmod(0o755)

    def pid(self) -> int | None:
        """Return the server's process, None where it does not run."""
        with contextlib.suppress(OSError, ValueError):
            number = int((self.home / "sshd.pid").read_text())
            line = Path(f"/proc/{number}/cmdline").read_bytes()
            if str(self.home).encode() in line:
                return number
        return None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it listens.

        Raises:
            KilnError: it does not start; the message has its last words.
        """
        if self.pid() is not None:
            return
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.home / "sshd.log").open("ab") as log:
            server = subprocess.Popen(
                [find_sshd(), "-D", "-e", "-f", str(self.home / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                if self.pid() is not None:
                    return
            time.sleep(0.02)
        hint = f"where another program has port {self.port}: another `port:` of it in config/boards.yaml"
        said = (self.home / "sshd.log").read_text(errors="replace").strip().splitlines()[-2:]
        raise KilnError("does not start", file=self.home, value=" | ".join(said), hint=hint)

    def stop(self) -> bool:
        """End it and every connection; return whether it ran."""
        number = self.pid()
        if number is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGTERM)
        deadline = time.monotonic() + _WAIT
        while self.pid() is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        return True

    def entry(self, chip: str) -> dict[str, Any]:
        """Return the board's entry of config/boards.yaml; its host key is pinned at once."""
        home = self.home
        key = " ".join((home / "host_ed25519.pub").read_text().split()[:2])
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key": str(home / "id_ed25519"),
            "host_key": key,
            "chip": chip,
            "virtual": chip != HOST,
            "work": str(home / "work"),
            "lease": str(home / "lease"),
            "runtimes": runtimes_of(chip, home),
            "limits": {"poll_seconds": 0.2, "reserve_mb": 16},
        }
