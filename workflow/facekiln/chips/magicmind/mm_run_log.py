"""The log of MagicMind's `mm_run`, in its two dialects.

The older one (logs of 2022 beside the samples of Cambricon/magicmind_cloud) has a line per quantity
("MLU Compute Latency (ms): min: ..."); the newer one (the sample's README since 2022-06, trace.cc) has a
section per quantity inside one block per input shape group, with a line per clock. Key columns are padded to
30 or 40; numbers have five significant digits.

`Throughput (qps)` counts images: iterations x batch / wall time. The figures of one report are held against
each other here: throughput x wall time is the number of images, and (older dialect, one thread) iterations x
mean compute latency is the compute time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from facekiln.boards.log_lines import Line, fail, figure, read_lines
from facekiln.boards.timing import Stats
from facekiln.errors import KilnError

TOOL = "mm_run"
_HEADING = re.compile(r"={5,}\s*(?P<title>[A-Z][A-Za-z0-9 ]*?)\s*$")
_UTILISATION = re.compile(r"Device (\d+) Utilization Summary")
_STATS = re.compile(
    r"\s*(?P<label>\S.*?):\s+min:\s*(?P<min>\S+)\s+max:\s*(?P<max>\S+)\s+mean:\s*(?P<mean>\S+)"
    r"(?:\s+median:\s*(?P<median>\S+))?(?:\s+percentile:\s*(?P<percentiles>\(.*))?\s*"
)
_PERCENTILE = re.compile(r"\((\d+(?:\.\d+)?)%\)\s*([^\s(]+)\s*")
_THROUGHPUT = re.compile(
    r"Throughput \(qps\):\s+(?P<qps>\S+)"
    r"(?: with total batch sizes: (?P<images>\S+) and (?P<rate>\S+) iterations/second)?\s*"
)
_SCALARS = {
    "iterations": re.compile(r"(?:Total iterations|Iterations):\s+(\S+)\s*"),
    "wall_s": re.compile(r"Host [Ww]all [Tt]ime ?\(s\):\s+(\S+)\s*"),
    "compute_s": re.compile(
        r"(?:MLU Compute Time \(s\)|Total MLU compute time\(host clock, s\)):\s+(\S+)\s*"
    ),
    "compute_dev_s": re.compile(r"Total MLU compute time\(dev clock, s\):\s+(\S+)\s*"),
}
_SECTIONS = (
    ("Total Latency Summary", "total"),
    ("MLU Compute", "compute"),
    ("H2D Summary", "h2d"),
    ("D2H Summary", "d2h"),
)
_CLOCKS = {
    "Latency(host clock, ms)": "host",
    "Latency(dev clock, ms)": "dev",
    "Interface Duration(ms)": "interface",
}
_OLD_LABELS = {
    "Enqueue Time (ms)": "enqueue",
    "H2D Latency (ms)": "h2d",
    "MLU Compute Latency (ms)": "compute",
    "D2H Latency (ms)": "d2h",
}
_READING = re.compile(
    r"(?:dev(?P<device>\d+)_)?(?P<name>chip|power|temp|mem)_(?:util|info)\((?P<unit>%|W|C|MB)\)"
)
READINGS = {"chip": "chip_use_percent", "power": "power_w", "temp": "temperature_c", "mem": "memory_mb"}
_PARAMETER = re.compile(r"(?:--)?(?P<key>[\w ]+?)(?:<[^:]*>)?\s*: ?(?P<value>.*)")
_SIZES = re.compile(r"(?P<name>Constdata|ContextMaxworkspace) Size:\s*(?P<value>[\d.]+)\s*\(MB\)")
_FAILURES = re.compile(r"\b(?:FATAL|ERROR)\b|\[MMERROR\]|Segmentation fault|core dumped")
# Five significant digits of each of two figures.
_AGREE = 3e-4


@dataclass
class ShapeGroup:
    """The latencies of one set of input shapes.

    Attributes:
        dims: as printed; "" in the older dialect.
        parts: milliseconds by part ("h2d", "compute", "d2h", "total", "enqueue") and clock ("host", "dev",
            "interface", or "" in the older dialect, which does not say).
    """

    dims: str
    parts: dict[tuple[str, str], Stats] = field(default_factory=dict)


@dataclass
class Report:
    """The figures of one device.

    Attributes:
        device: its number, None where the log does not say.
        iterations, wall_s, throughput: always there once the log is read.
        images: total images, where printed.
        compute_s, compute_dev_s: total compute seconds by host and device clock, where printed.
        readings: utilisation, power, temperature, memory by our names.
        line: of the throughput.
    """

    device: int | None
    iterations: int = 0
    wall_s: float = 0.0
    throughput: float = 0.0
    images: int | None = None
    iterations_per_s: float | None = None
    compute_s: float | None = None
    compute_dev_s: float | None = None
    readings: dict[str, Stats] = field(default_factory=dict)
    groups: list[ShapeGroup] = field(default_factory=list)
    closed: bool = False
    line: int = 0

    @property
    def batch(self) -> float:
        """Images per iteration; not whole where shape groups of different batches took turns."""
        images = self.images if self.images is not None else self.throughput * self.wall_s
        return images / self.iterations


@dataclass
class MmRunLog:
    """A whole log: `parameters` as the tool echoes them, `versions`, `sizes_mb`, one report per device."""

    parameters: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sizes_mb: dict[str, float] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)


def parse(text: str) -> MmRunLog:
    """Read a log of either dialect.

    Raises:
        KilnError: the tool failed, the log was cut or damaged, or a figure contradicts another.
    """
    reader = _Reader()
    for line in read_lines(text):
        reader.take(line)
    return reader.finish()


class _Reader:
    """The state of one pass over the lines."""

    def __init__(self) -> None:
        self.log = MmRunLog()
        self.title = ""
        self.device: int | None = None
        self.readings: dict[int | None, dict[str, Stats]] = {}
        self.section = ""
        self.failure: Line | None = None

    @property
    def report(self) -> Report | None:
        return self.log.reports[-1] if self.log.reports and self.title == "Performance Summary" else None

    def take(self, line: Line) -> None:
        if match := _HEADING.search(line.text):
            self._heading(match["title"])
            return
        if _FAILURES.search(line.text) and self.failure is None:
            self.failure = line
        if match := _SIZES.search(line.text):
            self.log.sizes_mb[match["name"].lower()] = figure(TOOL, match["value"], line.number, "size")
        if self.title == "Parameter Information":
            self._parameter(line)
        elif self.title.endswith("Utilization Summary"):
            self._reading(line)
        elif self.report is not None:
            self._performance(self.report, line)

    def _heading(self, title: str) -> None:
        match = _UTILISATION.fullmatch(title)
        if match:
            self.device = int(match[1])
        self.title = title
        if title == "Performance Summary":
            self.log.reports.append(Report(self.device))
            self.section = ""

    def _parameter(self, line: Line) -> None:
        match = _PARAMETER.fullmatch(line.text.strip())
        if match is None or "[" in line.text:
            return
        key, value = match["key"].strip(), match["value"].strip()
        versions = {"MagicMind", "CNRT", "CNAPI"}
        (self.log.versions if key in versions else self.log.parameters)[key] = value

    def _reading(self, line: Line) -> None:
        match = _STATS.fullmatch(line.text)
        name = _READING.fullmatch(match["label"]) if match else None
        if match is None or name is None:
            if "min:" in line.text:
                raise fail(TOOL, "a line of utilisation of an unknown form", line.number, line.text.strip())
            return
        device = int(name["device"]) if name["device"] else self.device
        self.readings.setdefault(device, {})[READINGS[name["name"]]] = _stats(match, line.number)

    def _performance(self, report: Report, line: Line) -> None:
        text = line.text.strip()
        for name, pattern in _SCALARS.items():
            if match := pattern.fullmatch(text):
                value = figure(TOOL, match[1], line.number, name)
                if getattr(report, name):
                    raise fail(TOOL, f"a second '{name}' in one report", line.number, text)
                setattr(report, name, int(value) if name == "iterations" else value)
                return
        if text.startswith("Throughput"):
            self._throughput(report, line)
        elif text.startswith("Input shape group"):
            report.groups.append(ShapeGroup(text.partition(":")[2].strip()))
            self.section = ""
        elif text.startswith("Trace average"):
            report.closed = True
        elif "min:" in text:
            self._latency(report, line)
        elif section := next(
            (short for key, short in _SECTIONS if text.startswith(key) and "Summary" in text), ""
        ):
            self.section = section
        elif any(key in text for key in ("wall", "Wall", "terations:")):
            raise fail(TOOL, "a line of figures of an unknown form", line.number, text)

    def _throughput(self, report: Report, line: Line) -> None:
        match = _THROUGHPUT.fullmatch(line.text.strip())
        if match is None:
            raise fail(TOOL, "a throughput of an unknown form", line.number, line.text.strip())
        if report.throughput:
            raise fail(TOOL, "a second throughput in one report", line.number)
        report.throughput, report.line = figure(TOOL, match["qps"], line.number, "throughput"), line.number
        if match["images"]:
            report.images = int(figure(TOOL, match["images"], line.number, "total batch sizes"))
            report.iterations_per_s = figure(TOOL, match["rate"], line.number, "iterations/second")

    def _latency(self, report: Report, line: Line) -> None:
        match = _STATS.fullmatch(line.text)
        label = match["label"] if match else ""
        if match and label in _OLD_LABELS and not self.section:
            key = (_OLD_LABELS[label], "")
            if not report.groups:
                report.groups.append(ShapeGroup(""))
        elif match and label in _CLOCKS and self.section and report.groups:
            key = (self.section, _CLOCKS[label])
        else:
            raise fail(
                TOOL, "a line of latencies of an unknown form or place", line.number, line.text.strip()
            )
        group = report.groups[-1]
        if key in group.parts:
            raise fail(TOOL, "a second line of the same latency", line.number, line.text.strip())
        # A heading that was lost would give the next section's latencies to this one.
        order = list(_CLOCKS.values())
        if key[1] and any((key[0], later) in group.parts for later in order[order.index(key[1]) + 1 :]):
            raise fail(TOOL, "a latency stands behind one that it precedes", line.number, line.text.strip())
        group.parts[key] = _stats(match, line.number)

    def finish(self) -> MmRunLog:
        if self.failure is not None and not any(report.throughput for report in self.log.reports):
            raise fail(TOOL, f"the tool failed: {self.failure.text.strip()}", self.failure.number)
        if not self.log.reports:
            raise fail(TOOL, "there is no performance summary in the log: it was cut, or the tool failed")
        for report in self.log.reports:
            _check(report, self.log.parameters)
            report.readings = self.readings.get(report.device, {})
        if len(self.log.reports) == 1 and not self.log.reports[0].readings and len(self.readings) == 1:
            self.log.reports[0].device, self.log.reports[0].readings = next(iter(self.readings.items()))
        wanted = self.log.parameters.get("devices", "").replace(",", " ").split()
        if len(wanted) > 1 and len(self.log.reports) not in (1, len(wanted)):
            raise fail(TOOL, f"{len(self.log.reports)} reports for {len(wanted)} devices: the log was cut")
        return self.log


def _stats(match: re.Match[str], line: int) -> Stats:
    low, high, mean = (figure(TOOL, match[key], line, key) for key in ("min", "max", "mean"))
    median = figure(TOOL, match["median"], line, "median") if match["median"] else None
    percentiles = {}
    if match["percentiles"]:
        pairs = _PERCENTILE.findall(match["percentiles"])
        if _PERCENTILE.sub("", match["percentiles"]).strip() or len(pairs) < 3:
            raise fail(
                TOOL, "percentiles of an unknown form: the line was cut or damaged", line, match[0].strip()
            )
        percentiles = {level: figure(TOOL, value, line, f"percentile {level}") for level, value in pairs}
    try:
        return Stats(mean, low, high, median, percentiles)
    except KilnError as error:
        raise fail(TOOL, error.what, line, match[0].strip()) from error


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _AGREE * max(abs(one), abs(other))


def _check(report: Report, parameters: dict[str, str]) -> None:
    where = "a report" if report.device is None else f"the report of device {report.device}"
    missing = [name for name in ("iterations", "wall_s", "throughput") if not getattr(report, name)]
    if missing or not report.groups:
        raise fail(
            TOOL, f"{where} is incomplete: the log was cut", value=", ".join(missing) or "no latencies"
        )
    images = report.throughput * report.wall_s
    if report.images is not None and report.iterations_per_s is not None:
        agree = _close(images, report.images) and _close(
            report.iterations_per_s * report.wall_s, report.iterations
        )
    else:
        agree = round(report.batch) >= 1 and _close(images, round(report.batch) * report.iterations)
    if not agree:
        raise fail(
            TOOL, "throughput, wall time and iterations contradict each other", report.line, report.throughput
        )
    for group in report.groups:
        old = not group.dims
        clocks = {clock for part, clock in group.parts if part == "compute" and clock in ("host", "dev")}
        total = {clock for part, clock in group.parts if part == "total"}
        traced = any(clock in ("host", "dev") for _, clock in group.parts)
        whole = ("compute", "") in group.parts if old else bool(group.parts) and total == clocks
        if not whole or ((old or traced) and not report.closed):
            raise fail(
                TOOL, f"the latencies of {where} are incomplete: the log was cut", value=group.dims or None
            )
        if old and parameters.get("thread_num", "1") == "1" and report.compute_s is not None:
            summed = group.parts["compute", ""].mean * report.iterations / 1000
            if not _close(summed, report.compute_s):
                raise fail(
                    TOOL, "compute latency and compute time contradict each other", report.line, summed
                )
