"""The comparisons that the tool prints while it compiles: quantised against float, chip against quantised.

Verbatim form (tpu_mlir 1.26 and 1.30, `npz_tool.py compare -vv`):

    [boxes_Concat                    ]      SIMILAR [PASSED]
        (1, 4420, 4) float32
        cosine_similarity      = 0.998049
        euclidean_similarity   = 0.937500
        sqnr_similarity        = 23.065548
    2 compared
    ...
    min_similiarity = (0.9980487823486328, 0.9375000892549529, 23.065547943115234)
    Target    x_model_outputs.npz
    Reference x_tpu_outputs.npz
    npz compare PASSED.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from facekiln.errors import KilnError

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|inf|nan)"
# The tool itself writes NOT_SIMLIAR.
_VERDICT = r"EQUAL|CLOSE|SIMILAR|NOT_MATCH|NOT_EQUAL|NOT_SIMLIAR|NOT_SIMILAR"
_TENSOR = re.compile(rf"\[(?P<name>[^\[\]]*?)\s*\]\s+(?P<verdict>{_VERDICT})\s+\[(?P<result>PASSED|FAILED)\]")
_SHAPE = re.compile(r"\((?P<shape>[\d, ]*)\)\s+(?P<dtype>[a-z]+\d*)")
_CLOSE = re.compile(r"close order\s*=\s*(?P<order>-?\d+)")
_FIGURE = re.compile(rf"(?P<what>cosine|euclidean|sqnr)_similarity\s*=\s*(?P<value>{_NUMBER})")
_COUNT = re.compile(r"(?P<count>\d+) (?P<what>compared|passed|failed)")
_LEAST = re.compile(rf"min_simili?arity\s*=\s*\((?P<values>{_NUMBER},\s*{_NUMBER},\s*{_NUMBER})\)")
_FILE = re.compile(r"(?P<what>Target|Reference)\s+(?P<file>\S.*)")
_END = re.compile(r"npz compare (?P<result>PASSED|FAILED)\.?")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Compared:
    """One tensor of a comparison.

    Attributes:
        name: the tool's.
        verdict: "EQUAL", "CLOSE", "SIMILAR", "NOT_MATCH", "NOT_EQUAL" or "NOT_SIMILAR".
        passed: whether it is within the tolerance.
        shape, dtype: as the tool prints them (it joins leading dimensions); None where it prints none.
        close_order: decimal places that agree, of a CLOSE one.
        cosine, euclidean: similarities, of a SIMILAR or NOT_SIMILAR one.
        sqnr: signal to quantisation noise, dB, likewise.
    """

    name: str
    verdict: str
    passed: bool
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    close_order: int | None = None
    cosine: float | None = None
    euclidean: float | None = None
    sqnr: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One comparison of two files of tensors.

    Attributes:
        target, reference: names of the files; None in forms that do not tell.
        tensors: in printed order.
        counts: of tensors "compared", "passed" and "failed", as the tool adds them.
        least: least cosine and euclidean similarity and least sqnr (dB; infinite where nothing differs).
        passed: the tool's verdict; None where its output ends before one.
    """

    target: str | None
    reference: str | None
    tensors: tuple[Compared, ...]
    counts: dict[str, int]
    least: tuple[float, float, float] | None
    passed: bool | None

    def as_json(self) -> dict[str, Any]:
        """Return it ready for JSON, where an infinite figure is the text "inf"."""
        tensors = [
            {key: _plain(value) for key, value in asdict(tensor).items() if value is not None}
            for tensor in self.tensors
        ]
        least = None
        if self.least:
            names = ("cosine", "euclidean", "sqnr")
            least = {name: _plain(value) for name, value in zip(names, self.least, strict=True)}
        return {
            "target": self.target,
            "reference": self.reference,
            "tensors": tensors,
            "counts": dict(self.counts),
            "least": least,
            "passed": self.passed,
        }


