"""A dataset cut into shards of consecutive pictures, and their predictions put together again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.errors import KilnError
from facekiln.predictions.store import Predictions, join, read_predictions, write_predictions

_KEY = "shard"
_ABSENT = "(absent)"


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `total`; 1 of 1 is the whole."""

    number: int = 1
    total: int = 1

    def of(self, pictures: int) -> range:
        """Return the indices of its pictures; sizes of shards differ by one at most."""
        return range(
            (self.number - 1) * pictures // self.total,
            self.number * pictures // self.total,
        )

    def meta(self) -> dict[str, Any]:
        """Return its part of predictions' `meta`: nothing for the whole."""
        return {} if self.total == 1 else {_KEY: [self.number, self.total]}


def parse_shard(text: str) -> Shard:
    """Parse `2/8`, or Snakemake's `2-of-8`.

    Raises:
        KilnError: another form, or a number outside 1..total.
    """
    found = re.fullmatch(r"(\d{1,6})(?:/|-of-)(\d{1,6})", text)
    shard = Shard(int(found[1]), int(found[2])) if found else None
    if shard is None or not 1 <= shard.number <= shard.total:
        raise KilnError("is no shard", where="--shard", value=text, limit="like 2/8: 1/8 to 8/8")
    return shard


def _number_and_total(value: Any, folder: Path) -> tuple[int, int]:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(item, int) for item in value)
    ):
        raise KilnError("does not say which shard it is", file=folder, where=_KEY, value=value)
    return value[0], value[1]


def merge(folders: Sequence[Path], output: Path) -> Predictions:
    """Put the predictions of all shards together, in dataset order, whatever order they are given in.

    Args:
        folders: predictions of every shard of one run.
        output: a folder, which is replaced; its files have the same bytes as those of a run without shards.

    Raises:
        KilnError: a shard is missing or given twice, or one is of another run; names it and what differs.
    """
    parts = {}
    metas = {}
    for folder in folders:
        part = read_predictions(folder)
        number, total = _number_and_total(part.meta.get(_KEY, [1, 1]), folder)
        if total != len(folders) or number in parts:
            raise KilnError(
                "these are not all shards of one run, each once",
                file=folder,
                value=f"shard {number} of {total}; {len(folders)} folders",
                hint="give the folders of shards 1 to N of one `facekiln predict run --shard`",
            )
        parts[number] = part
        metas[number] = {key: value for key, value in part.meta.items() if key not in (_KEY, "images")}
        here, first = metas[number], metas[min(metas)]
        different = sorted(
            key for key in {*here, *first} if here.get(key, _ABSENT) != first.get(key, _ABSENT)
        )
        if different:
            raise KilnError(
                f"is of another run: {', '.join(different)} differ",
                file=folder,
                value=[here.get(key, _ABSENT) for key in different],
                hint="predict all shards again with the same settings",
            )
    ordered = [parts[number] for number in sorted(parts)]
    whole = join(ordered, {**metas[1], "images": sum(len(part) for part in ordered)})
    write_predictions(output, whole)
    return whole
