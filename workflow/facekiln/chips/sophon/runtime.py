"""Run a bmodel in the vendor's C model, or its quantised twin, in a child of the tool's own Python.

The tool links one `lib/libcmodel.so` inside its installed package to the library of the chip at hand, so that
two chips at once disturb each other. Here each child gets a folder of its own with such a link as
LD_LIBRARY_PATH: libbmlib.so opens the library by its bare name (its RUNPATH comes later), so that any number
of chips run side by side, whatever the tool does meanwhile, and the package may be read-only.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon import runtime_child
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.pollers import lower_pollers
from facekiln.chips.sophon.runtime_files import find_twin, link_library
from facekiln.errors import KilnError

MODES = ("cmodel", "twin")
Arrays = dict[str, NDArray[np.float32]]
_START_MINUTES = 2.0
# What the libraries print at every start and end.
_NOISE = re.compile(r"cmodel|c_model|bmcpu init|libusercpu|BMLIB Send Quit|do_allreduce")
_TELLING = re.compile(r"FATAL|WRONG|[Ee]rror|[Aa]ssert|broken")


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: the tool's name, its shape, and the dtype that it has inside."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class SophonRuntime:
    """One loaded bmodel or twin; use it as a context, or `close` it. Not for several threads at once.

    Attributes:
        path: the file that runs.
        mode: "cmodel" or "twin".
        chip: that the file is for, as written in it; empty for a twin.
        inputs, outputs: in the file's order.
    """

    def __init__(
        self,
        path: Path | str,
        environment: Environment,
        mode: str = "cmodel",
        *,
        timeout_minutes: float = 10.0,
        threads: int = 2,
    ) -> None:
        """Start the child and load the file.

        Args:
            path: a .bmodel, or for a twin the folder with `final.mlir` and its weights, or that mlir.
            environment: the tool's.
            mode: one of `MODES`.
            timeout_minutes: that one run may take; the child is killed then.
            threads: of the twin's interpreter; the C model has two engines.

        Raises:
            KilnError: the file is missing, truncated or for an unknown chip; the child cannot load it (with
                its last words) or takes too long.
        """
        if mode not in MODES:
            raise ValueError(mode)
        self.mode, self._minutes = mode, timeout_minutes
        self.path = Path(path)
        self.chip = ""
        with contextlib.ExitStack() as stack:
            link = None
            if mode == "twin":
                self.path = find_twin(self.path)
            else:
                link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facekiln-sophon-")))
                self.chip = link_library(self.path, link, environment)
            # It holds the child's last words.
            words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the child
            self._words, self._process = words, self._start(environment, link, words, threads)
            self._end = weakref.finalize(self, _end, self._process, words)
            with self._ends_on_failure():
                told, _ = self._answer(time.monotonic() + 60 * _START_MINUTES, _START_MINUTES, "loading it")
            lower_pollers(self._process.pid)
        # The library is loaded, its link gone: nothing is left behind even if we are killed.
        self.inputs, self.outputs = _tensors(told["inputs"]), _tensors(told["outputs"])

    def __enter__(self) -> SophonRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def batch(self) -> int:
        """Pictures per run."""
        return self.inputs[0].shape[0]

    def close(self) -> None:
        """End the child; more than once is no harm."""
        self._end()

    def run(self, feeds: Mapping[str, NDArray[np.float32]], *, every: bool = False) -> Arrays:
        """Run once.

        Args:
            feeds: float32 arrays by input name, of exactly the inputs' shapes.
            every: every tensor on the way, in execution order, instead of the outputs (twins only).

        Returns:
            Arrays by the tool's names, as real numbers.

        Raises:
            KilnError: other inputs, or a child that died (with its last words) or took too long.
        """
        if not self._end.alive:
            raise KilnError("its child process has ended", file=self.path, hint="open it anew")
        wanted = {item.name: item.shape for item in self.inputs}
        given = {name: value.shape for name, value in feeds.items()}
        if wanted != given:
            raise KilnError("is given other inputs than it has", file=self.path, value=given, limit=wanted)
        arrays = {name: np.asarray(value, np.float32) for name, value in feeds.items()}
        deadline = time.monotonic() + 60 * self._minutes
        with self._ends_on_failure():
            self._send(runtime_child.pack({"every": every}, arrays), deadline)
            _, found = self._answer(deadline, self._minutes, "one run")
        return found

    def _start(
        self, environment: Environment, link: Path | None, words: IO[bytes], threads: int
    ) -> subprocess.Popen[bytes]:
        # The kernel ends the child with the thread that made it, so only the main thread may ask for that.
        main = threading.current_thread() is threading.main_thread()
        script = Path(runtime_child.__file__).resolve()
        variables = {
            **environment.variables(),
            "TPUC_ROOT": str(environment.tool_root),
            "OMP_NUM_THREADS": str(threads),
            # Threads that spin while they wait are a plague on a busy machine.
            "OMP_WAIT_POLICY": "PASSIVE",
            **({"LD_LIBRARY_PATH": str(link)} if link else {}),
        }
        parent, file = str(os.getpid() if main else 0), self.path.resolve()
        try:
            process = subprocess.Popen(
                [environment.python, "-I", script, self.mode, file, environment.tool_root, parent],
                # An mlir's weights are read at need, from the working folder.
                cwd=link or file.parent,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise KilnError(
                f"cannot be started: {error.strerror}",
                file=environment.python,
                hint="facekiln sophon environment --check",
            ) from error
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    @contextlib.contextmanager
    def _ends_on_failure(self) -> Any:
        try:
            yield
        except BaseException:  # an interrupt too: what the child would answer is nobody's any more
            self.close()
            raise

    def _send(self, pieces: list[bytes], deadline: float) -> None:
        stream = self._process.stdin
        assert stream is not None
        for piece in pieces:
            left = memoryview(piece)
            while left:
                _, ready, _ = select.select([], [stream], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._took_too_long(self._minutes, "taking its input")
                try:
                    left = left[os.write(stream.fileno(), left) :]
                except BrokenPipeError:
                    self._died("taking its input")

    def _answer(self, deadline: float, minutes: float, doing: str) -> tuple[dict[str, Any], Arrays]:
        def take(count: int) -> bytes:
            stream = self._process.stdout
            assert stream is not None
            data = bytearray()
            while len(data) < count:
                ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._took_too_long(minutes, doing)
                got = os.read(stream.fileno(), min(1 << 20, count - len(data)))
                if not got:
                    self._died(doing)
                data += got
            return bytes(data)

        header, body = runtime_child.sizes(take(runtime_child.PREFIX.size))
        told, arrays = runtime_child.unpack(take(header), take(body))
        if "error" in told:
            raise KilnError(
                f"{self._what()} failed at {doing}: {told['error']}", file=self.path, hint=self._last()
            )
        return told, arrays

    def _what(self) -> str:
        return f"the C model of {self.chip}" if self.mode == "cmodel" else "the quantised twin"

    def _took_too_long(self, minutes: float, doing: str) -> NoReturn:
        raise KilnError(
            f"{self._what()} took too long for {doing}; it was ended",
            file=self.path,
            limit=f"{minutes:g} minutes",
            hint="raise run.timeout_minutes in config/chips/sophon.yaml if the machine is only slow",
        )

    def _died(self, doing: str) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        status = self._process.poll()
        how = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        raise KilnError(
            f"{self._what()} died at {doing} ({how})",
            file=self.path,
            hint=self._last() or "the system's log tells whether memory ran out",
        )

    def _last(self) -> str | None:
        """Return what the child said last that tells something."""
        self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, self._words.tell() - (1 << 16)))
        text = self._words.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.search(line)]
        telling = [line for line in lines if _TELLING.search(line)] or lines
        return "it said last: " + " | ".join(telling[-3:]) if telling else None


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(item["name"], tuple(item["shape"]), item["dtype"]) for item in items)


def _end(process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, words):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
