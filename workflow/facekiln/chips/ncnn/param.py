"""The `.param` file: a graph as text, one layer per line.

Facts: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. Line 1 is the magic, line 2 the
numbers of layers and blobs, then `type name inputs outputs <input blobs> <output blobs> key=value ...`. An
array has the key -23300 - id and the value `count,v1,v2,...`. A value is kept as it is written, so that
reading and writing again gives the same values to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from facekiln.artifact import read_bytes, write_text
from facekiln.errors import KilnError

MAGIC = "7767517"
_ARRAY = -23300
# ncnn reads names into buffers of 256 characters, and parameter ids below 32.
NAME_LIMIT, ID_LIMIT = 255, 32
_COUNT_LIMIT = 1 << 20


@dataclass(frozen=True)
class Layer:
    """One line of the graph.

    Attributes:
        type, name: e.g. "Convolution", "conv_0".
        bottoms, tops: blobs that it reads and makes.
        params: id -> value as written; an array is its values joined by commas, without their count.
        arrays: the ids whose values are arrays.
    """

    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: dict[int, str] = field(default_factory=dict)
    arrays: frozenset[int] = frozenset()

    def integer(self, key: int, default: int = 0) -> int:
        """Return a parameter as an integer.

        Raises:
            KilnError: it is none.
        """
        value = self.params.get(key)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError as error:
            raise KilnError(f"parameter {key} is no integer", where=self.name, value=value) from error

    def floats(self, key: int) -> list[float]:
        """Return an array parameter; empty where it is absent.

        Raises:
            KilnError: it holds something else than finite numbers.
        """
        value = self.params.get(key, "")
        try:
            numbers = [float(one) for one in value.split(",")] if value else []
        except ValueError as error:
            raise KilnError(f"parameter {key} is no list of numbers", where=self.name, value=value) from error
        if not all(map(math.isfinite, numbers)):
            raise KilnError(f"parameter {key} is not finite", where=self.name, value=value)
        return numbers

    def line(self) -> str:
        """Return the line as ncnn's own tools lay it out, parameters by falling id as pnnx does not mind."""
        blobs = [*self.bottoms, *self.tops]
        words = [f"{self.type:<24} {self.name:<24} {len(self.bottoms)} {len(self.tops)}", *blobs]
        for key in sorted(self.params):
            value = self.params[key]
            if key in self.arrays:
                count = len(value.split(",")) if value else 0
                words.append(f"{_ARRAY - key}={count}" + (f",{value}" if value else ""))
            else:
                words.append(f"{key}={value}")
        return " ".join(words)


@dataclass(frozen=True)
class Graph:
    """The layers in their order, which is the order of execution and of weights in the `.bin`."""

    layers: tuple[Layer, ...]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def blobs(self) -> list[str]:
        """Return the blobs in the order of their indices (that in which layers make them)."""
        return [blob for layer in self.layers for blob in layer.tops]

    def inputs(self) -> list[str]:
        """Return the blobs that Input layers make."""
        return [blob for layer in self.layers if layer.type == "Input" for blob in layer.tops]

    def outputs(self) -> list[str]:
        """Return the blobs that no layer reads, in the order of their indices."""
        read = {blob for layer in self.layers for blob in layer.bottoms}
        return [blob for blob in self.blobs() if blob not in read]

    def text(self) -> str:
        """Return the whole file."""
        lines = [MAGIC, f"{len(self.layers)} {len(self.blobs())}", *(layer.line() for layer in self.layers)]
        return "\n".join(lines) + "\n"


