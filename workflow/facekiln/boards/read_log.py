"""Logs of benchmark tools that were run by hand, and those that `bench run` wrote, as figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facekiln.artifact import read_text, sha256_of
from facekiln.boards.bench import read_bench
from facekiln.boards.bench_log import runs_in
from facekiln.boards.runner import RunResult
from facekiln.boards.timing import Timing
from facekiln.boards.virtual.forms import MARK
from facekiln.config import known
from facekiln.errors import KilnError


@dataclass(frozen=True)
class Asked:
    """What a log may not tell.

    Attributes:
        batch: images per run; None for what the log tells, else 1.
        calculate_times: of bmrt_test.
        warm_up: loops of bmrt_test to leave out.
    """

    batch: int | None = None
    calculate_times: int = 1
    warm_up: int = 0


def _bmrt(result: RunResult, asked: Asked) -> list[Timing]:
    from facekiln.chips.sophon import bmrt_log, bmrt_test

    log = bmrt_test.parse(result.text)
    return [
        bmrt_test.timing(
            log,
            batch=asked.batch,
            calculate_times=asked.calculate_times,
            warm_up=asked.warm_up,
            net=net,
            stage=stage,
        )
        for net, stage in bmrt_log.groups(log.blocks)
    ]


def _mm(result: RunResult, asked: Asked) -> list[Timing]:
    from facekiln.chips.magicmind import mm_run

    return list(mm_run.timings(mm_run.parse(result.text), batch=asked.batch))


def _tm(result: RunResult, asked: Asked) -> list[Timing]:
    from facekiln.chips.tengine import tm_benchmark

    return [tm_benchmark.parse(result.stdout, result.stderr or result.stdout, batch=asked.batch or 1)]


def _benchncnn(result: RunResult, _: Asked) -> list[Timing]:
    from facekiln.chips.ncnn import benchncnn

    return [benchncnn.parse(result.stderr or result.stdout)]


def _rknn(result: RunResult, asked: Asked) -> list[Timing]:
    from facekiln.chips.rknn import rknn_benchmark

    return [rknn_benchmark.parse(result.text, batch=asked.batch or 1)]


def _nnie(result: RunResult, asked: Asked) -> list[Timing]:
    from facekiln.chips.nnie import board_log

    before, *after = board_log.parse_snapshots(result.stdout)
    return [board_log.timing(before, after, batch=asked.batch or 1)]


def _demo(result: RunResult, _: Asked) -> list[Timing]:
    from facekiln.chips.sophon import demo_log

    return [demo_log.parse(result.text)]


def _latency(result: RunResult, _: Asked) -> list[Timing]:
    from facekiln.boards import latency_log

    return [latency_log.parse(result.stdout)]


_READERS: dict[str, Callable[[RunResult, Asked], list[Timing]]] = {
    "bmrt_test": _bmrt,
    "sophon-demo": _demo,
    "mm_run": _mm,
    "tm_benchmark": _tm,
    "benchncnn": _benchncnn,
    "rknn_benchmark": _rknn,
    "nnie_forward": _nnie,
    "latency": _latency,
    # The two runtimes of our own program, as `bench run` names them.
    "onnxruntime": _latency,
    "ncnn": _latency,
}
TOOLS = tuple(sorted(_READERS))


def _of_record(log: Path, asked: Asked) -> Asked:
    """Return what was asked, filled in from the record that `bench run` wrote beside this very log."""
    record = log.with_suffix(".json")
    if not record.is_file():
        return asked
    found = read_bench(record)
    if found["log"]["sha256"] != sha256_of(log):
        return asked
    return replace(
        asked,
        batch=asked.batch or found["request"]["shape"][0],
        warm_up=asked.warm_up or found["request"]["warm_up"],
    )


def _figures(
    read: Callable[[RunResult, Asked], list[Timing]],
    result: RunResult,
    asked: Asked,
    log: Path,
    run: str | None = None,
) -> list[Timing]:
    """Return what a reader finds; its errors name the file, and numbers that no tool prints are one."""
    try:
        return read(result, asked)
    except KilnError as error:
        raise KilnError(str(error), file=log, where=run) from error
    except (ValueError, OverflowError) as error:  # of thousands of digits
        raise KilnError(f"holds a number that is none: {error}", file=log, where=run) from error


def read_log(log: Path, tool: str, asked: Asked, stderr: Path | None = None) -> list[dict[str, Any]]:
    """Return the figures of a log, one per net and stage, and of a log of ours also one per run.

    Args:
        log: standard output or both streams of one run; or the log of `bench run`, whose runs are read one by
            one and named by `run`. The record beside that one tells batch and warm-up.
        tool: of `TOOLS`.
        asked: what the log may not tell.
        stderr: standard error, of tools that print their figures there.

    Raises:
        KilnError: no such file or tool, a run failed, or its output cannot be read for certain.
    """
    read = _READERS[known(tool, _READERS, "tool whose log can be read")]
    texts = [read_text(path, errors="replace") if path else "" for path in (log, stderr)]
    virtual = any(MARK in text for text in texts)
    runs = runs_in(texts[0])
    if not runs:
        timings = _figures(read, RunResult(None, texts[0], texts[1], 0.0), asked, log)
        return [{**timing.to_json(), "virtual": virtual} for timing in timings]
    asked = _of_record(log, asked)
    found = []
    for run in runs:
        if run.result.status not in (None, 0):
            raise KilnError(
                "the tool failed in this run",
                file=log,
                where=run.title,
                value=f"exit status {run.result.status}",
                hint=f"its output stands there below `{run.title}`",
            )
        timings = _figures(read, run.result, asked, log, run.title)
        found += [{**timing.to_json(), "virtual": virtual, "run": run.title} for timing in timings]
    return found
