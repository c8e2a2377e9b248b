"""Our own latency program for boards with Python: its command line and its log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from facekiln.boards.log_lines import fail, figure, read_lines
from facekiln.boards.timing import Timing, stats_of
from facekiln.errors import KilnError

TOOL = "facekiln latency"
PROGRAM = Path(__file__).with_name("latency_child.py")
RUNTIMES = ("onnxruntime", "ncnn")
_RUN = re.compile(r"run (\d+) (\d+\.\d{4}) ms")
_MEAN = re.compile(r"mean (\d+\.\d{4}) ms")
_FACT = re.compile(r"(python|machine|threads|load_ms) (\S+)|(shape) (\d+(?:,\d+)+)|(peak_memory_kib) (\d+)")


def command(
    runtime: str,
    model: str,
    shape: Sequence[int],
    *,
    loops: int = 50,
    warm_up: int = 10,
    threads: int = 1,
    python: str = "python3",
    program: str = str(PROGRAM),
) -> list[str]:
    """Return the arguments, each unquoted.

    Args:
        runtime: of `RUNTIMES`.
        model: path on the board.
        shape: of the input, n, c, h, w.
        loops, warm_up: counted and uncounted runs.
        threads: of the runtime.
        python: the board's, with numpy and the runtime.
        program: where `latency_child.py` lies on the board.

    Raises:
        KilnError: an unknown runtime or a count below 1.
    """
    if runtime not in RUNTIMES or loops < 1 or threads < 1 or warm_up < 0 or min(shape, default=0) < 1:
        raise KilnError(
            "needs a known runtime, a shape, a loop and a thread",
            where=TOOL,
            value=f"{runtime}, {list(shape)}, {loops}, {threads}",
            limit=", ".join(RUNTIMES),
        )
    options = ["--shape", ",".join(map(str, shape)), "--loops", str(loops)]
    options += ["--warm-up", str(warm_up), "--threads", str(threads)]
    return [python, program, runtime, model, *options]


def parse(text: str, *, loops: int | None = None, shape: Sequence[int] | None = None) -> Timing:
    """Return the figures of a run; `loops` and `shape` are checked where given.

    Raises:
        KilnError: the run did not end, runs are missing, or the mean is not theirs.
    """
    samples: list[float] = []
    facts: dict[str, str] = {}
    mean = runtime = version = None
    ended = None
    for line in read_lines(text):
        if match := _RUN.fullmatch(line.text):
            if int(match[1]) != len(samples):
                raise fail(TOOL, f"run {len(samples)} is missing", line.number, line.text)
            samples.append(figure(TOOL, match[2], line.number, "time"))
        elif match := _MEAN.fullmatch(line.text):
            mean = figure(TOOL, match[1], line.number, "mean")
        elif match := re.fullmatch(r"runtime (\S+) (\S+)", line.text):
            runtime, version = match[1], match[2]
        elif match := re.fullmatch(r"end (\d+)", line.text):
            ended = int(match[1])
        elif match := _FACT.fullmatch(line.text):
            name, value = (group for group in match.groups() if group is not None)
            facts[name] = value
    if ended is None or runtime is None or mean is None or "shape" not in facts:
        said = [line.text for line in read_lines(text)[-1:]]
        raise fail(TOOL, "the program did not end", value=said[0] if said else "it printed nothing")
    if ended != len(samples) or loops not in (None, ended):
        raise fail(TOOL, f"{len(samples)} runs of {loops or ended}")
    if shape is not None and facts["shape"] != ",".join(map(str, shape)):
        raise fail(TOOL, "the run is of another shape", value=facts["shape"])
    latency = stats_of(samples)
    if abs(latency.mean - mean) > 2e-4:
        raise fail(TOOL, "the mean is not that of the runs", value=f"{mean} against {latency.mean:.4f}")
    memory = facts.pop("peak_memory_kib", None)
    return Timing(
        tool=TOOL,
        tool_version=f"{runtime} {version}",
        measures=f"one call of {runtime} with input and outputs, host clock",
        latency=latency,
        batch=int(facts["shape"].partition(",")[0]),
        runs=len(samples),
        memory_mib={} if memory is None else {"peak_resident": int(memory) / 1024},
        facts=facts,
        notes=("the input is fixed noise",),
    )