def parse_param(text: str, file: Path | str = "param") -> Graph:
    """Parse a `.param` file's text and check that its blobs fit together.

    Raises:
        KilnError: not such a file, cut short, or its counts, names, blobs or parameters are wrong; names the
            line.
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != MAGIC:
        first = lines[0][:40] if lines else ""
        raise KilnError(
            "is no ncnn .param text",
            file=file,
            where="line 1",
            value=repr(first),
            limit=MAGIC,
            hint="a binary .param.bin holds no names; use the text file that it was made from",
        )
    layers_told, blobs_told = _counts(lines[1] if len(lines) > 1 else "", file)
    rows = [(number, line) for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(rows) != layers_told:
        raise KilnError(
            "has another number of layers than it says",
            file=file,
            where="line 2",
            value=len(rows),
            limit=layers_told,
            hint="the file was cut short or edited",
        )
    graph = Graph(tuple(_layer(line, file, number) for number, line in rows))
    _check(graph, [number for number, _ in rows], file)
    if len(graph.blobs()) != blobs_told:
        raise KilnError(
            "has another number of blobs than it says",
            file=file,
            where="line 2",
            value=len(graph.blobs()),
            limit=blobs_told,
        )
    return graph


def _counts(line: str, file: Path | str) -> tuple[int, int]:
    words = line.split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) < 8 for word in words):
        raise KilnError(
            "has no numbers of layers and blobs", file=file, where="line 2", value=repr(line[:40])
        )
    layers, blobs = map(int, words)
    if not 0 < layers <= _COUNT_LIMIT or not 0 < blobs <= _COUNT_LIMIT:
        raise KilnError(
            "has impossible numbers of layers and blobs",
            file=file,
            where="line 2",
            value=line,
            limit=f"1 to {_COUNT_LIMIT}",
        )
    return layers, blobs


def _layer(line: str, file: Path | str, number: int) -> Layer:
    words, where = line.split(), f"line {number}"
    counts = words[2:4]
    if len(counts) < 2 or not all(word.isascii() and word.isdigit() and len(word) < 8 for word in counts):
        raise KilnError("is no `type name inputs outputs ...`", file=file, where=where, value=repr(line[:60]))
    bottoms, tops = map(int, counts)
    rest = words[4:]
    if len(rest) < bottoms + tops:
        raise KilnError("names fewer blobs than it says", file=file, where=where, value=repr(line[:60]))
    params: dict[int, str] = {}
    arrays: set[int] = set()
    for word in rest[bottoms + tops :]:
        key, array, value = _param(word, file, where)
        if key in params:
            raise KilnError(f"gives parameter {key} twice", file=file, where=where)
        params[key] = value
        if array:
            arrays.add(key)
    names = [words[0], words[1], *rest[: bottoms + tops]]
    if any(len(name) > NAME_LIMIT for name in names):
        raise KilnError("has a name that is too long", file=file, where=where, limit=NAME_LIMIT)
    return Layer(
        words[0],
        words[1],
        tuple(rest[:bottoms]),
        tuple(rest[bottoms : bottoms + tops]),
        params,
        frozenset(arrays),
    )


def _param(word: str, file: Path | str, where: str) -> tuple[int, bool, str]:
    key, equals, value = word.partition("=")
    try:
        number = int(key)
    except ValueError:
        number = ID_LIMIT
    array = number <= _ARRAY
    number = _ARRAY - number if array else number
    if not equals or not value or not 0 <= number < ID_LIMIT:
        raise KilnError(
            "has a parameter that is no `id=value`",
            file=file,
            where=where,
            value=repr(word[:40]),
            limit=f"ids 0 to {ID_LIMIT - 1}, arrays as -23300 - id",
        )
    if array:
        count, _, value = value.partition(",")
        if not count.isdigit() or int(count) != (len(value.split(",")) if value else 0):
            raise KilnError(
                f"array {number} has another number of values than it says",
                file=file,
                where=where,
                value=repr(word[:40]),
            )
    return number, array, value


def _check(graph: Graph, numbers: list[int], file: Path | str) -> None:
    made: set[str] = set()
    used: set[str] = set()
    for number, layer in zip(numbers, graph, strict=True):
        where = f"line {number}, layer '{layer.name}'"
        for blob in layer.bottoms:
            if blob not in made:
                raise KilnError(f"reads blob '{blob}' that no layer before it makes", file=file, where=where)
            if blob in used:
                raise KilnError(
                    f"reads blob '{blob}' that another layer has read",
                    file=file,
                    where=where,
                    hint="ncnn wants a Split layer between them",
                )
            used.add(blob)
        for blob in layer.tops:
            if blob in made:
                raise KilnError(f"makes blob '{blob}' a second time", file=file, where=where)
            made.add(blob)


def read_param(path: Path | str) -> Graph:
    """Read a `.param` text file (see `parse_param`).

    Raises:
        KilnError: missing, no text, or wrong.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KilnError(
            "is no ncnn .param text",
            file=path,
            hint="a binary .param.bin holds no names; use the text file that it was made from",
        ) from error
    return parse_param(text, path)


def write_param(path: Path | str, graph: Graph) -> None:
    """Write a `.param` text file.

    Raises:
        KilnError: the disk is full.
    """
    write_text(path, graph.text())
