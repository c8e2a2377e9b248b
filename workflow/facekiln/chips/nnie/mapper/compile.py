"""Map a network: run nnie_mapper or its emulator in a folder of its own, and judge what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import facekiln
from facekiln.chips.nnie.mapper.cfg import MapperConfig
from facekiln.chips.nnie.mapper.job import CFG, INSTRUCTION
from facekiln.chips.nnie.mapper.log import cause_lines, ends_well, has_error
from facekiln.chips.nnie.settings import CONFIG_VARIABLE, MapperSettings, NnieSettings
from facekiln.chips.nnie.wk.container import Container
from facekiln.chips.nnie.wk.inspect import precision_of
from facekiln.chips.nnie.wk.read import parse_wk
from facekiln.errors import KilnError
from facekiln.progress import log

_GRACE_SECONDS = 10.0
_PRECISIONS = {0: "8 bit", 1: "16 bit"}


@dataclass(frozen=True)
class Mapped:
    """A finished mapping.

    Attributes:
        data: the .wk file's bytes.
        container: what they say; `container.emulated` is the truth about who mapped, whatever the mode.
        log: everything that the tool printed.
        seconds: how long it took.
    """

    data: bytes
    container: Container
    log: str
    seconds: float


def _resolved(command: tuple[str, ...]) -> list[str]:
    """Return the command with its program as an absolute path, as the job runs elsewhere."""
    program = command[0]
    found = str(Path(program).resolve()) if "/" in program else shutil.which(program)
    if not found or not os.access(found, os.X_OK) or Path(found).is_dir():
        raise KilnError(
            f"the mapper '{program}' is not here, or not executable",
            where="mapper.command",
            hint="set mapper.command in config/chips/nnie.yaml, or mapper.mode to emulator",
        )
    return [found, *command[1:]]


def _docker_command(settings: MapperSettings, folder: Path, name: str) -> list[str]:
    if not settings.docker_image:
        raise KilnError(
            "no image is named", where="mapper.docker.image", hint="name one in config/chips/nnie.yaml"
        )
    program = _resolved((settings.docker_program,))
    # The mapper needs no network, and must not leave root's files behind.
    limits = ["--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}"]
    place = ["--volume", f"{folder.resolve()}:/job", "--workdir", "/job"]
    return [*program, "run", "--name", name, *limits, *place, settings.docker_image, *settings.command, CFG]


def command_for(settings: MapperSettings, folder: Path, name: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that maps a job folder, and its environment.

    Args:
        settings: mode and command.
        folder: the job folder.
        name: of the container, in docker mode.

    Raises:
        KilnError: the mapper, the image or the mode is not there.
    """
    environment = dict(os.environ)
    if settings.mode == "emulator":
        # The job's folder is no place to find modules in, and relative paths would mean that folder.
        environment["PYTHONSAFEPATH"] = "1"
        environment["PYTHONPATH"] = str(Path(facekiln.__file__).resolve().parents[1])
        return [sys.executable, "-m", "facekiln.chips.nnie.mapper", CFG], environment
    if settings.mode == "local":
        paths = [str(Path(path).resolve()) for path in settings.library_path]
        known = environment.get("LD_LIBRARY_PATH", "")
        if paths:
            environment["LD_LIBRARY_PATH"] = os.pathsep.join([*paths, *([known] if known else [])])
        return [*_resolved(settings.command), CFG], environment
    if settings.mode == "docker":
        return _docker_command(settings, folder, name), environment
    raise KilnError(
        f"mapping on a build host by {settings.mode} is not possible yet",
        where="mapper.mode",
        value=settings.mode,
        limit="emulator, local, docker",
        hint="write the job with `facekiln nnie cfg --job FOLDER ...`, copy the folder to the host, run "
        f"`nnie_mapper_12 {CFG}` in it, and copy {INSTRUCTION}.wk back",
    )


def _follow(stream: IO[bytes], kept: list[bytes], tell: Callable[[str], None]) -> None:
    """Keep what a tool prints and tell each line as it comes; progress bars end lines with a return."""
    partial = b""
    while chunk := os.read(stream.fileno(), 65536):
        kept.append(chunk)
        *lines, partial = re.split(rb"[\r\n]+", partial + chunk)
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                tell(text)
    if text := partial.decode("utf-8", "replace").strip():
        tell(text)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS if sign == signal.SIGTERM else None)
            # The leader may be gone while its children are not.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            return


