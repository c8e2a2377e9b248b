"""`/proc/umap/nnie` of a HiSilicon board: what its driver counts, read between runs.

The file is a list of titled tables, a line of names above each line of figures. The driver keeps the time of
the last task and the longest one (`CostTm`, `MCostTm`, microseconds) and its counts of errors and of waits
(HiMPP documentation of the proc information of SVP). A snapshot after each run makes each `CostTm` a sample;
one before the runs shows whether errors were counted meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from facekiln.boards.log_lines import fail, figure, read_lines
from facekiln.boards.timing import Timing, stats_of
from facekiln.errors import KilnError

TOOL = "/proc/umap/nnie"
# Shows one snapshot with an end mark, as telnet and serial lines have no exit status.
COMMAND = ["sh", "-c", "cat /proc/umap/nnie && echo FACEKILN_END"]
END = "FACEKILN_END"
_TITLE = re.compile(r"-{4,}\s*(?P<title>[A-Z][\w /-]*?)\s*-{4,}")
_NAME = re.compile(r"[A-Za-z][\w()/%]*")
_ERRORS = ("CfgErrCnt", "STCnt", "TimeoutErrCnt", "HwErrCnt")


@dataclass(frozen=True)
class Snapshot:
    """One reading: figures by name, of the first row of the table that has the name."""

    values: dict[str, float]


def parse_snapshot(text: str) -> Snapshot:
    """Read one print of the file.

    Raises:
        KilnError: it holds no table with `CostTm`, or a row has not as many figures as names.
    """
    values: dict[str, float] = {}
    names: list[str] = []
    title = ""
    for line in read_lines(text):
        words = line.text.split()
        if match := _TITLE.search(line.text):
            title, names = match["title"], []
        elif words == [END]:
            break
        elif title.endswith("INFO") and all(_NAME.fullmatch(word) for word in words):
            names = words
        elif names:
            if len(words) != len(names):
                raise fail(
                    TOOL, f"{len(words)} figures under {len(names)} names", line.number, line.text.strip()
                )
            for name, word in zip(names, words, strict=True):
                if re.fullmatch(r"-?[\d.]+%?", word):
                    values.setdefault(name, figure(TOOL, word.lstrip("-").rstrip("%"), line.number, name))
            names = []
    if "CostTm" not in values:
        raise fail(
            TOOL, "there is no CostTm in the print", hint="is the NNIE driver loaded (hi3516cv500_nnie.ko)?"
        )
    return Snapshot(values)


def command(model: str, loops: int, *, program: str = "nnie_forward") -> list[str]:
    """Return the arguments of a board's own program that runs a model: `nnie_forward MODEL LOOPS`.

    No such program comes with the SDK: it is a sample that loads a .wk, and prints the file before and after
    each Forward and Query, each print followed by a line `FACEKILN_END` (docs/bench.md).

    Raises:
        KilnError: a count below 1.
    """
    if loops < 1:
        raise KilnError("must be at least 1", where=f"{program}: loops", value=loops)
    return [program, model, str(loops)]


def parse_snapshots(text: str) -> list[Snapshot]:
    """Read several prints, each with its end mark; one that is cut is refused.

    Raises:
        KilnError: fewer than two, a cut one, or see `parse_snapshot`.
    """
    *whole, rest = re.split(rf"^{END}\s*$", text, flags=re.MULTILINE)
    if len(whole) < 2 or rest.strip():
        raise fail(
            TOOL,
            "the prints are not whole: one before the runs and one after each, each with its end mark",
            value=f"{len(whole)} ended",
            hint=f"does the board's program print {END} after each?",
        )
    return [parse_snapshot(one) for one in whole]


def timing(before: Snapshot, after: Sequence[Snapshot], *, batch: int = 1) -> Timing:
    """Return the times of the runs between `before` and the last of `after`, a snapshot after each run.

    Raises:
        KilnError: there is no snapshot after a run, or the driver counted errors or timeouts.
    """
    if not after:
        raise fail(TOOL, "no snapshot was taken after a run")
    for name in _ERRORS:
        grown = after[-1].values.get(name, 0) - before.values.get(name, 0)
        if grown:
            raise fail(
                TOOL,
                f"the driver counted {grown:g} more in {name}",
                hint="look into the kernel's log (dmesg)",
            )
    latency = stats_of([snapshot.values["CostTm"] / 1000 for snapshot in after])
    use = after[-1].values.get("HwUtilization")
    return Timing(
        tool=TOOL,
        measures="the NNIE's last task, driver's clock, without flushing",
        latency=latency,
        batch=batch,
        runs=len(after),
        facts={} if use is None else {"hardware_use_percent": f"{use:g}"},
        notes=("each sample is the last task before a reading; runs between readings are not seen",),
    )
