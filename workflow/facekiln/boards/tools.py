"""The benchmark tools by name: how each is called for an artifact, and how its result is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from facekiln.boards import latency_log
from facekiln.boards.runner import Runner, RunResult
from facekiln.boards.timing import Timing
from facekiln.config import known
from facekiln.errors import KilnError

_HELP_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        path: of the artifact on the board.
        shape: of its input, n, c, h, w.
        loops: counted runs per repeat.
        warm_up: uncounted runs before them, where the tool lets one choose.
        threads: of a processor's runtime.
        cores: of a chip, as compiled for.
        dtype: "float32", "int8", "uint8", ... by the artifact's name.
        python: the board's interpreter, for our own program.
        program: the tool on the board, where it is not found by its name.
        generation: of the tool's flags, where it has several; see `Tool.probe`.
    """

    path: str
    shape: tuple[int, int, int, int]
    loops: int = 50
    warm_up: int = 10
    threads: int = 2
    cores: int = 1
    dtype: str = "float32"
    python: str = "python3"
    program: str | None = None
    generation: str = ""

    @property
    def batch(self) -> int:
        """Images per run."""
        return self.shape[0]


@dataclass(frozen=True)
class Tool:
    """One benchmark program.

    Attributes:
        name: of the program.
        suffix: of what it measures.
        command: its arguments for a request.
        parse: its result.
        probe: asks the program on the board for its generation, where its flags changed.
    """

    name: str
    suffix: str
    command: Callable[[Request], list[str]]
    parse: Callable[[Request, RunResult], Timing]
    probe: Callable[[Runner, Request], Request] | None = None


def _latency_command(runtime: str, request: Request) -> list[str]:
    return latency_log.command(
        runtime,
        request.path,
        request.shape,
        loops=request.loops,
        warm_up=request.warm_up,
        threads=request.threads,
        python=request.python,
        program=request.program or str(latency_log.PROGRAM),
    )


def _latency_parse(request: Request, result: RunResult) -> Timing:
    if result.status not in (None, 0):
        last = result.stderr.strip().splitlines()[-1:] or ["nothing on standard error"]
        raise KilnError(f"the run failed: {last[0]}", file=request.path, value=f"exit status {result.status}")
    return latency_log.parse(result.stdout, loops=request.loops, shape=request.shape)


def _bmrt_command(request: Request) -> list[str]:
    from facekiln.chips.sophon import bmrt_test

    cores = tuple(range(request.cores)) if request.cores > 1 else ()
    loops = request.loops + request.warm_up
    return bmrt_test.command(request.path, loops=loops, cores=cores, program=request.program or "bmrt_test")


def _bmrt_parse(request: Request, result: RunResult) -> Timing:
    from facekiln.chips.sophon import bmrt_test

    log = bmrt_test.parse(result.text, loops=request.loops + request.warm_up)
    return bmrt_test.timing(log, batch=request.batch, warm_up=request.warm_up)


def _mm_probe(runner: Runner, request: Request) -> Request:
    from facekiln.chips.magicmind import mm_run

    told = runner.run([request.program or "mm_run", "--help"], timeout=_HELP_SECONDS)
    return replace(request, generation=mm_run.generation_of(told.text))


def _mm_command(request: Request) -> list[str]:
    from facekiln.chips.magicmind import mm_run

    return mm_run.command(
        request.path,
        batch=request.batch,
        generation=request.generation or mm_run.GENERATIONS[0],
        iterations=request.loops,
        program=request.program or "mm_run",
    )


def _mm_parse(request: Request, result: RunResult) -> Timing:
    from facekiln.chips.magicmind import mm_run

    (timing,) = mm_run.timings(mm_run.parse(result.text), batch=request.batch)
    return timing


def _tm_command(request: Request) -> list[str]:
    from facekiln.chips.tengine import tm_benchmark

    return tm_benchmark.command(
        request.path,
        request.shape,
        dtype=request.dtype,
        loops=request.loops,
        threads=request.threads,
        program=request.program or "tm_benchmark",
    )


