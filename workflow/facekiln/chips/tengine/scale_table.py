"""Scale tables: text that Tengine's quant tools write, and take with `-f`: `name scale zero_point`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from facekiln.artifact import read_text, write_text
from facekiln.chips.tengine.format import Quant
from facekiln.errors import KilnError


def table_text(scales: Mapping[str, Quant]) -> str:
    """Return a table; six decimals as the tools print, and more where float32 would not survive in these.

    The tools read it with atof, so that they take the further digits too.

    Raises:
        KilnError: a name holds white space, at which the tools split.
    """
    for name in scales:
        _check_name(name)
    return "".join(f"{name} {_decimals(item.scale)} {item.zero_point}\n" for name, item in scales.items())


def _decimals(scale: float) -> str:
    return np.format_float_positional(np.float32(scale), unique=True, min_digits=6)


def _check_name(name: str) -> None:
    if not name or any(char.isspace() for char in name):
        raise KilnError(
            "a tensor's name is empty or holds a space, which breaks scale tables",
            value=repr(name),
            hint="export the network with other names",
        )


def write_table(path: Path | str, scales: Mapping[str, Quant]) -> None:
    """Write a table (see `table_text`)."""
    write_text(path, table_text(scales))


def read_table(path: Path | str, wanted: Iterable[str]) -> dict[str, Quant]:
    """Read a table, ours or the tools', and return the records of the wanted activations.

    Args:
        path: the table.
        wanted: names of all activations of the file that it is for.

    Raises:
        KilnError: a line that is not name, scale and zero point (above all a name with a space), a scale that
            is no finite number of 0 or more, a name that stands twice, or one that is missing.
    """
    found: dict[str, Quant] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        words, where = line.split(), f"line {number}"
        if len(words) != 3:
            raise KilnError(
                "is not `name scale zero_point`; a name with a space cannot be told",
                file=path,
                where=where,
                value=line,
                hint="rename the tensor",
            )
        try:
            scale, zero = float(words[1]), int(words[2])
        except ValueError:
            raise KilnError("scale or zero point is no number", file=path, where=where, value=line) from None
        if not math.isfinite(scale) or scale < 0:
            raise KilnError("the scale is negative or not finite", file=path, where=where, value=words[1])
        if words[0] in found:
            raise KilnError("stands twice", file=path, where=where, value=words[0])
        found[words[0]] = Quant(scale, zero)
    if missing := [name for name in wanted if name not in found]:
        raise KilnError(
            f"has no line for '{missing[0]}' and {len(missing) - 1} more",
            file=path,
            hint="is it the table of this file?",
        )
    return {name: found[name] for name in wanted}
