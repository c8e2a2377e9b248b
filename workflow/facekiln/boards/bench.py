"""One measurement of one artifact on one board: repeats, monitoring, verdict, retries, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from facekiln.artifact import read_json, sha256_of, write_json
from facekiln.boards import monitor
from facekiln.boards.bench_log import RawLog
from facekiln.boards.runner import Runner
from facekiln.boards.timing import Stats, Timing, stats_of
from facekiln.boards.tools import Request, Tool
from facekiln.boards.verdict import NOISY, Judgement, Limits, judge
from facekiln.config import check
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

FORM = 1
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """How a measurement is made.

    Attributes:
        repeats: runs of the whole tool; the unit of the statistics.
        retries: further attempts while the verdict is noisy.
        cool_down: seconds of rest before each repeat.
        timeout: seconds of one repeat.
        limits: of the noise.
    """

    repeats: int = 5
    retries: int = 2
    cool_down: float = 0.5
    timeout: float = 600.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Repeat:
    """One run of the tool with the board's state around it."""

    timing: Timing
    seconds: float
    log_sha256: str
    before: monitor.Reading
    after: monitor.Reading

    def to_json(self) -> dict[str, Any]:
        """Return it for the record."""
        return {
            "timing": self.timing.to_json(),
            "seconds": round(self.seconds, 3),
            "log_sha256": self.log_sha256,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


def bench_file(results: Path | str, board: str, artifact: Path | str) -> Path:
    """Return `results/bench/{board}/{artifact}.json`, with the artifact's path below `results/`."""
    path = Path(artifact)
    parts = path.parts[path.parts.index("results") + 1 :] if "results" in path.parts else (path.name,)
    return Path(results, "bench", board, *parts[:-1], f"{parts[-1]}.json")


def run_bench(
    runner: Runner,
    tool: Tool,
    request: Request,
    *,
    board: str,
    artifact: Path | str,
    output: Path | str,
    plan: Plan | None = None,
    virtual: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Measure, judge, and write the record and beside it the raw log of every run.

    Args:
        runner: the board.
        tool, request: what is run there.
        board: its name.
        artifact: the file here whose hash goes into the record; `request.path` is where the board has it.
        output: the record; the log is `output` with `.log` for `.json`, or `.running.log` when a run fails.
        plan: see `Plan`.
        virtual: a stand-in runs instead of the chip; told in the record.
        sleep: for tests.

    Returns:
        The record, also where its verdict is "noisy: rejected".

    Raises:
        KilnError: a run failed, or its log cannot be read; the raw log says why.
    """
    plan = plan or Plan()
    if plan.repeats < 1 or plan.retries < 0:
        raise KilnError("needs a repeat at least", value=f"{plan.repeats} repeats, {plan.retries} retries")
    output = Path(output)
    if tool.probe is not None:
        request = tool.probe(runner, request)
    command = tool.command(request)
    # Under another name until it is whole, so that an earlier record keeps the log that it is of.
    log = RawLog(output.with_suffix(".running.log"))
    attempts: list[Judgement] = []
    repeats: list[Repeat] = []
    for attempt in range(plan.retries + 1):
        with progress_bar(
            plan.repeats, f"{board}: {Path(artifact).name}, attempt {attempt + 1}", "run"
        ) as bar:
            repeats = []
            for number in range(plan.repeats):
                sleep(plan.cool_down)
                title = f"attempt {attempt + 1} repeat {number + 1}"
                repeats.append(_measure(runner, tool, request, command, plan.timeout, log, title))
                bar.update(1)
        found = [fault for repeat in repeats for fault in monitor.faults(repeat.before, repeat.after)]
        attempts.append(judge([repeat.timing for repeat in repeats], plan.limits, found))
        if attempts[-1].verdict != NOISY:
            break
    log.path.replace(output.with_suffix(".log"))
    log.path = output.with_suffix(".log")
    record = _record(attempts, repeats)
    record |= {
        "form": FORM,
        "board": board,
        # The log tells it also where the board's entry does not.
        "virtual": virtual or log.virtual,
        "artifact": str(artifact),
        "artifact_sha256": sha256_of(artifact),
        "command": command,
        "request": {
            key: value for key, value in asdict(request).items() if key not in ("path", "program", "python")
        },
        "plan": asdict(plan),
        "log": {"file": log.path.name, "sha256": sha256_of(log.path)},
    }
    record["request"]["shape"] = list(request.shape)
    check(record, "bench", output)
    write_json(output, record)
    return record


def _probe(runner: Runner) -> monitor.Reading:
    try:
        return monitor.parse(runner.run(monitor.COMMAND, timeout=_PROBE_SECONDS).stdout)
    except KilnError:  # a board without a shell tells nothing, and is measured all the same
        return monitor.Reading()


def _measure(
    runner: Runner, tool: Tool, request: Request, command: list[str], timeout: float, log: RawLog, title: str
) -> Repeat:
    before = _probe(runner)
    result = runner.run(command, timeout=timeout)
    after = _probe(runner)
    digest = log.add(title, command, result)
    try:
        timing = tool.parse(request, result)
    except KilnError as error:
        status = "" if result.status in (None, 0) else f"; exit status {result.status}"
        raise KilnError(f"{error}{status}", hint=f"see the raw log {log.path}") from error
    if result.status not in (None, 0):
        raise KilnError(
            f"{tool.name} ended with exit status {result.status} after its result",
            hint=f"see the raw log {log.path}",
        )
    return Repeat(timing, result.seconds, digest, before, after)


def _over_all(repeats: list[Stats]) -> Stats:
    """Return the figures over all runs of all repeats.

    Of a tool that prints no single runs: its extremes, and the means over the repeats of its mean, median and
    percentiles.
    """
    first = repeats[0]
    if all(stats.samples for stats in repeats):
        return stats_of([value for stats in repeats for value in stats.samples], first.runs_per_sample)

    def known(name: str) -> list[float]:
        values = [getattr(stats, name) for stats in repeats]
        return [value for value in values if value is not None] if None not in values else []

    return Stats(
        mean=fmean(stats.mean for stats in repeats),
        min=min(known("min"), default=None),
        max=max(known("max"), default=None),
        median=fmean(known("median")) if known("median") else None,
        percentiles={
            level: fmean(stats.percentiles[level] for stats in repeats)
            for level in first.percentiles
            if all(level in stats.percentiles for stats in repeats)
        },
    )


def _record(attempts: list[Judgement], repeats: list[Repeat]) -> dict[str, Any]:
    timings = [repeat.timing for repeat in repeats]
    first, last = timings[0], attempts[-1]
    state = monitor.remarks(repeats[0].before, repeats[-1].after)
    spread = _over_all([timing.latency for timing in timings]).to_json()
    spread.pop("samples", None)
    throughput = None
    if first.throughput is not None:
        throughput = sum(timing.images_per_second for timing in timings) / len(timings)
    return {
        "verdict": last.verdict,
        "reasons": list(last.reasons),
        "tool": first.tool,
        "tool_version": first.tool_version,
        "measures": first.measures,
        "batch": first.batch,
        "mean_only": first.mean_only,
        "result": {
            **{key: value for key, value in last.to_json().items() if key not in ("verdict", "reasons")},
            "per_image_ms": last.latency_ms / first.batch,
            "images_per_second": throughput or 1000 * first.batch / last.latency_ms,
            "throughput_by_tool": throughput is not None,
            "over_all_runs_ms": spread,
        },
        "notes": [*first.notes, *state],
        "attempts": [attempt.to_json() for attempt in attempts],
        "repeats": [repeat.to_json() for repeat in repeats],
    }


def read_bench(path: Path | str) -> dict[str, Any]:
    """Read a record.

    Raises:
        KilnError: it is not one of ours.
    """
    return check(read_json(path), "bench", path)
