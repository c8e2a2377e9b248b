"""MagicMind's `mm_run`: its command line in both generations, and the figures of its log and trace file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facekiln.boards.log_lines import fail
from facekiln.boards.timing import Stats, Timing
from facekiln.chips.magicmind.mm_run_log import TOOL, MmRunLog, Report, ShapeGroup, parse
from facekiln.errors import KilnError

__all__ = ["Trace", "command", "generation_of", "parse", "read_trace", "timings"]

GENERATIONS = ("batch_size", "batch")
_CLOCK_WORDS = {"dev": "device clock", "host": "host clock", "": "clock not told"}


def generation_of(help_text: str) -> str:
    """Return which batch flag this `mm_run` knows, by its `--help`: "batch_size" (2023) or "batch" (2022).

    Raises:
        KilnError: it names neither.
    """
    for name in GENERATIONS:
        if re.search(rf"--{name}\b", help_text):
            return name
    raise fail(TOOL, "its --help names neither --batch_size nor --batch", hint="give generation by hand")


def command(
    model: str,
    *,
    batch: int,
    generation: str = "batch_size",
    devices: Sequence[int] = (0,),
    threads: int = 1,
    iterations: int = 1000,
    duration_ms: int | None = None,
    warm_up_ms: int | None = None,
    trace_time: str | None = None,
    input_dims: Sequence[Sequence[int]] = (),
    trace_folder: str | None = None,
    program: str = "mm_run",
) -> list[str]:
    """Return the arguments, each unquoted.

    Args:
        model: path on the board or host.
        batch: images per iteration.
        generation: see `generation_of`; the older one knows neither `trace_time` nor several batches.
        devices, threads: where to run.
        iterations: at least as many; the tool goes on until `duration_ms` (its default: 3000) is over too.
        warm_up_ms: its default is 200.
        trace_time: "none", "dev", "host" or "both": which latencies are printed; "none" is fastest.
        input_dims: of every input, for a mutable model.
        trace_folder: to write its JSON to.
        program: name or path.

    Raises:
        KilnError: a value that this generation does not have, or a count below 1.
    """
    for name, value in (("batch", batch), ("threads", threads), ("iterations", iterations)):
        if value < 1:
            raise KilnError("must be at least 1", where=f"{TOOL}: {name}", value=value)
    if generation not in GENERATIONS:
        raise KilnError("is no generation of mm_run", value=generation, limit=", ".join(GENERATIONS))
    if trace_time is not None and (
        generation == "batch" or trace_time not in ("none", "dev", "host", "both")
    ):
        raise KilnError("is not known to this generation", where=f"{TOOL}: trace_time", value=trace_time)
    arguments = [program, "--magicmind_model", model, f"--{generation}", str(batch)]
    arguments += ["--devices", *map(str, devices), "--threads", str(threads), "--iterations", str(iterations)]
    options = (("duration", duration_ms), ("warmup", warm_up_ms), ("trace_time", trace_time))
    for name, given in (*options, ("trace_path", trace_folder)):
        if given is not None:
            arguments += [f"--{name}", str(given)]
    if input_dims:
        arguments += ["--input_dims", *(",".join(map(str, dims)) for dims in input_dims)]
    return arguments


def timings(log: MmRunLog, *, batch: int | None = None) -> list[Timing]:
    """Return a result for each device and shape group.

    The latency is the compute's, by the device's clock where it was traced, else the host's; with
    `--trace_time none` it is the interval between batches that follows from the throughput.

    Args:
        log: what `parse` read.
        batch: where given, the log must be of it.

    Raises:
        KilnError: the log is of another batch, or a group's batch is unknown.
    """
    results = []
    for report in log.reports:
        for index, group in enumerate(report.groups):
            name = "" if report.device is None else f"device {report.device}"
            if len(report.groups) > 1:
                name = f"{name} shape group {index}".strip()
            results.append(_timing(log, report, group, name, batch))
    return results


def _batch(report: Report, group: ShapeGroup, asked: int | None) -> int:
    whole = round(report.batch)
    if len(report.groups) > 1 or abs(report.batch - whole) > 0.01:
        leading = [
            int(part.split(",")[0]) for part in group.dims.split("[")[2:] if part.split(",")[0].isdigit()
        ]
        if not leading:
            raise fail(TOOL, "the batch of a shape group is unclear", report.line, group.dims)
        whole = max(leading)  # how mm_run itself counts images
    if asked is not None and asked != whole:
        raise fail(TOOL, f"the log is of batch {whole}", report.line, asked, hint="was it the right model?")
    return whole


def _timing(log: MmRunLog, report: Report, group: ShapeGroup, label: str, asked: int | None) -> Timing:
    batch = _batch(report, group, asked)
    clock = next((clock for clock in ("dev", "host", "") if ("compute", clock) in group.parts), None)
    notes: tuple[str, ...] = ()
    if clock is None:
        latency = Stats(mean=1000 * batch / report.throughput)
        measures = "interval between batches, from the throughput; nothing was traced"
    else:
        latency = group.parts["compute", clock]
        measures = f"compute on the MLU, {_CLOCK_WORDS[clock]}, without copies"
    if len(report.groups) > 1:
        notes = ("throughput is of all shape groups together",)
    sizes = {"constdata": "weights", "contextmaxworkspace": "workspace"}
    return Timing(
        tool=TOOL,
        tool_version=log.versions.get("MagicMind"),
        label=label,
        measures=measures,
        latency=latency,
        batch=batch,
        runs=report.iterations if len(report.groups) == 1 else None,
        parts={"_".join(filter(None, key)): stats for key, stats in group.parts.items()},
        throughput=report.throughput,
        memory_mib={sizes[name]: value for name, value in log.sizes_mb.items()},
        readings=report.readings,
        facts={**log.versions, **({"input_dims": group.dims} if group.dims else {})},
        notes=notes,
    )


@dataclass(frozen=True)
class Trace:
    """A file of `--trace_path`: it holds no throughput and no wall time.

    Attributes:
        iterations: as written.
        compute_s, compute_dev_s: total compute seconds by host and device clock.
        groups: input dims and, by the file's own part names ("h2d(ms)", "mlu(dev|ms)", ...), its figures by
            the file's own names: the names inside a part are not documented and taken as they come.
    """

    iterations: int
    compute_s: float | None
    compute_dev_s: float | None
    groups: list[tuple[str, dict[str, dict[str, float]]]]


_TRACE_PARTS = (
    "h2d(ms)",
    "mlu(ms)",
    "mlu(dev|ms)",
    "enqueue(ms)",
    "d2h(ms)",
    "latency(host|ms)",
    "latency(dev|ms)",
)


def read_trace(text: str) -> Trace:
    """Read a JSON file of `--trace_path`.

    Raises:
        KilnError: it is not JSON, or `iterations` or `trace` is missing, or a figure is not a number.
    """
    try:
        value: Mapping[str, Any] = json.loads(text)
        groups = [
            (
                str(entry.get("inputDims", "")),
                {key: _numbers(entry[key]) for key in _TRACE_PARTS if key in entry},
            )
            for entry in value["trace"]
        ]
        host, device = (
            None if value.get(key) is None else float(value[key])
            for key in ("mluComputTime(s)", "mluComputTime(dev|s)")
        )
        return Trace(int(value["iterations"]), host, device, groups)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise fail(TOOL, f"is not a trace file of mm_run: {type(error).__name__} {error}") from error


def _numbers(value: Any) -> dict[str, float]:
    if isinstance(value, (int, float)):
        return {"mean": float(value)}
    return {str(key): float(item) for key, item in value.items() if isinstance(item, (int, float))}
