"""ncnn's own `benchncnn`: its command line and its log.

Everything is on standard error. `shape=` is w, h, c; weights are zeros and the input is 0.01 everywhere, so
that what is timed is the graph and not the file's values; only minimum, maximum and mean are printed
(Tencent/ncnn, benchmark/benchncnn.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from facekiln.boards.log_lines import fail, read_lines
from facekiln.boards.min_max_avg import one_result, parse_results
from facekiln.boards.timing import Timing
from facekiln.errors import KilnError

TOOL = "benchncnn"
_HEAD = re.compile(r"(loop_count|num_threads|powersave|gpu_device|cooling_down) = (-?\d+)")


def command(
    param: str,
    shape: Sequence[int],
    *,
    loops: int = 50,
    threads: int = 1,
    powersave: int = 0,
    gpu: int = -1,
    cool_down: bool = True,
    program: str = "benchncnn",
) -> list[str]:
    """Return the arguments, each unquoted.

    Args:
        param: path of the `.param` on the board; no `.bin` is read.
        shape: of the input, n, c, h, w; n must be 1.
        loops: counted runs, after 8 of warm-up.
        threads: of ncnn.
        powersave: 0 all cores, 1 little, 2 big.
        gpu: number of a Vulkan device, -1 for the processor.
        cool_down: ten seconds of rest before the run.
        program: name or path.

    Raises:
        KilnError: another batch than 1, or a count below 1.
    """
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1 or loops < 1:
        raise KilnError("needs a shape 1, c, h, w and at least one loop", where=TOOL, value=[*shape, loops])
    _, channels, height, width = shape
    counts = [loops, threads, powersave, gpu, int(cool_down)]
    return [program, *map(str, counts), f"param={param}", f"shape=[{width},{height},{channels}]"]


def parse(stderr: str, *, model: str | None = None) -> Timing:
    """Return the figures of one model.

    Args:
        stderr: the program's standard error; standard output is empty.
        model: name of the result, where the built-in list was run.

    Raises:
        KilnError: no result, several and no name, or a line that is not whole.
    """
    head = {
        match[1]: match[2] for line in read_lines(stderr) if (match := _HEAD.fullmatch(line.text.strip()))
    }
    results = parse_results(TOOL, stderr)
    if not results:
        last = read_lines(stderr)[-1:]
        said = last[0].text.strip() if last else "nothing"
        raise fail(TOOL, "there is no result in the log", value=f"last line: {said}")
    result = one_result(TOOL, results, model)
    return Timing(
        tool=TOOL,
        label=result.name,
        measures="one run of the graph, host clock",
        latency=result.stats,
        batch=1,
        runs=int(head["loop_count"]) if "loop_count" in head else None,
        facts=head,
        notes=("weights are zeros and the input is constant",),
    )
