"""A board of config/boards.yaml as a place that runs pictures: checked, leased, each file sent once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.boards import infer_log, latency_log
from facekiln.boards.bench_board import files_of
from facekiln.boards.chips import chip_of, refuse_other_chip
from facekiln.boards.lease import Lease
from facekiln.boards.preflight import Needs, preflight
from facekiln.boards.remote import RemoteRunner
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Board
from facekiln.boards.tools import TOOLS, Tool
from facekiln.boards.upload import fetch, store
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.provenance import sidecar_of

_SHOWN = 400  # characters of standard error in a message


def tool_on(board: Board, artifact: Path | str) -> Tool:
    """Return the runtime by which a board runs pictures through an artifact.

    For onnxruntime and ncnn that is our own program in the Python that the board's entry names; any other
    runtime needs `infer:` in its entry, a program that is called as ours is.

    Raises:
        KilnError: a board that runs no commands for us, is of another chip, or declares no such runtime.
    """
    if board.transport != "ssh":
        raise KilnError(
            f"a board of transport '{board.transport}' runs no commands for us",
            file=board.name,
            hint="run its own pipeline there by hand, and judge its text files: `facekiln eval wider FOLDER`",
        )
    suffix = Path(artifact).suffix
    kinds = [tool for tool in TOOLS.values() if tool.suffix == suffix and tool.name != "benchncnn"]
    fitting = [tool for tool in kinds if tool.name in board.runtimes]
    ready = [tool for tool in fitting if tool.name in latency_log.RUNTIMES or board.runtime(tool.name).infer]
    chip = chip_of(artifact)
    if chip not in (None, board.chip):
        raise KilnError(
            f"is for {chip}, and board '{board.name}' has {board.chip}",
            file=artifact,
            hint="take a board of its chip, see `facekiln board list`",
        )
    if not ready:
        names = ", ".join(tool.name for tool in kinds)
        lacking = f"runtimes.{fitting[0].name}.infer" if fitting else "runtimes"
        raise KilnError(
            f"board '{board.name}' declares nothing that runs pictures through such files",
            file=artifact,
            where=f"boards.yaml: {board.name}.{lacking}",
            value=", ".join(board.runtimes) or "no runtime",
            limit=names or f"no runtime takes {suffix}",
            hint="docs/bench.md, Accuracy on a board, says what to declare",
        )
    return ready[0]


@dataclass
class InferBoard:
    """A leased board that runs pictures through one artifact.

    Attributes:
        script: of the connected board.
        runner: under the lease.
        command: what runs in a run's folder.
        files: name in that folder -> local file; the pictures come to them.
        model: whose outputs are wanted.
        artifact: that is run.
        timeout: seconds of one run; None for the board's own limit.
        log: the raw log so far.
        reconnections: how often the connection was lost meanwhile.
    """

    script: BoardScript
    runner: RemoteRunner
    command: list[str]
    files: dict[str, Path]
    model: Model
    artifact: Path
    timeout: float | None
    scratch: Path
    log: list[str] = field(default_factory=list)
    reconnections: int = 0

    def send(self, pictures: NDArray[Any], name: str) -> Path:
        """Bring pictures to the board ahead of their run, unless these bytes are there.

        Returns:
            The local file, for `infer`.

        Raises:
            BoardFault: see `facekiln.boards.upload.store`.
        """
        path = self.scratch / f"{name}.npy"
        np.save(path, pictures)
        store(self.script, [path])
        return path

    def infer(
        self, pictures: Path, on_done: Callable[[int], object] = lambda _: None
    ) -> tuple[dict[str, NDArray[np.float32]], infer_log.Told]:
        """Run pictures and bring their outputs home.

        Args:
            pictures: what `send` returned.
            on_done: gets the number of pictures done, as they come.

        Returns:
            Outputs by the model's names, [count, ...]; and what the run told.

        Raises:
            BoardFault: the board was lost or ended the run, see `RemoteRunner.run`.
            KilnError: the program failed; its last words are in the message.
        """
        count = len(np.load(pictures, mmap_mode="r"))

        def listen(line: str) -> None:
            done = infer_log.progress_of(line)
            if done is not None:
                on_done(done)

        raw = self.scratch / "run.log"
        title = f"{pictures.stem}: {' '.join(self.command)}"
        try:
            done = self.runner.run(
                self.command,
                timeout=self.timeout,
                files={**self.files, infer_log.PICTURES: pictures},
                log_file=raw,
                on_line=listen,
                keep=True,
            )
        finally:
            with suppress(OSError):
                said = [path.read_text(errors="replace") for path in (raw, raw.with_name("run.log.stderr"))]
                self.log.append(f"==== {title}\n{said[0]}==== standard error\n{said[1]}")
        self.reconnections += done.reconnections
        try:
            if done.status != 0:
                last = (done.stderr.strip() or done.stdout.strip() or "it printed nothing")[-_SHOWN:]
                raise KilnError(
                    f"the program on board '{self.script.board.name}' failed: {last.splitlines()[-1]}",
                    file=self.artifact,
                    value=f"exit status {done.status}",
                )
            told = infer_log.parse(done.stdout, count=count)
            home = self.scratch / f"{pictures.stem}.npz"
            fetch(self.script, f"{done.folder}/{infer_log.OUTPUT}", home)
        finally:
            self.runner.drop(done.run)
        outputs = infer_log.read_outputs(home, self.model, self.artifact, count)
        home.unlink()
        return outputs, told


@contextmanager
def inferring_on(
    board: Board,
    artifact: Path,
    model: Model,
    *,
    threads: int,
    wait: float = 0.0,
    timeout: float | None = None,
    exact: bool = False,
    half: bool = False,
) -> Iterator[InferBoard]:
    """Connect, check the board for this artifact, take its lease; yield what runs pictures there.

    Args:
        board: of config/boards.yaml.
        artifact: what runs there.
        model: that it is of.
        threads: of a processor's runtime.
        wait: seconds to wait for another holder of the board.
        timeout: seconds of one run; None for the board's `limits.run_seconds`.
        exact, half: see `facekiln.boards.infer_log.write_declared`.

    Raises:
        KilnError: the board cannot run it (see `tool_on`), a missing file, or any fault of the board.
    """
    tool = tool_on(board, artifact)
    refuse_other_chip(board, artifact)
    runtime = board.runtime(tool.name)
    files = {name: path for name, path in files_of(artifact, tool).items() if path != latency_log.PROGRAM}
    record = sidecar_of(artifact)
    if board.virtual and record.is_file():  # a stand-in learns from it what the path says here
        files[record.name] = record
    if tool.name in latency_log.RUNTIMES:
        files[infer_log.PROGRAM.name] = infer_log.PROGRAM
        command = [runtime.tool, infer_log.PROGRAM.name, tool.name]
    else:
        assert runtime.infer is not None
        command = [runtime.infer]
    command += infer_log.arguments(artifact.name, threads=threads)
    needs = Needs(None, tool.name, space=sum(path.stat().st_size for path in files.values()))
    with tempfile.TemporaryDirectory(prefix="facekiln-") as scratch, Session(board) as session:
        declared = Path(scratch, infer_log.DECLARED)
        infer_log.write_declared(declared, model, exact=exact, half=half)
        script = BoardScript(session)
        preflight(script, needs)
        with Lease(script, f"predict {artifact.name}", wait=wait) as lease:
            yield InferBoard(
                script,
                RemoteRunner(script, lease),
                command,
                {**files, infer_log.DECLARED: declared},
                model,
                artifact,
                timeout,
                Path(scratch),
            )
