"""tpu_mlir's quantisation table: which operators are not computed in the file's own precision.

The form, as tpu_mlir 1.26 writes and reads it: comment lines, then `name mode`. The tool passes over names
that it does not know; here they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from facekiln.artifact import read_text, write_text
from facekiln.chips.sophon.mlir import Mlir, known_in
from facekiln.config import known
from facekiln.errors import KilnError

FLOATS = ("F32", "F16", "BF16")
# What `model_deploy --quantize` and the tool's searches write; float8, 4 and 16 bit are for newer chips.
MODES = (*FLOATS, "INT8", "INT4", "INT16", "W4INT8", "W8F16", "W4F16", "F8E4M3", "F8E5M2")
# By chip, what its compiler takes beside int8 (bm1684 ends with "Not Implemented" on others; measured, 1.26).
CHIP_FLOATS: Mapping[str, tuple[str, ...]] = {"bm1684": ("F32",)}
_CLOCK = re.compile(r"^# gen\w+ time: ")


@dataclass(frozen=True)
class Qtable:
    """Modes by operator, in the order of the rows, and comment lines without the clock."""

    modes: Mapping[str, str]
    comments: tuple[str, ...] = ()


def chip_floats(chip: str) -> tuple[str, ...]:
    """Return the float precisions that operators of a chip's int8 file may have."""
    return CHIP_FLOATS.get(chip, FLOATS)


def qtable_text(table: Qtable) -> str:
    """Return the table as the tool reads it, the same to the byte for the same content."""
    lines = [*table.comments, "# op_name   quantize_mode"]
    lines += [f"{name} {mode}" for name, mode in table.modes.items()]
    return "\n".join(lines) + "\n"


def write_qtable(path: Path | str, table: Qtable) -> None:
    """Write a table.

    Raises:
        KilnError: the disk is full.
    """
    write_text(path, qtable_text(table))


def _kept(comments: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line in comments if not _CLOCK.match(line) and not line.startswith("# op_name"))


def parse_qtable(text: str, file: Path | str = "qtable") -> Qtable:
    """Parse a table, the tool's or ours.

    A name twice with one mode is taken once: the tool's searches may write it so.

    Raises:
        KilnError: a line that is not a name and a mode, an unknown mode, or a name with two modes.
    """
    comments: list[str] = []
    modes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line, where = line.strip(), f"line {number}"
        if line.startswith("#"):
            comments.append(line)
            continue
        if not line:
            continue
        words = line.split()
        if len(words) != 2:
            raise KilnError(
                "is not a name and a mode",
                file=file,
                where=where,
                value=line[:80],
                hint="is it a table of operators? facekiln sophon plan --help",
            )
        name, mode = words
        try:
            known(mode, MODES, "quantisation mode")
        except KilnError as error:
            raise KilnError(error.what, file=file, where=where) from None
        if modes.setdefault(name, mode) != mode:
            raise KilnError(
                f"gives '{name}' two modes", file=file, where=where, value=mode, limit=modes[name]
            )
    return Qtable(modes, _kept(comments))


def read_qtable(path: Path | str) -> Qtable:
    """Read a table (see `parse_qtable`).

    Raises:
        KilnError: also where it is empty: one that keeps nothing in float says so in a comment.
    """
    text = read_text(path)
    if not text.strip():
        raise KilnError("is empty: was it cut off?", file=path, hint="make it: facekiln sophon plan --help")
    return parse_qtable(text, path)


def check_qtable(table: Qtable, network: Mlir, chip: str, file: Path | str = "qtable") -> None:
    """Check that a table is of a network and that the chip has its precisions.

    Raises:
        KilnError: a row of no operator (the nearest is suggested), or a float that the chip has not.
    """
    names = [op.name for op in network.ops]
    for name, mode in table.modes.items():
        try:
            known_in(network, name, names)
        except KilnError as error:
            raise KilnError(
                error.what, file=file, hint=f"is it the table of {network.file}? facekiln sophon plan"
            ) from None
        if mode in FLOATS and mode not in chip_floats(chip):
            raise KilnError(
                f"{chip} has no {mode}",
                file=file,
                where=name,
                limit=", ".join(chip_floats(chip)),
                hint="set mixed.precision in config/chips/sophon.yaml",
            )
