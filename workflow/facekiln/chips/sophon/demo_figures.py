"""What sophon-demo publishes of its samples on boards: config/published.yaml, `sophon_demo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facekiln.chips.sophon.artifacts import Artifact
from facekiln.config import DEFAULT_FOLDER
from facekiln.evaluation.published import published_section


@dataclass(frozen=True)
class DemoRow:
    """What the vendor's sample publishes of one file.

    Attributes:
        easy: average precision on WIDER FACE's easy faces, 0..1, by the sample's program.
        milliseconds: per picture, `calculate time` of bmrt_test over the batch; None where there is none.
    """

    chip: str
    precision: str
    batch: int
    cores: int = 1
    easy: Mapping[str, float] = field(default_factory=dict)
    milliseconds: float | None = None


@dataclass(frozen=True)
class Demo:
    """All that the sample publishes of one model and size, with its protocol in words."""

    model: str
    size: str
    words: str
    source: str
    rows: tuple[DemoRow, ...]

    @property
    def programs(self) -> list[str]:
        """The sample's programs, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.easy))

    def row(self, artifact: Artifact) -> DemoRow | None:
        """Return what is published of such a file."""
        key = (artifact.chip, artifact.precision, artifact.batch, artifact.cores)
        return next(
            (row for row in self.rows if (row.chip, row.precision, row.batch, row.cores) == key), None
        )


def load_demo(folder: Path | str = DEFAULT_FOLDER) -> list[Demo]:
    """Return the section `sophon_demo` of published.yaml (see `published_section`)."""
    return [
        Demo(**{**item, "size": str(item["size"]), "rows": _rows(item["rows"])})
        for item in published_section("sophon_demo", folder)
    ]


def _rows(items: Sequence[dict[str, Any]]) -> tuple[DemoRow, ...]:
    return tuple(DemoRow(**item) for item in items)