@contextlib.contextmanager
def _termination_raises() -> Iterator[None]:
    """Let SIGTERM (a cancelled cluster job) unwind the stack, as the mapper is in a session of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], stop: Callable[[], None]) -> Iterator[None]:
    """End the process group on a timeout, an interruption or any other failure."""
    try:
        yield
    except BaseException:
        stop()
        _kill_group(process)
        raise


def run_mapper(
    folder: Path, settings: MapperSettings, config_folder: str | None = None
) -> tuple[int, str, float]:
    """Run the mapper in a job folder.

    Args:
        folder: the job folder.
        settings: mode, command and limits.
        config_folder: where the emulator finds its own settings; the vendor's tool knows nothing of it.

    Returns:
        Exit status, everything printed, seconds.

    Raises:
        KilnError: the mapper is not there, or took longer than `timeout_minutes` (its process group is
            killed).
    """
    name = f"facekiln-{uuid.uuid4().hex[:12]}"
    command, environment = command_for(settings, folder, name)
    if config_folder:
        environment[CONFIG_VARIABLE] = config_folder
    started = time.monotonic()
    kept: list[bytes] = []

    def stop() -> None:
        if settings.mode == "docker":
            # Killing the client leaves the container running.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                remove = [command[0], "rm", "--force", name]
                subprocess.run(remove, capture_output=True, check=False, timeout=60)

    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise KilnError(f"the mapper cannot be started: {error.strerror}", file=command[0]) from error
    assert process.stdout is not None
    with process.stdout, _termination_raises(), _ended(process, stop):
        reader = threading.Thread(
            target=_follow,
            args=(process.stdout, kept, lambda line: log.info("mapper: %s", line)),
            daemon=True,
        )
        reader.start()
        try:
            status = process.wait(settings.timeout_minutes * 60)
        except subprocess.TimeoutExpired:
            raise KilnError(
                "the mapper took too long; it and all its processes were ended",
                where="mapper.timeout_minutes",
                limit=f"{settings.timeout_minutes:g} minutes",
                value=_last_line(kept),
                hint="a chip model can take hours: raise the limit in config/chips/nnie.yaml",
            ) from None
        reader.join(_GRACE_SECONDS)
        if reader.is_alive():
            # A child outlived the mapper and holds the pipe open, so its group still exists.
            _kill_group(process)
            reader.join(_GRACE_SECONDS)
    return status, b"".join(kept).decode("utf-8", "replace"), time.monotonic() - started


def _last_line(kept: list[bytes]) -> str:
    return (cause_lines(b"".join(kept).decode("utf-8", "replace"), 1) or ["nothing was printed"])[0]


def judge(
    folder: Path, config: MapperConfig, settings: NnieSettings, status: int, printed: str
) -> tuple[bytes, Container]:
    """Return the .wk of a job if the mapping succeeded.

    The exit status on failure is not documented, so 0 proves nothing: the file must exist with a valid CRC
    and the asked precision, the log must hold no `ERROR:` and must reach its last stage.

    Raises:
        KilnError: it did not; the message has the tool's own cause lines.
    """

    def failed(what: str, hint: str = "the mapper's log has the whole story") -> KilnError:
        causes = "\n  ".join(cause_lines(printed))
        return KilnError(f"the mapping failed: {what}\n  {causes}", file=settings.mapper.mode, hint=hint)

    if status and settings.mapper.exit_status == "trust":
        raise failed(f"exit status {status}")
    if has_error(printed):
        raise failed(f"the log has an error (exit status {status})")
    path = folder / f"{config.instruction_name}.wk"
    if not path.is_file():
        raise failed(f"no {path.name} was written (exit status {status})")
    if not ends_well(printed):
        raise failed("the log does not reach its last stage")
    data = path.read_bytes()
    try:
        container = parse_wk(data, path.name)
    except KilnError as error:
        raise failed(f"{path.name} is damaged: {error}") from error
    if problems := container.problems():
        raise failed(f"{path.name} is damaged: {'; '.join(problems)}")
    wanted = _PRECISIONS.get(config.compile_mode)
    if wanted and precision_of(container) != wanted:
        raise failed(f"{path.name} is of {precision_of(container)}, {wanted} was asked for")
    version = ".".join(map(str, container.version[:2]))
    if not container.emulated and version != settings.nnie:
        raise failed(
            f"{path.name} is of a mapper for NNIE {version}, but {settings.chip} has NNIE {settings.nnie}",
            "use the other mapper, or set `chip` and `nnie_versions` in config/chips/nnie.yaml",
        )
    return data, container


def map_job(
    folder: Path, config: MapperConfig, settings: NnieSettings, keep_log: Path | None = None
) -> Mapped:
    """Run the mapper in a job folder and return the .wk that it wrote.

    Args:
        folder: from `job.write_job`.
        config: the .cfg in it.
        settings: mode, limits, chip.
        keep_log: where the raw log is kept, of successes and failures alike.

    Raises:
        KilnError: see `run_mapper` and `judge`.
    """
    status, printed, seconds = run_mapper(folder, settings.mapper, settings.folder)
    if keep_log:
        keep_log.parent.mkdir(parents=True, exist_ok=True)
        keep_log.write_text(printed, encoding="utf-8", newline="")
    data, container = judge(folder, config, settings, status, printed)
    return Mapped(data, container, printed, seconds)
