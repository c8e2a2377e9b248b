"""What two bmodels differ in: meaning first, then bytes; the build time alone is no difference."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.bmodel_format import Bmodel, Section, Stage
from facekiln.chips.sophon.inspect import describe_bmodel, section_sha256

# Of `describe_bmodel`: told elsewhere, or following from the rest.
_SKIPPED = ("bytes", "time", "tool", "tool_memory", "sections", "findings", "weights_sha256")
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """Where two files differ, and what each says."""

    where: str
    first: Any
    second: Any

    def sentence(self) -> str:
        """Return it as a line for a person."""
        return f"{self.where}: {self.first} | {self.second}"


@dataclass(frozen=True)
class Comparison:
    """How two files differ.

    Attributes:
        identical: every byte is equal.
        times: what each says of its build time.
        differences: all that differs but for the build time; empty where the files are the same to a chip.
    """

    identical: bool
    times: tuple[str, str]
    differences: list[Difference]

    @property
    def verdict(self) -> str:
        """The whole in words."""
        if self.identical:
            return "identical"
        if not self.differences:
            return f"identical but for the build time ({self.times[0]} | {self.times[1]})"
        return f"{len(self.differences)} differences"


def _keyed(values: list[Any]) -> dict[str, Any]:
    """Return a list's items by name where all have one of their own, else by place."""
    names = [item.get("name") if isinstance(item, dict) else None for item in values]
    if None not in names and len(set(names)) == len(names):
        return {f" '{name}'": item for name, item in zip(names, values, strict=True)}
    return {f" {place}": item for place, item in enumerate(values)}


def _walk(first: Any, second: Any, where: str) -> Iterator[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            if key not in _SKIPPED:
                name = f"{where}, {key.replace('_', ' ')}" if where else key.replace("_", " ")
                yield from _walk(first.get(key), second.get(key), name)
    elif (
        isinstance(first, list)
        and isinstance(second, list)
        and any(isinstance(item, dict) for item in (*first, *second))
    ):
        ours, theirs = _keyed(first), _keyed(second)
        if set(ours) == set(theirs) and list(ours) != list(theirs):
            yield Difference(f"{where}, order", _list(ours), _list(theirs))
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            one = where.removesuffix("s")
            if key in ours and key in theirs:
                yield from _walk(ours[key], theirs[key], f"{one}{key}")
            else:
                yield Difference(
                    f"{one}{key}", *("there" if key in side else "absent" for side in (ours, theirs))
                )
    elif first != second:
        yield Difference(where, first, second)


def _list(keyed: dict[str, Any]) -> str:
    return " ".join(key.strip() for key in keyed)


def _sections(first: Bmodel, second: Bmodel) -> Iterator[Difference]:
    ours = {section.where: section for section in first.sections}
    theirs = {section.where: section for section in second.sections}
    for where in [*ours, *(key for key in theirs if key not in ours)]:
        a, b = ours.get(where), theirs.get(where)
        told = f"{(a or b).kind} ({where.removeprefix('model.')})"  # type: ignore[union-attr]
        if a is None or b is None:
            yield Difference(told, *(f"{side.size:,} bytes" if side else "absent" for side in (a, b)))
        elif (hashes := (section_sha256(first.file, a), section_sha256(second.file, b)))[0] != hashes[1]:
            yield Difference(
                told, f"{a.size:,} bytes, {hashes[0][:16]}", f"{b.size:,} bytes, {hashes[1][:16]}"
            )


def _operators(first: Bmodel, second: Bmodel) -> Iterator[Difference]:
    """Tell how many operators' weights differ, stage by stage, where both files list the same ones."""
    for (net, ours), (_, theirs) in zip(first.stages, second.stages, strict=False):
        a, b = _operator_hashes(first.file, ours), _operator_hashes(second.file, theirs)
        if [name for name, _ in a] != [name for name, _ in b]:
            continue
        other = Counter(name for (name, one), (_, another) in zip(a, b, strict=True) if one != another)
        if other:
            names = ", ".join(f"{name} x{count}" for name, count in other.most_common(_NAMES_SHOWN))
            where = f"weights of net '{net.name}', batch {ours.batch} | {theirs.batch}, by operator"
            yield Difference(where, f"{other.total()} of {len(a)} differ", names)


def _operator_hashes(file: Path, stage: Stage) -> list[tuple[str, str]]:
    weights = stage.weights
    if weights is None:
        return []
    start, end = weights.section.start, weights.section.start + weights.section.size
    return [
        (name, section_sha256(file, Section(weights.section.where, start + offset, size)))
        for name, offset, size in weights.locations
        if start + offset + size <= end
    ]


def _bare_sha256(model: Bmodel) -> str:
    """Return the sha256 of a whole file with its build time blanked."""
    start, size = model.time_at
    digest = hashlib.sha256()
    with model.file.open("rb") as stream:
        digest.update(stream.read(start) + b" " * size)
        stream.seek(start + size)
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def compare(first: Bmodel, second: Bmodel) -> Comparison:
    """Compare two files by meaning, binaries and bytes.

    Args:
        first: read by `read_bmodel`; its file is read again.
        second: likewise.
    """
    times = (first.time, second.time)
    if sha256_of(first.file) == sha256_of(second.file):
        return Comparison(True, times, [])
    if _bare_sha256(first) == _bare_sha256(second):
        return Comparison(False, times, [])
    found = [
        *_walk(describe_bmodel(first), describe_bmodel(second), ""),
        *_sections(first, second),
        *_operators(first, second),
    ]
    if not found:
        found.append(
            Difference(
                "header, tables or padding", "bytes that no field above explains", "addresses or order"
            )
        )
    return Comparison(False, times, found)


def render_comparison(first: Bmodel, second: Bmodel, told: Comparison) -> list[str]:
    """Return lines for a person."""
    lines = [f"{first.file} | {second.file}", told.verdict]
    if told.differences and told.times[0] != told.times[1]:
        lines.append(f"  built: {told.times[0]} | {told.times[1]}")
    return lines + [f"  {difference.sentence()}" for difference in told.differences]
