"""A vendor's own tool: here, in a container, or on another machine through ssh.

Each runs in a job folder of its own, because such tools drop files into the working directory. Success is
judged by the file that they wrote, too, by who calls. What they print is told line by line while they run.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from facekiln.errors import KilnError
from facekiln.progress import log

_GRACE = 10.0
# Children that still hold the output when the tool itself has ended are waited for no longer than this.
_LINGER = 5.0
_LOG, _STATUS = "tool.log", "tool.status"
# Runs a command in a folder made of the archive on standard input, and gives the folder back as an archive;
# what the command prints comes on standard error as it does so.
_REMOTE = (
    'd=$(mktemp -d) && trap \'rm -rf "$d"\' EXIT && cd "$d" && tar xf - && '
    "{{ {{ {command} 2>&1; echo $? >{status}; }} | tee {log} >&2; tar cf - .; }}"
)
Watch = Callable[[str], None]


class ToolError(KilnError):
    """A tool ended with an exit status that is not 0; `printed` is all that it said."""

    printed: str = ""


class ToolSettings(Protocol):
    """Where a vendor's tool runs; the section `tools` of a chip's settings.

    Attributes:
        config_file: that it was read from, for errors.
        mode: "local", "docker" or "ssh"; what else there is (our own writer, an emulator) does not come here.
        library_path: folders put before LD_LIBRARY_PATH, `local` only.
        docker_options: more arguments of `docker run`, e.g. devices.
        timeout_minutes: after which it is ended with all its processes.
    """

    @property
    def config_file(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def library_path(self) -> tuple[str, ...]: ...
    @property
    def docker_program(self) -> str: ...
    @property
    def docker_image(self) -> str | None: ...
    @property
    def docker_options(self) -> tuple[str, ...]: ...
    @property
    def ssh_program(self) -> tuple[str, ...]: ...
    @property
    def ssh_host(self) -> str | None: ...
    @property
    def timeout_minutes(self) -> float: ...


def _program(settings: ToolSettings, command: Sequence[str], key: str) -> list[str]:
    """Return a command with its program as an absolute path, as jobs run elsewhere."""
    name = command[0]
    # Not resolved: the interpreter of a virtual environment is known by the path of its link.
    found = str(Path(name).absolute()) if "/" in name else shutil.which(name)
    if not found or not os.access(found, os.X_OK) or Path(found).is_dir():
        raise KilnError(
            f"'{name}' is not here, or not executable",
            where=key,
            hint=f"set it in {settings.config_file}, or another mode",
        )
    return [found, *command[1:]]


def _local(settings: ToolSettings, command: Sequence[str], key: str) -> tuple[list[str], dict[str, str]]:
    environment = dict(os.environ)
    paths = [str(Path(path).resolve()) for path in settings.library_path]
    if paths:
        known = environment.get("LD_LIBRARY_PATH", "")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*paths, *([known] if known else [])])
    return _program(settings, command, key), environment


def _docker(settings: ToolSettings, folder: Path, name: str, network: str) -> list[str]:
    if not settings.docker_image:
        raise KilnError("no image is named", where="docker.image", hint=f"name one in {settings.config_file}")
    limits = ["--rm", "--name", name, "--network", network, "--user", f"{os.getuid()}:{os.getgid()}"]
    place = ["--volume", f"{folder.resolve()}:/job", "--workdir", "/job"]
    return [
        *_program(settings, [settings.docker_program], "docker.program"),
        "run",
        *limits,
        *place,
        *settings.docker_options,
        settings.docker_image,
    ]


def _packed(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, arcname=".")
    return stream.getvalue()


def _unpack(data: bytes, folder: Path, host: str) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise KilnError(
            f"sent back no job folder: {error}", file=host, hint=f"does `ssh {host} tar --version` work?"
        ) from error


class _Stream(threading.Thread):
    """Reads a pipe to its end and hands its lines on as they come."""

    def __init__(self, pipe: IO[bytes], watch: Watch | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._watch, self._parts = pipe, watch, list[bytes]()
        self.start()

    def run(self) -> None:
        """See `Thread.run`."""
        for line in self._pipe:
            self._parts.append(line)
            if self._watch is None:
                continue
            # Of a bar that is drawn over and over, what stands at the end.
            told = line.decode("utf-8", "replace").rstrip().rsplit("\r", 1)[-1].rstrip()
            if told:
                self._watch(told)

    def data(self) -> bytes:
        """Return all that came."""
        return b"".join(self._parts)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError):  # a tool that does not read it has its own word to say
        pipe.write(data)
        pipe.close()


def _run(
    command: list[str],
    folder: Path,
    environment: dict[str, str] | None,
    data: bytes | None,
    minutes: float,
    watch: tuple[Watch | None, Watch | None],
) -> tuple[int, bytes, bytes]:
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise KilnError(f"cannot be started: {error.strerror}", file=command[0]) from error
    assert process.stdout is not None and process.stderr is not None
    streams = [_Stream(process.stdout, watch[0]), _Stream(process.stderr, watch[1])]
    if process.stdin is not None:
        threading.Thread(target=_feed, args=(process.stdin, data or b""), daemon=True).start()
    try:
        process.wait(timeout=minutes * 60)
        for stream in streams:
            stream.join(_LINGER)
    except subprocess.TimeoutExpired:
        raise KilnError(
            "took too long; it and all its processes were ended",
            file=command[0],
            where="timeout_minutes",
            limit=f"{minutes:g} minutes",
        ) from None
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL) if process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
    return process.returncode, streams[0].data(), streams[1].data()


def _tell(line: str) -> None:
    log.info("  | %s", line)


def run_tool(
    settings: ToolSettings,
    command: Sequence[str],
    arguments: Sequence[str],
    folder: Path,
    *,
    key: str,
    watch: Watch = _tell,
    network: str = "none",
) -> str:
    """Run a tool in a job folder and return what it printed.

    Args:
        settings: mode and limits.
        command: the tool, as configured.
        arguments: with paths relative to the folder.
        folder: of the job; what the tool writes is there afterwards.
        key: of the command in the config, for errors.
        watch: is given each line that the tool prints, while it runs; by default they are logged.
        network: of a container; a tool that needs none gets none.

    Raises:
        KilnError: the tool, the image or the host is not there, or it took too long.
        ToolError: it failed; the message has the last lines that it printed.
    """
    minutes = settings.timeout_minutes
    if settings.mode == "ssh":
        if not settings.ssh_host:
            raise KilnError("no host is named", where="ssh.host", hint=f"name one in {settings.config_file}")
        line = _REMOTE.format(command=shlex.join([*command, *arguments]), log=_LOG, status=_STATUS)
        ssh = [*_program(settings, settings.ssh_program, "ssh.program"), settings.ssh_host, line]
        status, out, told = _run(ssh, folder, None, _packed(folder), minutes, (None, watch))
        if status:
            raise _failed(settings.ssh_host, status, told.decode("utf-8", "replace"))
        _unpack(out, folder, settings.ssh_host)
        printed = (folder / _LOG).read_text(encoding="utf-8", errors="replace")
        status = int((folder / _STATUS).read_text().strip() or 1)
    elif settings.mode == "docker":
        name = f"facekiln-{uuid.uuid4().hex[:12]}"
        whole = [*_docker(settings, folder, name, network), *command, *arguments]
        try:
            status, out, told = _run(whole, folder, None, None, minutes, (watch, watch))
        except BaseException:
            # Killing the client leaves the container running.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [whole[0], "rm", "--force", name], capture_output=True, check=False, timeout=60
                )
            raise
        printed = (out + told).decode("utf-8", "replace")
    else:
        program, environment = _local(settings, command, key)
        status, out, told = _run([*program, *arguments], folder, environment, None, minutes, (watch, watch))
        printed = (out + told).decode("utf-8", "replace")
    if status:
        raise _failed(command[0], status, printed)
    return printed


def _failed(who: str, status: int, printed: str) -> ToolError:
    last = [line.strip() for line in printed.replace("\r", "\n").splitlines() if line.strip()][-4:]
    error = ToolError(f"failed (exit status {status}): {' | '.join(last)}", file=who)
    error.printed = printed
    return error
