"""Lines of "name  min = ...  max = ...  avg = ..." that ncnn's and Tengine's benchmark programs share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from facekiln.boards.log_lines import fail, figure, read_lines
from facekiln.boards.timing import Stats
from facekiln.errors import KilnError

# "%20s  min = %7.2f  max = %7.2f  avg = %7.2f", in Tengine's with " ms" after each figure.
_LINE = re.compile(
    r"\s*(?P<name>\S.*?)\s+min =\s*(?P<min>\S+)(?P<unit>(?: ms)?)\s+max =\s*(?P<max>\S+)(?P=unit)"
    r"\s+avg =\s*(?P<avg>\S+)(?P=unit)"
)
_TWO_DECIMALS = re.compile(r"\d+\.\d\d")


@dataclass(frozen=True)
class Result:
    """One line: the model's name as printed, its figures in milliseconds, and the line's number."""

    name: str
    stats: Stats
    line: int


def parse_results(tool: str, text: str) -> list[Result]:
    """Return the result lines of a log.

    Raises:
        KilnError: a line that should be a result is not whole, or its figures are out of order.
    """
    results = []
    for line in read_lines(text):
        if "min =" not in line.text and "avg =" not in line.text:
            continue
        match = _LINE.fullmatch(line.text.rstrip())
        if match is None or not all(_TWO_DECIMALS.fullmatch(match[key]) for key in ("min", "max", "avg")):
            raise fail(
                tool, "a result line is not whole: it was cut or mixed with another", line.number, line.text
            )
        low, high, mean = (figure(tool, match[key], line.number, key) for key in ("min", "max", "avg"))
        try:
            results.append(Result(match["name"], Stats(mean, low, high), line.number))
        except KilnError as error:
            raise fail(tool, error.what, line.number, line.text) from error
    return results


def one_result(tool: str, results: list[Result], name: str | None) -> Result:
    """Return the only result, or the one of a name.

    Raises:
        KilnError: there is none, or several and no name.
    """
    found = [result for result in results if name in (None, result.name)]
    if len(found) != 1:
        names = ", ".join(result.name for result in results) or "no result"
        raise fail(
            tool, "say which model's result is meant" if found else "the result is not there", value=names
        )
    return found[0]
