"""A board of config/boards.yaml as a place to measure: checked, leased, with the files that a run needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from facekiln.boards import latency_log, monitor
from facekiln.boards.chips import chip_of, refuse_other_chip
from facekiln.boards.lease import Lease
from facekiln.boards.preflight import Needs, preflight
from facekiln.boards.remote import RemoteRunner
from facekiln.boards.runner import Runner, RunResult
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Board
from facekiln.boards.tools import Request, Tool
from facekiln.config import DEFAULT_FOLDER
from facekiln.errors import KilnError

__all__ = ["BoardRunner", "chip_of", "files_of", "measuring_on"]


@dataclass(frozen=True)
class BoardRunner:
    """Runs commands in a folder of their own that holds the files; each content is sent once.

    Attributes:
        remote: the connection, with its lease.
        files: name in the folder -> local file.
    """

    remote: RemoteRunner
    files: Mapping[str, Path]

    def run(
        self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> RunResult:
        """Run a command on the board; see `Runner.run`."""
        files = None if list(command) == monitor.COMMAND else self.files
        return self.remote.run(command, timeout=timeout, files=files, environment=environment)


def files_of(artifact: Path, tool: Tool) -> dict[str, Path]:
    """Return what a run of a tool needs beside it: the artifact, its second file, our own program.

    Raises:
        KilnError: one is missing.
    """
    files = {artifact.name: artifact}
    if tool.suffix == ".param" and tool.name != "benchncnn":
        files[f"{artifact.stem}.bin"] = artifact.with_suffix(".bin")
    if tool.name in latency_log.RUNTIMES:
        files[latency_log.PROGRAM.name] = latency_log.PROGRAM
    for path in files.values():
        if not path.is_file():
            raise KilnError("is not there", file=path, hint=f"build it: snakemake {artifact}")
    return files


@contextmanager
def measuring_on(
    board: Board,
    tool: Tool,
    artifact: Path,
    request: Request,
    *,
    wait: float = 0.0,
    folder: Path | str = DEFAULT_FOLDER,
) -> Iterator[tuple[Runner, Request]]:
    """Connect, check the board for this artifact, take its lease; yield a runner and the request for it.

    The board's entry declares the tool under `runtimes`: for onnxruntime and ncnn the `tool:` there is the
    Python that has them, else the benchmark program itself.

    Args:
        board: of config/boards.yaml.
        tool, artifact: what runs there.
        request: as for this machine; path, program and Python are replaced by the board's.
        wait: seconds to wait for another holder of the board.
        folder: the config folder, which tells the chips that run the same files.

    Raises:
        WrongArchitecture: the artifact was made for another chip.
        KilnError: a kind of board that cannot run commands, an undeclared tool, a missing file, or any fault
            of the board.
    """
    if board.transport != "ssh":
        raise KilnError(
            f"a board of transport '{board.transport}' runs no commands for us",
            file=board.name,
            hint="run the tool there by hand and give its log to `facekiln bench read`",
        )
    refuse_other_chip(board, artifact, folder)
    runtime = board.runtime(tool.name)
    files = files_of(artifact, tool)
    if tool.name in latency_log.RUNTIMES:
        there = replace(request, path=artifact.name, python=runtime.tool, program=latency_log.PROGRAM.name)
    else:
        there = replace(request, path=artifact.name, program=request.program or runtime.tool)
    needs = Needs(None, tool.name, space=sum(path.stat().st_size for path in files.values()))
    with Session(board) as session:
        script = BoardScript(session)
        preflight(script, needs)
        with Lease(script, f"bench {artifact.name}", wait=wait) as lease:
            yield BoardRunner(RemoteRunner(script, lease), files), there
