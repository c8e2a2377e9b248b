"""The real Tengine runtime, if the user has one: `TENGINE_LIB` names its shared library.

It runs in a child process, because a file that it does not like ends in a crash or in damaged memory. The
child loads a file once and answers one run after another.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine import runtime_child
from facekiln.chips.tengine.codes import decode, encode
from facekiln.chips.tengine.format import PRECISION_MODES
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.validate import validate
from facekiln.errors import KilnError

VARIABLE = "TENGINE_LIB"
# One run of the largest network takes seconds, in the emulation of another processor minutes.
TIMEOUT = 600.0
_PIECE = 1 << 20
_LAST_LINES = 3
Arrays = dict[str, NDArray[np.float32]]


def library() -> Path | None:
    """Return the library that `TENGINE_LIB` names, or None where it names none.

    Raises:
        KilnError: it names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).resolve()
    if not path.is_file():
        raise KilnError(
            f"does not exist, though {VARIABLE} names it",
            file=path,
            hint=f"name libtengine-lite.so or unset {VARIABLE}",
        )
    return path


class Session:
    """A file loaded in the real runtime; use it as a context, or `close` it. Not for several threads at once.

    Attributes:
        graph: the file as it was read.
        version: what the library says of itself.
    """

    def __init__(
        self, tmfile: Path | str, *, mode: int | None = None, threads: int = 2, timeout: float = TIMEOUT
    ) -> None:
        """Start the child and load the file.

        Args:
            tmfile: fp32, uint8 or int8, of one input.
            mode: the run API's precision mode; None: the file's, as any other corrupts memory.
            threads: at most.
            timeout: seconds that loading or one run may take; the child is killed then.

        Raises:
            KilnError: no library, a file that breaks Tengine's rules, a mode that is not the file's, or a
                child that failed, crashed or took too long.
        """
        path = library()
        if path is None:
            raise KilnError(
                "no Tengine runtime is known", hint=f"build libtengine-lite.so and name it in {VARIABLE}"
            )
        self.graph, self._path, self._timeout = read_tmfile(tmfile), Path(tmfile), timeout
        if broken := [finding for finding in validate(self.graph) if finding.level == "error"]:
            raise KilnError("would crash the runtime: " + broken[0].sentence(), file=tmfile)
        own = PRECISION_MODES[self.graph.dtype]
        if mode is not None and mode != own:
            raise KilnError(
                f"is of {self.graph.precision}; another precision mode reads and writes past its buffers",
                file=tmfile,
                where="precision mode",
                value=mode,
                limit=own,
            )
        (self._entry,) = self.graph.input_tensors()
        self._shape: tuple[int, ...] | None = None
        # It holds the child's last words.
        words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the child
        self._words = words
        self._process = _start([str(path), str(self._path.resolve()), str(own)], threads, words)
        self._end = weakref.finalize(self, _stop, self._process, words)
        self.version = str(self._answer()["version"])

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; more than once is no harm."""
        self._end()

    def run(self, values: NDArray[np.float32]) -> Arrays:
        """Run once.

        Args:
            values: real numbers of the input's shape, the same in every run; they are quantised with the
                input's own scale.

        Returns:
            The outputs by name, real numbers, in the file's order.

        Raises:
            KilnError: another shape than in the run before, or a child that failed, crashed or took too long.
        """
        if not self._end.alive:
            raise KilnError("its child process has ended", file=self._path, hint="open it anew")
        if self._shape not in (None, values.shape):
            raise KilnError(
                "the input's shape changed", file=self._path, value=values.shape, limit=self._shape
            )
        self._shape = values.shape
        codes = encode(self._entry, values)
        asked = {"shape": list(codes.shape), "bytes": codes.nbytes}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n" + codes.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        told = self._answer()["outputs"]
        tensors = self.graph.output_tensors()
        arrays = [np.frombuffer(self._read(one["bytes"]), one["dtype"]).reshape(one["shape"]) for one in told]
        return {
            tensor.name or "": decode(tensor, array) for tensor, array in zip(tensors, arrays, strict=True)
        }

    def _answer(self) -> Any:
        size = int.from_bytes(self._read(4), "little")
        return json.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        descriptor, parts, left = self._process.stdout.fileno(), [], size
        until = time.monotonic() + self._timeout
        while left:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self.close()
                raise KilnError("Tengine took too long", file=self._path, limit=f"{self._timeout:.0f} s")
            part = os.read(descriptor, min(left, _PIECE))
            if not part:
                self._fail()
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _fail(self) -> NoReturn:
        """Tell how the child ended, with its last words."""
        status = self._process.wait()
        self._words.seek(0)
        text = self._words.read().decode(errors="replace")
        last = " | ".join([line for line in text.splitlines() if line.strip()][-_LAST_LINES:])
        self.close()
        if status < 0:
            raise KilnError(f"crashed Tengine ({signal.Signals(-status).name}): {last}", file=self._path)
        raise KilnError(f"Tengine refused it: {last}", file=self._path, value=status)


def _start(arguments: list[str], threads: int, words: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: the script's folder holds an `inspect` of ours, which is not Python's.
    command = [sys.executable, "-P", str(Path(runtime_child.__file__).resolve()), *arguments, str(threads)]
    # Passive: threads that spin while they wait stand still for minutes on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env=environment,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, words):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue


def run(
    tmfile: Path | str,
    feeds: Sequence[NDArray[np.float32]],
    *,
    mode: int | None = None,
    threads: int = 2,
) -> tuple[list[Arrays], str]:
    """Run a file in the real runtime, once for each input (see `Session`).

    Returns:
        For each run the outputs by name, real numbers, in the file's order; and the library's version.

    Raises:
        KilnError: see `Session`.
    """
    with Session(tmfile, mode=mode, threads=threads) as session:
        return [session.run(feed) for feed in feeds], session.version