def parse_comparisons(text: str) -> list[Comparison]:
    """Find every comparison in a tool's log, whatever stands between: progress bars, colours, other lines.

    Args:
        text: what the tool printed, also with carriage returns.

    Returns:
        In printed order; one whose end is missing (the tool was killed) comes with `passed` None. Lines that
        are no part of a comparison are ignored.
    """
    found: list[Comparison] = []
    part = _Part()
    for line in _lines(text):
        if end := _END.search(line):
            found.append(part.comparison(end["result"] == "PASSED"))
            part = _Part()
        else:
            part.take(line)
    if part.started:
        found.append(part.comparison(None))
    return found


def check_passed(comparisons: Iterable[Comparison], file: str) -> None:
    """Check that there is at least one comparison and that each has passed.

    Raises:
        KilnError: none was printed, one was cut short, or one failed; names its worst tensor.
    """
    several = list(comparisons)
    if not several:
        raise KilnError("the tool printed no comparison, so nothing was proved", file=file)
    for one in several:
        what = f"{one.target} against {one.reference}"
        if one.passed is None:
            raise KilnError("the tool's comparison was cut short", file=file, where=what)
        failed = [tensor for tensor in one.tensors if not tensor.passed]
        if failed or not one.passed:
            worst = min(
                failed, key=lambda tensor: -1.0 if tensor.cosine is None else tensor.cosine, default=None
            )
            raise KilnError(
                f"the tool's comparison failed in {len(failed)} of {len(one.tensors)} tensors",
                file=file,
                where=what,
                value=f"{worst.name}: {worst.verdict}, cosine {worst.cosine}, sqnr {worst.sqnr} dB"
                if worst
                else None,
            )


class _Part:
    """A comparison as far as it has been read."""

    def __init__(self) -> None:
        self._tensors: list[Compared] = []
        self._counts: dict[str, int] = {}
        self._files: dict[str, str] = {}
        self._least: tuple[float, float, float] | None = None

    @property
    def started(self) -> bool:
        return bool(self._tensors or self._counts)

    def take(self, line: str) -> None:
        if tensor := _TENSOR.search(line):
            verdict = tensor["verdict"].replace("SIMLIAR", "SIMILAR")
            self._tensors.append(Compared(tensor["name"].strip(), verdict, tensor["result"] == "PASSED"))
        elif count := _COUNT.fullmatch(line):
            self._counts[count["what"]] = int(count["count"])
        elif least := _LEAST.fullmatch(line):
            first, second, third = (float(value) for value in least["values"].split(","))
            self._least = (first, second, third)
        elif self.started and (file := _FILE.fullmatch(line)):
            self._files[file["what"]] = file["file"]
        elif self._tensors and not self._counts:
            self._tensors[-1] = _with(self._tensors[-1], line)

    def comparison(self, passed: bool | None) -> Comparison:
        files = (self._files.get("Target"), self._files.get("Reference"))
        return Comparison(*files, tuple(self._tensors), self._counts, self._least, passed)


def _with(tensor: Compared, line: str) -> Compared:
    """Return a tensor with what a line beneath its verdict adds."""
    if tensor.shape is None and (shape := _SHAPE.fullmatch(line)):
        sides = tuple(int(side) for side in shape["shape"].split(",") if side.strip())
        return replace(tensor, shape=sides, dtype=shape["dtype"])
    if order := _CLOSE.fullmatch(line):
        return replace(tensor, close_order=int(order["order"]))
    if figure := _FIGURE.fullmatch(line):
        value = float(figure["value"])
        if figure["what"] == "cosine":
            return replace(tensor, cosine=value)
        return (
            replace(tensor, euclidean=value) if figure["what"] == "euclidean" else replace(tensor, sqnr=value)
        )
    return tensor


def _lines(text: str) -> Iterable[str]:
    for line in re.split(r"[\r\n]+", _ANSI.sub("", text)):
        stripped = line.strip()
        if stripped:
            yield stripped


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
