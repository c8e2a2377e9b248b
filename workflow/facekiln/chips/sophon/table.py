"""tpu_mlir's calibration table: text in and out, checked against the network that it is for.

The form, as tpu_mlir 1.26 writes and reads it: comment lines, then `name threshold min max` with single
blanks, one line per result of every operator of top.mlir but weights. After a line `#int4_th` the same for
4 bit, after `#asym_op` names of operators that are quantised asymmetrically. fp8 has no columns of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facekiln.artifact import read_text, write_text
from facekiln.chips.sophon.mlir import Mlir, known_in
from facekiln.errors import KilnError

# What the tool takes at least; it raises smaller thresholds to it.
SMALLEST = 1e-5
_LARGEST = 1e30
INT4, ASYMMETRIC = "#int4_th", "#asym_op"
# The tool's own spelling, and ours, should it be mended.
_CLOCK = re.compile(r"^(# genet?rated time: |# genetated time: ).*$")
_PATH = re.compile(r"^(# mlir: ).*?([^/\\]*)$")
_EPOCH = "1970-01-01 00:00:00"


@dataclass(frozen=True)
class Row:
    """One tensor: where |x| is clipped, and the least and largest value that an asymmetric scale spans."""

    threshold: float
    low: float
    high: float


@dataclass(frozen=True)
class Table:
    """A calibration table.

    Attributes:
        rows: by name, in the network's order.
        comments: lines before the rows, without clock and path.
        int4: thresholds for 4 bit, if there are any.
        asymmetric: operators that are quantised asymmetrically.
    """

    rows: Mapping[str, Row]
    comments: tuple[str, ...] = ()
    int4: Mapping[str, Row] = field(default_factory=dict)
    asymmetric: tuple[str, ...] = ()


def row_of(threshold: float, low: float, high: float) -> Row:
    """Return a row that the tool takes: threshold at least `SMALLEST`, extremes clipped at it around zero."""
    top = max(threshold, SMALLEST)
    return Row(top, min(0.0, max(low, -top)), max(0.0, min(high, top)))


def _line(name: str, row: Row) -> str:
    # Fixed-point, as the tool writes it; ten digits where it has seven, for thresholds near the smallest.
    return f"{name} {row.threshold:.10f} {row.low + 0.0:.10f} {row.high + 0.0:.10f}"


def table_text(table: Table) -> str:
    """Return the table as the tool reads it, the same to the byte for the same content."""
    lines = [*table.comments, "# op_name    threshold    min    max"]
    lines += [_line(name, row) for name, row in table.rows.items()]
    if table.int4:
        lines += ["", INT4, *(_line(name, row) for name, row in table.int4.items())]
    if table.asymmetric:
        lines += ["", ASYMMETRIC, *table.asymmetric]
    return "\n".join(lines) + "\n"


def write_table(path: Path | str, table: Table) -> None:
    """Write a table.

    Raises:
        KilnError: the disk is full.
    """
    write_text(path, table_text(table))


def normalised_comments(lines: Iterable[str]) -> tuple[str, ...]:
    """Return comment lines without what differs from run to run: the clock, and the folder of the .mlir."""
    kept = []
    for line in lines:
        if line.startswith("# op_name"):
            continue
        clock = _CLOCK.match(line)
        kept.append(f"{clock[1]}{_EPOCH}" if clock else _PATH.sub(r"\1\2", line))
    return tuple(kept)


def parse_table(text: str, file: Path | str = "table") -> Table:
    """Parse a table, the tool's or ours.

    Raises:
        KilnError: a line that is not a name and three numbers, a name twice, a number that is not finite, a
            threshold that is not positive, or a least value above the largest.
    """
    comments: list[str] = []
    rows: dict[str, Row] = {}
    int4: dict[str, Row] = {}
    asymmetric: list[str] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        line, where = line.strip(), f"line {number}"
        if line in (INT4, ASYMMETRIC):
            section = line
        elif line.startswith("#"):
            if not section:
                comments.append(line)
        elif line and section == ASYMMETRIC:
            asymmetric.append(line)
        elif line:
            name, row = _parse_row(line, file, where)
            into = int4 if section else rows
            if name in into:
                raise KilnError(f"names '{name}' twice", file=file, where=where, hint="leave one of them")
            into[name] = row
    if not rows:
        raise KilnError("has no thresholds", file=file, hint="is it a table of run_calibration?")
    return Table(rows, normalised_comments(comments), int4, tuple(asymmetric))


def _parse_row(line: str, file: Path | str, where: str) -> tuple[str, Row]:
    words = line.split(" ")
    if len(words) != 4:
        raise KilnError(
            "is not a name and three numbers with single blanks between",
            file=file,
            where=where,
            value=line[:80],
            hint="the tool splits lines at blanks: a name must hold none",
        )
    try:
        threshold, low, high = (float(word) for word in words[1:])
    except ValueError as error:
        raise KilnError(
            "has a number that is none",
            file=file,
            where=where,
            value=line[:80],
            hint="is it a table of thresholds? facekiln sophon calibrate --help",
        ) from error
    if not all(math.isfinite(value) and abs(value) <= _LARGEST for value in (threshold, low, high)):
        raise KilnError(
            f"has a number for '{words[0]}' that is not finite",
            file=file,
            where=where,
            value=" ".join(words[1:]),
            hint="check the weights and the calibration pictures",
        )
    if threshold <= 0 or low > high:
        raise KilnError(
            f"has a threshold of '{words[0]}' that is not positive, or a least value above the largest",
            file=file,
            where=where,
            value=" ".join(words[1:]),
        )
    return words[0], Row(threshold, low, high)


def read_table(path: Path | str) -> Table:
    """Read a table (see `parse_table`)."""
    return parse_table(read_text(path), path)


def check_table(table: Table, network: Mlir, file: Path | str = "table") -> None:
    """Check that a table is of a network: a row per result of every operator, and no other.

    Raises:
        KilnError: a row of no operator (the nearest is suggested), or an operator without a row.
    """
    names = [name for op in network.ops for name in op.names]
    for name in [*table.rows, *table.int4, *table.asymmetric]:
        try:
            known_in(network, name, names)
        except KilnError as error:
            raise KilnError(
                error.what, file=file, hint=f"is it the table of {network.file}? facekiln sophon calibrate"
            ) from None
    for op in network.ops:
        if op.name not in table.rows:
            raise KilnError(
                f"has no row for operator '{op.name}' ({op.kind})",
                file=file,
                limit=f"{len(network.ops)} operators of {network.file}",
                hint="facekiln sophon calibrate",
            )


def check_batch(table: Table, single: Table, file: Path | str, tolerance: float | None = 1e-3) -> float:
    """Check the table of a batch against that of single pictures: the same names, ranges and thresholds.

    A larger batch sees the same pictures, so that what it reaches is the same up to rounding.

    Args:
        table: of the batch.
        single: of single pictures.
        file: of the batch's, for messages.
        tolerance: largest difference of a threshold over the single one's; None: thresholds are not compared,
            only what the tensors reach (the tool's methods take each batch for one sample).

    Returns:
        The largest relative difference of a threshold.

    Raises:
        KilnError: other names, or a difference beyond the tolerance; names the tensor.
    """
    other = _difference(table.rows, single.rows)
    if other:
        raise KilnError(
            f"names other operators than the table of single pictures: '{other[0]}'",
            file=file,
            value=f"{len(other)} names",
            hint="transform both batches from the same ONNX file",
        )
    worst = 0.0
    for name, row in table.rows.items():
        one = single.rows[name]
        apart = abs(row.threshold - one.threshold) / one.threshold
        worst = max(worst, apart)
        reach = max(abs(one.low), abs(one.high), SMALLEST)
        spread = max(abs(row.low - one.low), abs(row.high - one.high)) / reach
        limit = 1e-3 if tolerance is None else tolerance
        if spread > limit or (tolerance is not None and apart > tolerance):
            raise KilnError(
                f"has another range of '{name}' than the table of single pictures",
                file=file,
                value=_line(name, row),
                limit=_line(name, one),
                hint="calibrate both on the same pictures",
            )
    return worst


def _difference(first: Mapping[str, Row], second: Mapping[str, Row]) -> Sequence[str]:
    return sorted(first.keys() ^ second.keys())
