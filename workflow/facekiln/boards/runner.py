"""Where a benchmark's command runs: the one call that every board offers, and this machine as a board."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from facekiln.errors import KilnError


@dataclass(frozen=True)
class RunResult:
    """What a command left behind.

    Attributes:
        status: exit status; None where the board's shell tells none.
        stdout, stderr: the two streams, apart.
        seconds: from start to end.
    """

    status: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        """Both streams, standard output first."""
        return self.stdout + self.stderr


class Runner(Protocol):
    """A board that runs commands, one at a time."""

    def run(
        self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> RunResult:
        """Run a command to its end.

        Args:
            command: program and arguments, unquoted.
            timeout: seconds; its whole process group is killed after them.
            environment: variables beside those that the board sets.

        Raises:
            KilnError: it did not start or did not end in time, or the board was lost.
        """


class LocalRunner:
    """This machine as a board."""

    def run(
        self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> RunResult:
        """Run a command in a process group of its own; see `Runner.run`."""
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise KilnError(f"cannot be started: {error.strerror}", where=command[0]) from error
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise KilnError(
                "did not end in time and was killed",
                where=command[0],
                limit=f"{timeout:g} s",
                hint="give a longer --timeout, or fewer --loops",
            ) from error
        finally:
            # also on Ctrl-C, and for children that outlive the command
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return RunResult(process.returncode, stdout, stderr, time.monotonic() - start)