def _tm_parse(request: Request, result: RunResult) -> Timing:
    from facekiln.chips.tengine import tm_benchmark

    return tm_benchmark.parse(result.stdout, result.stderr, batch=request.batch, status=result.status)


def _benchncnn_command(request: Request) -> list[str]:
    from facekiln.chips.ncnn import benchncnn

    return benchncnn.command(
        request.path,
        request.shape,
        loops=request.loops,
        threads=request.threads,
        program=request.program or "benchncnn",
    )


def _benchncnn_parse(_: Request, result: RunResult) -> Timing:
    from facekiln.chips.ncnn import benchncnn

    return benchncnn.parse(result.stderr)


def _nnie_command(request: Request) -> list[str]:
    from facekiln.chips.nnie import board_log

    return board_log.command(request.path, request.loops, program=request.program or "nnie_forward")


def _nnie_parse(request: Request, result: RunResult) -> Timing:
    from facekiln.chips.nnie import board_log

    before, *after = board_log.parse_snapshots(result.stdout)
    return board_log.timing(before, after, batch=request.batch)


# The first tool of a suffix is its default.
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("onnxruntime", ".onnx", partial(_latency_command, "onnxruntime"), _latency_parse),
        Tool("ncnn", ".param", partial(_latency_command, "ncnn"), _latency_parse),
        Tool("benchncnn", ".param", _benchncnn_command, _benchncnn_parse),
        Tool("bmrt_test", ".bmodel", _bmrt_command, _bmrt_parse),
        Tool("mm_run", ".mm", _mm_command, _mm_parse, _mm_probe),
        Tool("tm_benchmark", ".tmfile", _tm_command, _tm_parse),
        Tool("nnie_forward", ".wk", _nnie_command, _nnie_parse),
    )
}


# Programs whose logs are read, but which `bench run` does not start.
_LOGS_ONLY = ("rknn_benchmark", "sophon-demo")


def _by_hand(artifact: Path | str, tool: str) -> KilnError:
    name = Path(artifact).name
    if tool == "rknn_benchmark":
        # rknpu2's program takes the loops only behind an input file, whose form depends on its release.
        call = f"--put {name}={artifact} --put input.npy=INPUT.npy --raw-log board.log"
        start = f"facekiln board run BOARD {call} -- rknn_benchmark {name} input.npy 50 0"
    else:
        start = "run it there by hand, with its output in board.log"
    return KilnError(
        f"`bench run` does not start {tool}: it needs an input of its own",
        file=artifact,
        limit=", ".join(sorted(TOOLS)),
        hint=f"{start}; then: facekiln bench read board.log --tool {tool}",
    )


def tool_for(artifact: Path | str, name: str | None = None) -> Tool:
    """Return the tool of a name, or the default one of the artifact's kind.

    Raises:
        KilnError: no such tool, it does not measure such artifacts, or it has to be started by hand.
    """
    suffix = Path(artifact).suffix
    if name in _LOGS_ONLY or (suffix == ".rknn" and name is None):
        raise _by_hand(artifact, name or "rknn_benchmark")
    if name is not None:
        tool = TOOLS[known(name, TOOLS, "benchmark tool")]
        if tool.suffix != suffix:
            raise KilnError(f"{name} measures *{tool.suffix}", file=artifact)
        return tool
    for tool in TOOLS.values():
        if tool.suffix == suffix:
            return tool
    suffixes = ", ".join(sorted({tool.suffix for tool in TOOLS.values()}))
    raise KilnError("no benchmark tool measures such a file", file=artifact, limit=suffixes)


def precision_of(artifact: Path | str) -> str:
    """Return the input's type by the artifact's name: "int8", "uint8" or "float32"."""
    found = re.search(r"_(u?int8)(?:[._]|$)", Path(artifact).name)
    return found[1] if found else "float32"


def batch_and_cores_of(artifact: Path | str) -> tuple[int, int]:
    """Return (batch, cores) by the artifact's name: `..._4b.bmodel`, `..._4b_2core.bmodel`; else 1."""
    found = re.search(r"_(\d+)b(?:_(\d+)core)?\.", Path(artifact).name)
    return (int(found[1]), int(found[2] or 1)) if found else (1, 1)
