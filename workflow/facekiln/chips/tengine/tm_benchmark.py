"""Tengine Lite's `tm_benchmark`: its command line and its two streams.

Traps (OAID/Tengine, benchmark/tm_benchmark.c at c73708c, seen in runs of it): the header is on standard
output and the results on standard error; the exit status is 0 even where a model failed; height and width of
`-i` are swapped for a model given with `-m`; the run is always in float mode, so that an int8 file aborts and
a uint8 file is timed as such only with `-f 3`; one warm-up run is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from facekiln.boards.log_lines import fail, read_lines
from facekiln.boards.min_max_avg import one_result, parse_results
from facekiln.boards.timing import Timing
from facekiln.errors import KilnError

TOOL = "tm_benchmark"
_DTYPES = {"float32": 0, "uint8": 3}
_VERSION = re.compile(r"[Tt]engine-lite library version: (\S+)")
_LOOPS = re.compile(r"\s*(?:loops:|loop_counts\s*=)\s*(\d+)\s*")
_FACTS = re.compile(r"\s*(threads|cluster|affinity|device|num_threads|power)\s*[:=]\s*(\S+)\s*")
_FAILURES = re.compile(
    r"^\s*Tengine Benchmark: |cannot open file|munmap_chunk|Segmentation fault|Aborted", re.I
)


def command(
    model: str,
    shape: Sequence[int],
    *,
    dtype: str = "float32",
    loops: int = 50,
    threads: int = 1,
    cluster: int = 0,
    affinity: int | None = None,
    program: str = "tm_benchmark",
) -> list[str]:
    """Return the arguments, each unquoted, with the sides swapped as the program wants them.

    Args:
        model: path of the `.tmfile` on the board.
        shape: of the input, n, c, h, w.
        dtype: "float32" or "uint8", of the input.
        loops: counted runs.
        threads: at most the cores of the cluster.
        cluster: 0 all, 1 big, 2 middle, 3 little; equal cores are all big.
        affinity: mask of cores, in place of a cluster.
        program: name or path.

    Raises:
        KilnError: int8 (the program cannot time it), or a shape that is not n, c, h, w.
    """
    if dtype not in _DTYPES:
        raise KilnError(
            "tm_benchmark cannot time this type of file: it runs in float mode",
            where=TOOL,
            value=dtype,
            limit=", ".join(_DTYPES),
            hint="time it with a program of your own that asks for int8 mode",
        )
    if len(shape) != 4 or min(shape) < 1 or loops < 1:
        raise KilnError("needs a shape n, c, h, w and at least one loop", where=TOOL, value=[*shape, loops])
    number, channels, height, width = shape
    arguments = [program, "-r", str(loops), "-t", str(threads), "-p", str(cluster)]
    if affinity is not None:
        arguments += ["-a", hex(affinity)]
    swapped = f"{number},{channels},{width},{height}"  # the program takes them in the wrong order
    return [*arguments, "-m", model, "-i", swapped, "-f", str(_DTYPES[dtype])]


def parse(
    stdout: str, stderr: str, *, batch: int, status: int | None = None, model: str | None = None
) -> Timing:
    """Return the figures of one run.

    Args:
        stdout, stderr: the two streams, fetched apart: merged they interleave inside lines.
        batch: images per run, the first number of `-i`.
        status: exit status; 0 does not mean success, anything else means failure.
        model: name of the result, where the built-in list was run.

    Raises:
        KilnError: a model failed, the program aborted, a line is not whole, or no result is there.
    """
    for line in [*read_lines(stdout), *read_lines(stderr)]:
        if _FAILURES.search(line.text):
            raise fail(
                TOOL, f"the tool failed: {line.text.strip()}", line.number, hint="see its whole output"
            )
    if status not in (None, 0):
        raise fail(TOOL, "the tool ended with an error after its result", value=f"exit status {status}")
    head: dict[str, str] = {}
    version, loops = None, None
    for line in read_lines(stdout):
        if match := _VERSION.search(line.text):
            version = match[1]
        elif match := _LOOPS.fullmatch(line.text):
            loops = int(match[1])
        elif match := _FACTS.fullmatch(line.text):
            head[match[1]] = match[2]
    result = one_result(TOOL, parse_results(TOOL, stderr), model)
    if not any(
        line.text.strip().rstrip(".") == "ALL TEST DONE" for line in read_lines(stdout + "\n" + stderr)
    ):
        raise fail(TOOL, "the run did not end: 'ALL TEST DONE' is missing", result.line)
    return Timing(
        tool=TOOL,
        tool_version=version,
        label=result.name,
        measures="one run of the graph, host clock",
        latency=result.stats,
        batch=batch,
        runs=loops,
        facts=head,
        notes=("the input is all bytes of 1, and the run is in float mode",),
    )
