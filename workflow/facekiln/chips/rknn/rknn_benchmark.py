"""`rknn_benchmark` of Rockchip's SDK: its command line and its log, with a line per run.

Lines (rknn-toolkit2, rknpu2/examples/rknn_benchmark):

       0: Elapse Time = 100.09ms, FPS = 9.99
    Avg Time 99.98ms, Avg FPS = 10.002
"""

from __future__ import annotations

import re

from facekiln.boards.log_lines import fail, figure, read_lines
from facekiln.boards.timing import Timing, stats_of
from facekiln.errors import KilnError

TOOL = "rknn_benchmark"
_RUN = re.compile(r"\s*(?P<index>\d+): Elapse Time = (?P<ms>\S+?)ms, FPS = (?P<fps>\S+)")
_MEAN = re.compile(r"\s*Avg (?:elapse )?Time =? ?(?P<ms>\S+?)ms(?:, Avg FPS = (?P<fps>\S+))?")
_DECIMALS = re.compile(r"\d+\.\d{2,3}")
_VERSIONS = {
    "runtime": re.compile(r"librknnrt version: (\S+)"),
    "driver": re.compile(r"[Dd]river [Ii]nformation: version: ([\d.]+)|driver version: ([\d.]+)"),
}
_FAILURE = re.compile(r"E RKNN: .*|rknn_\w+ (?:error|fail).*")
_ROUNDING = 0.006


def command(
    model: str, input_file: str, *, loops: int = 50, core_mask: int = 0, program: str = "rknn_benchmark"
) -> list[str]:
    """Return the arguments, each unquoted.

    Args:
        model: path of the `.rknn` on the board.
        input_file: a picture or .npy on the board: the loops can only be given after it.
        loops: counted runs.
        core_mask: 0 automatic; 1, 2, 4 one core; 3, 7 several.
        program: name or path.

    Raises:
        KilnError: no loop, or a mask that is none of these.
    """
    if loops < 1 or core_mask not in (0, 1, 2, 3, 4, 7):
        raise KilnError("needs a loop at least and a mask of 0, 1, 2, 3, 4, 7", value=f"{loops}, {core_mask}")
    return [program, model, input_file, str(loops), str(core_mask)]


def parse(text: str, *, batch: int = 1, loops: int | None = None) -> Timing:
    """Return the figures of a run, every loop a sample.

    Raises:
        KilnError: the runtime refused the model, runs are missing, or the mean is not theirs.
    """
    samples: list[float] = []
    mean: float | None = None
    facts: dict[str, str] = {}
    for line in read_lines(text):
        for name, form in _VERSIONS.items():
            if match := form.search(line.text):
                facts[name] = next(part for part in match.groups() if part)
        if match := _FAILURE.search(line.text):
            remedy = "the toolkit that made the model and the board's librknnrt must be of one release"
            raise fail(TOOL, f"the tool failed: {match[0]}", line.number, hint=remedy)
        run, average = _RUN.fullmatch(line.text), _MEAN.fullmatch(line.text)
        if (run is None and "Elapse Time" in line.text) or (average is None and "Avg Time" in line.text):
            raise fail(TOOL, "a line of times is not whole", line.number, line.text)
        if run:
            if int(run["index"]) != len(samples):
                raise fail(TOOL, f"run {len(samples)} is missing", line.number, line.text)
            samples.append(_ms(run, line.number))
        elif average:
            mean = _ms(average, line.number)
    if not samples or mean is None or (loops is not None and len(samples) != loops):
        raise fail(TOOL, "the run did not end: runs or the mean are missing", value=f"{len(samples)} runs")
    latency = stats_of(samples)
    if abs(latency.mean - mean) > _ROUNDING * 2:
        raise fail(TOOL, "the mean is not that of the runs", value=f"{mean} against {latency.mean:.3f}")
    return Timing(
        tool=TOOL,
        tool_version=facts.get("runtime"),
        measures="one run on the NPU with its driver, host clock",
        latency=latency,
        batch=batch,
        runs=len(samples),
        facts=facts,
    )


def _ms(match: re.Match[str], line: int) -> float:
    if not _DECIMALS.fullmatch(match["ms"]):
        raise fail(TOOL, "a time has not two decimals: the line was cut", line, match[0].strip())
    value = figure(TOOL, match["ms"], line, "time")
    if match["fps"] is not None:
        rate = figure(TOOL, match["fps"], line, "FPS")
        if not _DECIMALS.fullmatch(match["fps"]) or not (
            1000 / (value + _ROUNDING) - _ROUNDING <= rate <= 1000 / max(value - _ROUNDING, 1e-9) + _ROUNDING
        ):
            raise fail(TOOL, "FPS is not the reciprocal of the time", line, match[0].strip())
    return value
