"""One foreign program with all its children: its lines as they come, a limit, and no survivor.

The program gets a session of its own, so that everything that it started can be ended at once: when it has
ended, at the limit, on Ctrl-C, on SIGTERM or SIGHUP, and, by a guard that outlives us, when we are killed.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from facekiln.errors import KilnError

# Children that still hold the output when the program itself has ended are waited for no longer than this.
_LINGER = 2.0
_TICK = 0.5  # seconds
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Ends the session named by its argument unless a line comes before its input is closed, as a kill of us does.
_GUARD = 'read -r line || kill -s KILL -- "-$0"'


class TookTooLong(KilnError):
    """A program that did not end within its limit; it and its children were ended."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what is half made is removed.

    Handlers of the caller's are kept; outside the main thread nothing can be, and is, done.
    """

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    kept = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                kept[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _guarded(group: int) -> Iterator[None]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guard.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            guard.stdin.write(b"ended\n")
            guard.stdin.close()
        guard.wait()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that leads a session, with everything in it, and collect its status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Lines:
    """Bytes in, lines out; a carriage return ends a line that is `fleeting`, as bars write them."""

    def __init__(self, on_line: Callable[[str, bool], None]) -> None:
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, final: bool = False) -> None:
        text = self._rest + self._decoder.decode(data, final)
        *whole, self._rest = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text) if text else [""]
        # A \r at the very end may be half of \r\n.
        for line in whole:
            self._tell(line)
        if final and self._rest:
            self._tell(self._rest)

    def _tell(self, line: str) -> None:
        clean = _ANSI.sub("", line).rstrip()
        if clean:
            self._on_line(clean, line.endswith("\r"))


def run_group(
    command: Sequence[str | Path],
    *,
    folder: Path,
    variables: Mapping[str, str],
    limit: float,
    on_line: Callable[[str, bool], None],
    on_tick: Callable[[int], None] = lambda _process: None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a program in a session of its own to its end; nothing of it is left running, however this ends.

    Args:
        command: the program and its arguments.
        folder: its working folder.
        variables: its whole environment.
        limit: seconds that it may take.
        on_line: gets each line of its output and whether a carriage return ended it.
        on_tick: called about twice a second while it runs, with its process id.
        pass_fds: descriptors that it and its children keep open (locks).

    Returns:
        The exit status; negative, a signal's number.

    Raises:
        TookTooLong: the limit is over.
        KilnError: the program cannot be started.
    """
    with terminable():
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
                bufsize=0,
            )
        except OSError as error:
            raise KilnError(f"cannot be started: {error.strerror}", file=command[0]) from error
        try:
            with _guarded(process.pid):
                _follow(process, time.monotonic() + limit, _Lines(on_line), on_tick)
                return process.wait()
        except TimeoutError:
            raise TookTooLong(
                "took too long; it and all its processes were ended",
                file=command[0],
                limit=f"{limit / 60:g} minutes",
            ) from None
        finally:
            end_group(process)
            assert process.stdout is not None
            process.stdout.close()


def _follow(
    process: subprocess.Popen[bytes], deadline: float, lines: _Lines, on_tick: Callable[[int], None]
) -> None:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    ended: float | None = None
    ticked = 0.0
    while True:
        ready, _, _ = select.select([descriptor], [], [], _TICK)
        now = time.monotonic()
        if ready:
            data = os.read(descriptor, 1 << 16)
            if not data:
                break
            lines.feed(data)
        if ended is None and process.poll() is not None:
            ended = now
        if ended is not None and (now - ended > _LINGER or not ready):
            break
        if now > deadline:
            lines.feed(b"", final=True)
            raise TimeoutError
        if now - ticked >= _TICK:
            ticked = now
            on_tick(process.pid)
    lines.feed(b"", final=True)
    while process.poll() is None:  # it closed its output and goes on
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)
