"""How the maps of a chip's network form the model's outputs.

A detector's ONNX graph ends in outputs [1, N, values]: N priors of 4 box, 2 score or 10 landmark values.
Chips' tools cannot make those, so their networks end in one map [1, channels, H, W] per level and output. A
`HeadMap` says how the values of one map are laid out; `assemble` makes the canonical outputs and `split` goes
back. The order of priors is that of `facekiln.vision.priors`: level, row, column, anchor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError

ORDERS = ("anchor_major", "value_major", "plain")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class HeadMap:
    """One output blob of a network, and what it is of the model's outputs.

    Attributes:
        blob: the blob's name.
        output: the model's output that it is a part of.
        level: its place among that output's maps, 0 = first priors.
        stride: input pixels per cell; 0 for "plain".
        cells: (H, W) of the map; (1, 1) for a plain vector, which a plain map of one cell counts as.
        anchors: priors per cell.
        values: values per prior.
        order: "anchor_major": channel = anchor * values + value; "value_major": channel = value * anchors +
            anchor; "plain": the blob is the whole output, [1, values] or [1, values, H, W].
    """

    blob: str
    output: str
    level: int
    stride: int
    cells: tuple[int, int]
    anchors: int
    values: int
    order: str

    def __post_init__(self) -> None:
        """Refuse an unknown order and sizes below one."""
        where = f"head '{self.blob}'"
        if self.order not in ORDERS:
            raise KilnError("unknown order", where=where, value=self.order, limit=", ".join(ORDERS))
        if len(self.cells) != 2 or min(*self.cells, self.anchors, self.values) < 1:
            raise KilnError("a size is below one", where=where, value=(self.cells, self.anchors, self.values))
        if self.order == "plain" and self.anchors != 1:
            raise KilnError("a plain output has no anchors", where=where, value=self.anchors)

    @property
    def shape(self) -> list[int]:
        """The blob's shape, [1, channels, H, W]; a plain vector's is [1, values]."""
        if self.order == "plain" and self.cells == (1, 1):
            return [1, self.values]
        return [1, self.anchors * self.values, *self.cells]

    @property
    def priors(self) -> int:
        """How many priors the map has."""
        return self.cells[0] * self.cells[1] * self.anchors


def _by_output(heads: Sequence[HeadMap]) -> dict[str, list[HeadMap]]:
    """Group by output, in order of first appearance, each group by level.

    Raises:
        KilnError: two maps of one level, maps that disagree on `values`, or a plain output in parts.
    """
    groups: dict[str, list[HeadMap]] = {}
    for head in heads:
        groups.setdefault(head.output, []).append(head)
    for output, group in groups.items():
        group.sort(key=lambda head: head.level)
        if len({head.level for head in group}) != len(group):
            raise KilnError("two maps are of the same level", where=f"output '{output}'")
        if len({head.values for head in group}) != 1:
            raise KilnError("its maps have different numbers of values", where=f"output '{output}'")
        if len(group) > 1 and any(head.order == "plain" for head in group):
            raise KilnError("a plain output must be one blob", where=f"output '{output}'")
    return groups


def _from_map(head: HeadMap, blob: NDArray[Any]) -> NDArray[Any]:
    """[B, channels, H, W] -> [B, priors, values]; a plain blob keeps its values."""
    batch = blob.shape[0] if blob.ndim else 0
    if batch < 1 or blob.size != batch * head.priors * head.values:
        raise KilnError(
            "the blob has not the size that its head says",
            where=f"head '{head.blob}'",
            value=list(blob.shape),
            limit=head.shape,
        )
    if head.order == "plain":
        return blob.reshape(batch, *head.shape[1:])
    if head.order == "anchor_major":
        split = blob.reshape(batch, head.anchors, head.values, *head.cells).transpose(0, 3, 4, 1, 2)
    else:
        split = blob.reshape(batch, head.values, head.anchors, *head.cells).transpose(0, 3, 4, 2, 1)
    return split.reshape(batch, head.priors, head.values)


def _to_map(head: HeadMap, part: NDArray[Any]) -> NDArray[Any]:
    """[B, priors, values] -> [B, channels, H, W]."""
    batch = part.shape[0]
    if head.order == "plain":
        return part.reshape(batch, *head.shape[1:])
    split = part.reshape(batch, *head.cells, head.anchors, head.values)
    order = (0, 3, 4, 1, 2) if head.order == "anchor_major" else (0, 4, 3, 1, 2)
    return np.ascontiguousarray(split.transpose(order).reshape(batch, -1, *head.cells))


def assemble(blobs: Arrays, heads: Sequence[HeadMap]) -> dict[str, NDArray[Any]]:
    """Form the model's outputs from a network's blobs.

    Args:
        blobs: blob name -> [B, channels, H, W], or any shape of that size whose first axis is the batch.
        heads: what each blob is; their order does not matter.

    Returns:
        output name -> [B, N, values], N in order level, row, column, anchor; a plain one as `HeadMap.shape`.

    Raises:
        KilnError: a blob is missing or has another size than its head says.
    """
    missing = [head.blob for head in heads if head.blob not in blobs]
    if missing:
        raise KilnError(f"the network gave no blob '{missing[0]}'", value=f"gave {', '.join(blobs)}")
    result: dict[str, NDArray[Any]] = {}
    for output, group in _by_output(heads).items():
        parts = [_from_map(head, blobs[head.blob]) for head in group]
        result[output] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return result


def split(outputs: Arrays, heads: Sequence[HeadMap]) -> dict[str, NDArray[Any]]:
    """Cut the model's outputs into a network's blobs: the inverse of `assemble`.

    Args:
        outputs: output name -> [B, N, values].
        heads: what each blob is.

    Returns:
        blob name -> [B, channels, H, W].

    Raises:
        KilnError: an output is missing or has another size than its heads say.
    """
    result: dict[str, NDArray[Any]] = {}
    for output, group in _by_output(heads).items():
        if output not in outputs:
            raise KilnError(f"no output '{output}' was given", limit=", ".join(outputs))
        whole = outputs[output]
        total = sum(head.priors for head in group) * group[0].values
        if whole.ndim < 2 or whole.size != whole.shape[0] * total:
            raise KilnError(
                "has not the size that its heads say",
                where=f"output '{output}'",
                value=list(whole.shape),
                limit=f"{total} values",
            )
        rows = whole.reshape(whole.shape[0], -1, group[0].values)
        start = 0
        for head in group:
            result[head.blob] = _to_map(head, rows[:, start : start + head.priors])
            start += head.priors
    return result


def heads_to_json(heads: Sequence[HeadMap]) -> dict[str, Any]:
    """Return the JSON value of a `.heads.json` file."""
    return {"heads": [{**asdict(head), "cells": list(head.cells)} for head in heads]}


def heads_from_json(value: Any) -> list[HeadMap]:
    """Return the heads of a `.heads.json` file's value.

    Raises:
        KilnError: it is not of that form, or the maps of an output do not go together.
    """
    entries = value.get("heads") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not entries:
        raise KilnError(
            "is not a heads file: it has no list `heads`", hint="rebuild it: facekiln caffe convert"
        )
    names = {field.name for field in fields(HeadMap)}
    heads = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or set(entry) != names or not isinstance(entry["cells"], list):
            raise KilnError("is not a head", where=f"heads[{place}]", limit=", ".join(sorted(names)))
        numbers = [entry["level"], entry["stride"], entry["anchors"], entry["values"], *entry["cells"]]
        if not all(type(number) is int for number in numbers):
            raise KilnError("a size is not a whole number", where=f"heads[{place}]", value=numbers)
        heads.append(HeadMap(**{**entry, "cells": tuple(entry["cells"])}))
    _by_output(heads)
    return heads
