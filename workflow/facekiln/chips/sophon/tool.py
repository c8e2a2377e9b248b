"""Runs a console script of tpu_mlir in a folder of its own; a failure tells the tool's own cause."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from facekiln.artifact import is_running
from facekiln.chips.sophon.causes import cause_of
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.pollers import lower_pollers
from facekiln.chips.sophon.process import TookTooLong, run_group, terminable
from facekiln.errors import KilnError
from facekiln.progress import log as messages

_SUFFIX = ".job"
# Of a folder for temporary files: the tool's comparison opens `pymp-12345678/listener-12345678` there, a
# socket, whose whole path may be 107 bytes long.
_LONGEST = 70
_BEAT = 10.0
# Lines kept of one run's output: the first and the last so many.
_KEPT = 20_000
# What tqdm and its like write: "name:  45%|####5     | 9/20 [00:01<00:02]".
_BAR = re.compile(r"^(?P<what>.*?):?\s*(?P<percent>\d{1,3})%\|.*?\|\s*(?P<done>\d+)/(?P<total>\d+)")

# "[Running]: tpuc-opt in.mlir --codegen=..." and what it is about.
_STAGE = re.compile(r"^\[Running\]: (.{1,60})")

# The package sets the path of its libraries when it is imported, and the loader reads that when a process
# begins. A script's own folder is not searched for modules: some of ours are named like Python's (inspect).
_RUN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_WITH_LIBRARIES = (
    f"import os, sys, tpu_mlir; os.execv(sys.executable, [sys.executable, '-c', {_RUN!r}, *sys.argv[1:]])"
)

Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def job_folder(near: Path | str | None = None) -> Iterator[Path]:
    """Yield a new, empty folder for one job, removed whatever happens; no two jobs share one.

    What killed jobs of this machine left at the same place is removed first.

    Args:
        near: an output; the folder is then made beside it, on the same file system, so that the output can be
            moved there at once. None: the system's temporary folder.

    Raises:
        KilnError: it cannot be made.
    """
    parent = Path(near).resolve().parent if near is not None else Path(tempfile.gettempdir())
    name = Path(near).name if near is not None else "facekiln"
    host = socket.gethostname()
    with terminable():
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent, host)
            folder = Path(tempfile.mkdtemp(_SUFFIX, f".{name}.{host}.{os.getpid()}.", parent))
        except OSError as error:
            raise KilnError(f"no job folder can be made: {error.strerror}", file=parent) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path, host: str) -> None:
    pattern = re.compile(rf"\..+\.{re.escape(host)}\.(\d+)\.[^.]+{re.escape(_SUFFIX)}")
    for path in parent.glob(f".*{_SUFFIX}"):
        found = pattern.fullmatch(path.name)
        if found and not is_running(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


class Output:
    """The output as it comes: kept, written to the log, and the tool's bars handed on."""

    def __init__(self, log: Path | None, progress: Progress | None) -> None:
        """Collect; `log` and `progress` are as in `run_tool`."""
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._stream = log.open("a", encoding="utf-8") if log else None
        self._progress = progress
        self._bar: str | None = None
        self.stage = ""

    def line(self, line: str, fleeting: bool) -> None:
        """Take one line, and whether a carriage return ended it."""
        found = _BAR.match(line)
        if found:
            what = found["what"].strip()
            self.stage = f"{what} {found['done']} of {found['total']}".strip()
            if self._progress:
                self._progress(what, int(found["done"]), int(found["total"]))
            self._bar = line
            if fleeting:
                return
        if self._bar is not None:
            self._keep(self._bar)
            self._bar = None
        if not found:
            self._keep(line)
            running = _STAGE.match(line)
            self.stage = running[1] if running else self.stage

    def _keep(self, line: str) -> None:
        (self._first if len(self._first) < _KEPT else self._last).append(line)
        if self._stream:
            self._stream.write(line + "\n")
            self._stream.flush()
        else:
            _write_to_log_files(line)

    def end(self) -> str:
        """Close the log and return what was kept."""
        if self._bar is not None:
            self._keep(self._bar)
        if self._stream:
            self._stream.close()
        return "\n".join([*self._first, *self._last]) + "\n"


def _write_to_log_files(line: str) -> None:
    record = messages.makeRecord(messages.name, logging.INFO, __file__, 0, "%s", (line,), None)
    for handler in messages.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def run_tool(
    environment: Environment,
    name: str,
    arguments: Sequence[str | Path],
    *,
    folder: Path,
    log: Path | None,
    timeout_minutes: float,
    progress: Progress | None = None,
) -> str:
    """Run a console script of the environment to its end.

    Args:
        environment: from `environment_of`.
        name: "model_transform", "model_deploy", "run_calibration", "model_tool" ...
        arguments: with paths relative to the folder, or absolute.
        folder: its working folder, which it litters: see `job_folder`.
        log: its output is added to this file, bars shortened to their ends; None: to facekiln's own log file.
        timeout_minutes: after which it and its children are killed.
        progress: gets (what, done, total) when a bar of the tool's moves.

    Returns:
        Its output, without escape codes, each bar shortened to its end.

    Raises:
        KilnError: it failed, was killed or took too long; the message has its own cause and a remedy.
    """
    script = environment.script(name)
    if not script.is_file():
        raise KilnError(
            f"tpu_mlir {environment.version} has no '{name}'",
            file=script.parent,
            hint="facekiln sophon environment --check",
        )
    return run_program(
        environment,
        [environment.python, script, *arguments],
        folder=folder,
        log=log,
        timeout_minutes=timeout_minutes,
        progress=progress,
        title=name,
    )


def script_command(environment: Environment, script: Path, *arguments: str | Path) -> list[str | Path]:
    """Return the command of a script that runs in the environment's Python and imports the tool's modules."""
    return [environment.python, "-c", _WITH_LIBRARIES, script, *arguments]


def run_program(
    environment: Environment,
    command: Sequence[str | Path],
    *,
    folder: Path,
    log: Path | None,
    timeout_minutes: float,
    title: str,
    progress: Progress | None = None,
) -> str:
    """Run any command with the environment's variables as `run_tool` does; `title` names it in errors."""
    text = Output(log, progress)
    beat = _Heartbeat(title, text)
    try:
        with _temporary_folder() as temporary:
            status = run_group(
                command,
                folder=folder,
                variables=environment.variables(temporary),
                limit=timeout_minutes * 60,
                on_line=text.line,
                on_tick=beat.tick,
            )
    except TookTooLong as error:
        raise KilnError(
            f"{title} took too long; it and all its processes were ended",
            limit=f"{timeout_minutes:g} minutes",
            hint=f"it was at: {text.stage or 'its start'}\n  if it only needs longer, raise timeout_minutes "
            "in config/chips/sophon.yaml",
        ) from error
    finally:
        printed = text.end()
    if status:
        cause = cause_of(printed, status)
        raise KilnError(f"{title} failed: {cause.what}", value=f"status {status}", hint=cause.hint)
    return printed


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    with job_folder() as folder:
        if len(str(folder)) <= _LONGEST:
            yield folder
            return
    with job_folder(Path("/tmp") / "facekiln") as folder:
        yield folder


class _Heartbeat:
    """Twice a second the C model's pollers make way; every ten, a line: how long it runs, and where it is."""

    def __init__(self, title: str, text: Output) -> None:
        self._title, self._text = title, text
        self._start = self._told = time.monotonic()

    def tick(self, process: int) -> None:
        lower_pollers(process)
        now = time.monotonic()
        if now - self._told >= _BEAT:
            self._told = now
            messages.info("%s: %d s, %s", self._title, now - self._start, self._text.stage or "starting")
