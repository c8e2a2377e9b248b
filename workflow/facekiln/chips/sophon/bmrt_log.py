"""The log of libsophon's `bmrt_test`, in three generations; see `bmrt_test` for what its figures mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from facekiln.boards.log_lines import Line, fail, figure, read_lines
from facekiln.errors import KilnError

TOOL = "bmrt_test"
# The order of one block; "pre alloc" came with the second generation.
PARTS = ("load input", "pre alloc", "calculate", "get output", "compare")
_ENTRY = re.compile(r"\[BMRT\]\[(?P<function>[^\]:]+):\d+\]\s*(?P<level>[A-Z]+):\s*(?P<text>.*)")
_TIME = re.compile(r"(load input|pre alloc|calculate|get output|compare)\s+time\(s\):\s*(\S*)")
_SECONDS = re.compile(r"\d+\.\d{6}")  # printed with %f: a shorter one was cut
_RUNNING = re.compile(r"==> running network #\d+, name: (?P<net>.+), loop: (?P<loop>\d+)")
_LAUNCH = re.compile(
    r"net\[(?P<net>.+)\] stage\[(?P<stage>\d+)\], launch total time is (?P<total>\d+) us(?P<rest>.*)"
)
_SHARES = re.compile(
    r"\s*\(npu (?P<npu>\d+)(?: us)?(?: \[(?P<first>\d+) us, (?P<second>\d+) us\])?,?"
    r" (?:cpu|normal) (?P<host>\d+) us\)"
    r"(?:, \(launch func time \d+ us, sync \d+ us\))?"
)
_API = re.compile(
    r"net\[(?P<net>.+)\] stage\[(?P<stage>\d+)\], the last_api_process_time_us is (?P<total>\d+) us"
)
_COMPARED = re.compile(
    r"\+\+\+ The network\[(?P<net>.+)\] stage\[\d+\] cmp (?P<verdict>success|failed) \+\+\+"
)
_PORT = re.compile(r"(?P<way>Input|Output) \d+\) '(?P<name>.*)' shape=\[ (?P<shape>[\d ]+) \](?P<rest>.*)")
_VERSIONS = {
    "bmodel_version": re.compile(r"Bmodel loaded, version (.+)"),
    "runtime": re.compile(r"BM Runtime: (.+)"),
    "driver": re.compile(r"BM Sophon driver version: (.+)"),
}
# The compiler's names of failures, and what to do.
_REMEDIES = (
    ("cmp failed", "the output differs from the reference: look at the parity of this bmodel"),
    ("mem alloc failed", "free device memory on the board, or take a smaller batch"),
    ("runtime arch", "compile for the chip of this board: results/sophon/{chip}/..."),
    ("Unknown option", "this bmrt_test is of another release: see its --help"),
    ("bm_dev_request failed", "look whether the driver is loaded and the device number is right (bm-smi)"),
)


@dataclass(frozen=True)
class Port:
    """One input or output: name and shape."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Stage:
    """What `show_net_info` tells of a stage."""

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """The times of one launch, or of `--calculate_times` launches.

    Attributes:
        net, stage: None where the log was cut before the launch note.
        seconds: by part, as printed.
        launch_us: mean microseconds of a launch by the launch note; npu_us and host_us are its shares.
        sessions: parallel sessions of the cores (`--core_list 0:1`), 2 where the note shows both.
        line: of the calculate time.
    """

    net: str | None
    stage: int | None
    seconds: dict[str, float]
    launch_us: int | None
    npu_us: int | None
    host_us: int | None
    sessions: int
    line: int


@dataclass(frozen=True)
class BmrtLog:
    """A whole log.

    Attributes:
        blocks: in the order of time.
        stages: by (net, stage), where the log shows them.
        versions: bmodel_version, runtime, driver where printed.
        compared: nets whose output agreed with the reference.
    """

    blocks: list[Block]
    stages: dict[tuple[str, int], Stage]
    versions: dict[str, str]
    compared: list[str]


def parse(text: str, *, loops: int | None = None) -> BmrtLog:
    """Read a log.

    Args:
        text: standard output, or both streams.
        loops: what `--loopnum` was; without it the log's own "Loop num" is taken, where it has one.

    Raises:
        KilnError: the tool failed, the log was cut or damaged, or a figure contradicts another.
    """
    reader = _Reader()
    for line in read_lines(text):
        starts = [match.start() for match in re.finditer(r"\[BMRT\]\[", line.text)] or [0]
        for start, end in zip(starts, [*starts[1:], len(line.text)], strict=True):
            reader.take(Line(line.number, line.text[start:end].rstrip()))
    return reader.finish(loops)


