"""Typed boards: config/boards.yaml, checked against its schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml
from facekiln.errors import KilnError

FILE = Path("boards.yaml")
_SCHEMA = "boards"
_SECRET = re.compile(r"passw|passphrase|secret|token", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where an SSH server is and how it is entered.

    Attributes:
        host: name or address.
        port: TCP port.
        user: who logs in.
        key: private key file (without a passphrase), or None for the agent.
        host_key: the pinned key, "ssh-ed25519 AAAA...", or None before `facekiln board add`.
    """

    host: str
    port: int
    user: str
    key: str | None
    host_key: str | None

    def __str__(self) -> str:
        """Return user@host:port."""
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Limits:
    """Limits in seconds, megabytes and days; see the schema for what each does."""

    connect_seconds: float = 10.0
    command_seconds: float = 60.0
    stall_seconds: float = 30.0
    reconnect_seconds: float = 60.0
    run_seconds: float = 600.0
    grace_seconds: float = 30.0
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    output_mb: int = 64
    memory_mb: int = 0
    reserve_mb: int = 64
    keep_days: int = 30
    clock_skew_seconds: float = 300.0
    parallel_uploads: int = 4


@dataclass(frozen=True)
class Runtime:
    """A vendor's runtime on the board.

    Attributes:
        tool: the program that runs artifacts; it has to be there.
        version_command: prints the version, or empty where it cannot be asked.
        version_pattern: a regular expression whose group 1 is the version.
        version: what suits, e.g. ">=0.4.9,<1"; None for any.
        infer: a program that runs pictures through an artifact, called as `infer_child.py` is; not needed by
            onnxruntime and ncnn.
    """

    tool: str
    version_command: tuple[str, ...] = ()
    version_pattern: str = r"(\d+(?:\.\d+)+)"
    version: str | None = None
    infer: str | None = None


@dataclass(frozen=True)
class Board:
    """One board of config/boards.yaml.

    Attributes:
        name: its name, `\\w+`.
        transport: "ssh", "directory" (a shared folder that the board serves) or "plan" (by hand).
        chip: what is on it, e.g. "bm1684x"; artifacts of another chip are refused.
        machine: what `uname -m` prints there; None for any.
        address: of its SSH server, None without one.
        jump: through which it is reached.
        folder: this machine's path of the shared folder (directory, plan).
        work: the folder on the board that is ours.
        lease: the folder on the board that all users of it share.
        runtimes: by name.
        environment: variables of every command.
        limits: see `Limits`.
        virtual: a stand-in of this machine (`facekiln virtual up`), told wherever a figure of it is.
        lease_access: whose accounts on the board share the lease: "user", "group" or "all".
    """

    name: str
    transport: str
    chip: str | None
    machine: str | None
    address: Address | None
    jump: Address | None
    folder: str | None
    work: str
    lease: str
    runtimes: dict[str, Runtime] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    virtual: bool = False
    lease_access: str = "user"

    def runtime(self, name: str) -> Runtime:
        """Return a runtime by name.

        Raises:
            KilnError: the board declares no such runtime.
        """
        return self.runtimes[known(name, self.runtimes, f"runtime of board '{self.name}'")]


def _address(value: Mapping[str, Any]) -> Address:
    return Address(
        host=value["host"],
        port=value["port"],
        user=value["user"],
        key=None if value.get("agent") else str(Path(value.get("key") or "~/.ssh/id_ed25519").expanduser()),
        host_key=value.get("host_key"),
    )


def _refuse_secrets(value: object, file: Path, where: str) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_secrets(item, file, where)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if _SECRET.search(str(key)):
            raise KilnError(
                "passwords and tokens do not belong into this file",
                file=file,
                where=f"{where}.{key}" if where else str(key),
                hint="log in with a key: `ssh-copy-id -i KEY.pub USER@HOST`, `key: KEY` or `agent: true`",
            )
        _refuse_secrets(item, file, f"{where}.{key}" if where else str(key))


def _board(name: str, value: Mapping[str, Any], file: Path) -> Board:
    transport = value["transport"]
    needed = ("host", "user") if transport == "ssh" else ("folder",)
    for key in needed:
        if not value.get(key):
            raise KilnError(
                f"`{key}` is needed by transport '{transport}'",
                file=file,
                where=f"boards.{name}",
                hint=f"add `{key}:` to it",
            )
    if value.get("key") and value.get("agent"):
        raise KilnError(
            "`key` and `agent` exclude each other", file=file, where=f"boards.{name}", hint="keep one of them"
        )
    limits = Limits(**value["limits"])
    if limits.grace_seconds < 3 * limits.poll_seconds:
        raise KilnError(
            "is shorter than three polls, so a living client could be taken for a dead one",
            file=file,
            where=f"boards.{name}.limits.grace_seconds",
            value=limits.grace_seconds,
            limit=f"at least {3 * limits.poll_seconds}",
        )
    return Board(
        name=name,
        transport=transport,
        chip=value.get("chip"),
        machine=value.get("machine"),
        address=_address(value) if transport == "ssh" else None,
        jump=_address(value["jump"]) if transport == "ssh" and value.get("jump") else None,
        folder=value.get("folder"),
        work=value["work"].rstrip("/"),
        lease=value["lease"].rstrip("/"),
        runtimes={
            key: Runtime(**{**runtime, "version_command": tuple(runtime.get("version_command", ()))})
            for key, runtime in value["runtimes"].items()
        },
        environment=dict(value["environment"]),
        limits=limits,
        virtual=value["virtual"],
        lease_access=value["lease_access"],
    )


def boards_from(raw: Any, file: Path) -> dict[str, Board]:
    """Return typed boards of a file's content.

    Raises:
        KilnError: a key or value is wrong, or a secret stands in it.
    """
    _refuse_secrets(raw, file, "")
    value = check(raw or {}, _SCHEMA, file)
    declared = value.get("boards") or {}
    # The defaults of one board are a schema of its own: `check` fills in those of named keys only.
    return {name: _board(name, check(board, "board", file), file) for name, board in declared.items()}


def load_boards(folder: Path | str = DEFAULT_FOLDER) -> dict[str, Board]:
    """Load config/boards.yaml; no file is no boards.

    Raises:
        KilnError: there is no such folder; or not YAML, not by the schema, or a password stands in it.
    """
    path = Path(folder) / FILE
    if not Path(folder).is_dir():
        raise KilnError(
            "is no config folder",
            file=folder,
            hint="run in facekiln's own folder, or name its config folder: --config FOLDER",
        )
    return boards_from(read_yaml(path), path) if path.is_file() else {}


def load_board(name: str, folder: Path | str = DEFAULT_FOLDER) -> Board:
    """Load one board.

    Raises:
        KilnError: no such board; the message suggests the nearest.
    """
    boards = load_boards(folder)
    return boards[known(name, boards, "board")]
