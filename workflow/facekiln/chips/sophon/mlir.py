"""Read the text form of tpu_mlir's networks: which operators there are, in what order, of what element type.

Only what calibration and mixed precision need; the tool's own parser wants its own Python. The form, as
tpu_mlir 1.26 writes it: one operator a line, `%4 = "top.Relu"(%3) {...} : (types) -> type loc(#loc5)`, names
in aliases `#loc5 = loc("name")` at the end. An operator with several results has a fused location.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from facekiln.errors import KilnError
from facekiln.unreadable import readable_size, unreadable

# Operators that hold nothing to quantise.
_SILENT = {"None", "Weight", "WeightFile"}
_OPERATOR = re.compile(r'^\s*(?:(%[\w]+)(?::\d+)? = )?"(top|tpu)\.(\w+)"\((.*)$')
_OPERANDS = re.compile(r"^([^)]*)\)")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ALIAS = re.compile(r"^(#loc\d*) = loc\((.*)\)$")
_ATTRIBUTE = re.compile(r'module\.(\w+) = "([^"]*)"')
_ELEMENT = re.compile(r"tensor<(?:[\d?]+x)*(.+)>$")
_MOST = 64 << 20
# Names that a message suggests.
_NEAREST = 3

ELEMENTS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "i8": "INT8", "u8": "INT8", "i16": "INT16"}


@dataclass(frozen=True)
class MlirOp:
    """One operator.

    Attributes:
        name: its location, which is the name of its first result.
        names: of all its results.
        kind: "Conv", without the dialect.
        operands: names of the operators that feed it, weights left out.
        types: of its results, as written: `tensor<1x8x320x320xf32>`.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    operands: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def precision(self) -> str:
        """Return what its first result is: "INT8", "F16", ..., or the type where it is another."""
        return element_of(self.types[0])


@dataclass(frozen=True)
class Mlir:
    """A network: its operators in order, weights left out, and what its header says.

    Attributes:
        file: where it was read.
        ops: in order; inputs have the kind "Input".
        state: "TOP_F32" before quantisation, "TPU_LOWERED" and on after.
        chip: "bm1684x", or "ALL" before a chip is chosen.
        outputs: names of the results that the network returns.
    """

    file: Path
    ops: tuple[MlirOp, ...]
    state: str
    chip: str
    outputs: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, MlirOp]:
        """Operators by the name of each result; of repeated ones the last."""
        return {name: op for op in self.ops for name in op.names}

    def op(self, name: str) -> MlirOp:
        """Return an operator.

        Raises:
            KilnError: there is none of that name; the nearest are suggested.
        """
        return self.by_name[known_in(self, name, self.by_name)]


def known_in(network: Mlir, name: str, names: Iterable[str], kind: str = "operator") -> str:
    """Return `name` if it is one of a network's names.

    Args:
        network: says where all names can be read.
        name: the one in question.
        names: hundreds, so that `facekiln.config.known` would fill the screen with them.
        kind: of what, for the message.

    Raises:
        KilnError: it is not; the message suggests the nearest three and says where all are.
    """
    choices = list(names)
    if name in choices:
        return name
    near = [f"'{one}'" for one in difflib.get_close_matches(name, choices, n=_NEAREST, cutoff=0.5)]
    suggestion = f"; did you mean {' or '.join(near)}?" if near else ""
    raise KilnError(
        f"unknown {kind} '{name}'{suggestion}",
        value=f"none of {len(choices)} names",
        hint=f'all operators stand in {network.file}, as loc("NAME")',
    )


def element_of(kind: str) -> str:
    """Return the precision of a tensor type: "INT8" for quantised 8 bit, "F16", "F32", "BF16", "INT16".

    Calibrated types are floats whose range is known; other element types are given as they are.
    """
    found = _ELEMENT.match(kind)
    element = found[1] if found else kind
    if element.startswith(("!quant.uniform<", "!quant.calibrated<")):
        element = re.split(r"[:<,]", element.partition("<")[2])[0]
    return ELEMENTS.get(element, element)


def _aliases(lines: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the names behind each location alias; a fused one has several."""
    raw = {found[1]: found[2] for line in lines if (found := _ALIAS.match(line))}
    return {alias: _names(text, raw) for alias, text in raw.items()}


def _names(text: str, raw: dict[str, str], depth: int = 0) -> tuple[str, ...]:
    if depth > 8:
        return ()
    if text.startswith("fused"):
        inner = text[text.find("[") + 1 : text.rfind("]")]
        parts = re.findall(r'"(?:[^"\\]|\\.)*"|#loc\d*', inner)
        return tuple(name for part in parts for name in _names(part, raw, depth + 1))
    if text.startswith("#"):
        return _names(raw.get(text, ""), raw, depth + 1)
    found = _NAME.match(text)
    return (found[1].replace('\\"', '"').replace("\\\\", "\\"),) if found else ()


def _results(text: str) -> tuple[str, ...]:
    """Return the result types after the last arrow of an operator's line."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    found, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "<([") - (letter in ">)]" and text[at - 1 : at] != "-")
        if letter == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
    return tuple(part for part in (*found, text[start:].strip()) if part and part != "none")


def parse_mlir(text: str, file: Path | str = "mlir") -> Mlir:
    """Parse a network's text.

    Raises:
        KilnError: it has no operators, or one without a name.
    """
    lines = text.splitlines()
    aliases = _aliases(lines)
    header = dict(_ATTRIBUTE.findall(next((line for line in lines if "module.state" in line), "")))
    ops: list[MlirOp] = []
    owners: dict[str, tuple[str, ...]] = {}
    returned: list[str] = []
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*return |\s*\"func.return\"", line):
            returned += re.findall(r"%\w+(?:#\d+)?", line.partition(":")[0])
        found = _OPERATOR.match(line)
        arrow, place = line.rfind(" -> "), line.rfind(" loc(")
        if not found or found[3] in _SILENT or arrow < 0 or place < arrow:
            continue
        inside = line[place + 5 : line.rfind(")")]
        names = aliases.get(inside) or _names(inside, {})
        types = _results(line[arrow + 4 : place])
        if not types:
            continue
        if not names:
            raise KilnError(
                f"operator tpu_mlir.{found[3]} has no name",
                file=file,
                where=f"line {number}",
                hint="was the file cut off? Make it again: facekiln sophon transform --help",
            )
        given = _OPERANDS.match(found[4])
        fed = [owners.get(one) for one in re.findall(r"%\w+(?:#\d+)?", given[1] if given else "")]
        ops.append(MlirOp(names[0], names, found[3], tuple(one[0] for one in fed if one), types))
        if found[1]:
            owners[found[1]] = names
            owners |= {f"{found[1]}#{at}": (name,) for at, name in enumerate(names)}
    if not ops:
        raise KilnError(
            "holds no operators of tpu_mlir", file=file, hint="is it a .mlir of `facekiln sophon transform`?"
        )
    outputs = tuple(owners[one][0] for one in returned if one in owners)
    return Mlir(Path(file), tuple(ops), header.get("state", ""), header.get("chip", ""), outputs)


def read_mlir(path: Path | str) -> Mlir:
    """Read a network (see `parse_mlir`).

    Raises:
        KilnError: it cannot be read, is larger than 64 MiB, or `parse_mlir` refuses it.
    """
    try:
        if readable_size(path) > _MOST:
            raise KilnError("is too large for a network's text", file=path, limit=f"{_MOST} bytes")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise KilnError(f"is no .mlir text: {error}", file=path, hint="name the .mlir itself") from error
    return parse_mlir(text, path)