class _Reader:
    """The state of one pass over the entries."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.stages: dict[tuple[str, int], Stage] = {}
        self.versions: dict[str, str] = {}
        self.compared: list[str] = []
        self.seen: dict[str, float] = {}
        self.runs: dict[str, list[int]] = {}
        self.loop_count: int | None = None
        self.net: str | None = None
        self.stage: Stage | None = None
        self.note: tuple[str, int, int, int | None, int | None, int] | None = None
        self.at = 0  # line of the calculate time

    def take(self, line: Line) -> None:
        match = _ENTRY.search(line.text)
        if match is None:
            if "time(s):" in line.text or "launch total time" in line.text:
                raise fail(TOOL, "a line with a time has no [BMRT] head", line.number, line.text.strip())
            return
        entry, level = match["text"].strip(), match["level"]
        if level in ("FATAL", "WRONG", "ERROR") or entry.startswith("Error:"):
            raise self._failed(line.number, entry)
        self._versions(entry)
        self._structure(entry)
        if "time(s):" in entry:
            self._time(line.number, entry)
        elif "launch total time is" in entry or "last_api_process_time_us" in entry:
            self._launch(line.number, entry)
        elif match := _RUNNING.match(entry):
            self._close(line.number)
            self.runs.setdefault(match["net"], []).append(int(match["loop"]))
        elif match := _COMPARED.match(entry):
            self.compared.append(match["net"])
        elif match := re.fullmatch(r"Loop num: (\d+)", entry):
            self.loop_count = int(match[1])

    @staticmethod
    def _failed(number: int, entry: str) -> KilnError:
        remedy = next((text for key, text in _REMEDIES if key in entry), "see the lines before it in the log")
        return fail(TOOL, f"the tool failed: {entry}", number, hint=remedy)

    def _versions(self, entry: str) -> None:
        for name, pattern in _VERSIONS.items():
            if match := pattern.fullmatch(entry):
                self.versions[name] = match[1]

    def _structure(self, entry: str) -> None:
        if match := re.fullmatch(r"NetName: (.+), Index=\d+", entry):
            self.net, self.stage = match[1], None
        elif (match := re.fullmatch(r"---- stage (\d+) ----", entry)) and self.net is not None:
            self.stage = self.stages.setdefault((self.net, int(match[1])), Stage())
        elif (match := _PORT.match(entry)) and self.stage is not None:
            ports = self.stage.inputs if match["way"] == "Input" else self.stage.outputs
            ports.append(Port(match["name"], tuple(int(side) for side in match["shape"].split())))

    def _launch(self, number: int, entry: str) -> None:
        if self.note is not None or self.seen:
            raise fail(TOOL, "a launch note where the times of the one before are due", number, entry)
        if match := _API.fullmatch(entry):
            total = int(match["total"])
            self.note = (match["net"], int(match["stage"]), total, total, None, 1)
            return
        match = _LAUNCH.fullmatch(entry)
        shares = _SHARES.match(match["rest"]) if match else None
        if match is None or (match["rest"].strip() and shares is None):
            raise fail(TOOL, "a launch note of an unknown form", number, entry)
        total = int(match["total"])
        npu = host = None
        sessions = 1
        if shares:
            npu, host = int(shares["npu"]), int(shares["host"])
            sessions = 2 if shares["first"] else 1
            if abs(npu + host - total) > 1:
                raise fail(TOOL, "the shares of a launch do not add up to its total", number, entry)
        self.note = (match["net"], int(match["stage"]), total, npu, host, sessions)

    def _time(self, number: int, entry: str) -> None:
        match = _TIME.fullmatch(entry)
        if match is None or not _SECONDS.fullmatch(match[2]):
            raise fail(
                TOOL, "a time is not seconds with six decimals: the line was cut or damaged", number, entry
            )
        part, place = match[1], PARTS.index(match[1])
        due = PARTS[PARTS.index(list(self.seen)[-1]) + 1] if self.seen else PARTS[0]
        if part != due and not (due == "pre alloc" and part == "calculate"):
            raise fail(TOOL, f"'{part}' stands where '{due}' is due: a line is missing", number, entry)
        self.seen[part] = figure(TOOL, match[2], number, part)
        if part == "calculate":
            self.at = number
        if place == len(PARTS) - 1:
            net, stage, launch, npu, host, sessions = self.note or (None, None, None, None, None, 1)
            self.blocks.append(Block(net, stage, self.seen, launch, npu, host, sessions, self.at))
            self.seen, self.note = {}, None

    def _close(self, number: int | None) -> None:
        if self.seen or self.note is not None:
            raise fail(TOOL, "a block of times is incomplete: the log was cut", number)

    def finish(self, loops: int | None) -> BmrtLog:
        self._close(None)
        if not self.blocks:
            raise fail(TOOL, "there is no block of times in the log")
        if loops is not None and self.loop_count not in (None, loops):
            raise fail(TOOL, f"the log is of {self.loop_count} loops", value=loops)
        loops = loops if loops is not None else self.loop_count
        for name, seen in self.runs.items():
            if seen != list(range(len(seen))) or (loops is not None and len(seen) != loops):
                raise fail(TOOL, f"loops of net '{name}' are missing or doubled", value=seen)
        counts = {key: len(list_) for key, list_ in groups(self.blocks).items()}
        wanted = {len(seen) for seen in self.runs.values()} | ({loops} if loops is not None else set())
        for (net, stage), count in counts.items():
            if wanted and wanted != {count}:
                raise fail(
                    TOOL,
                    f"net '{net}' stage {stage} has {count} blocks of times",
                    value=f"loops: {sorted(wanted)}",
                )
        named = {net for net, _ in counts}
        missing = set(self.runs) - named
        if missing and None not in named:
            raise fail(TOOL, "a net that ran has no times", value=sorted(missing))
        return BmrtLog(self.blocks, self.stages, self.versions, self.compared)


def groups(blocks: Sequence[Block]) -> dict[tuple[str | None, int | None], list[Block]]:
    """Return the blocks by net and stage, each in the order of time."""
    found: dict[tuple[str | None, int | None], list[Block]] = {}
    for block in blocks:
        found.setdefault((block.net, block.stage), []).append(block)
    return found
