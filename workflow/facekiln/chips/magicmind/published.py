"""What Cambricon publishes of its cards' throughput: config/published.yaml, `magicmind`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facekiln.config import DEFAULT_FOLDER
from facekiln.evaluation.published import published_section


@dataclass(frozen=True)
class PublishedRow:
    """Images per second of one mode and batch on one card."""

    card: str
    precision: str
    batch: int
    images_per_second: float


@dataclass(frozen=True)
class PublishedThroughput:
    """All that is published of one model and input size (height, width), with its protocol in words."""

    model: str
    size: tuple[int, int]
    words: str
    source: str
    rows: tuple[PublishedRow, ...]


def load_throughput(folder: Path | str = DEFAULT_FOLDER) -> list[PublishedThroughput]:
    """Return the section `magicmind` of published.yaml (see `published_section`)."""
    return [
        PublishedThroughput(
            item["model"],
            (item["size"][0], item["size"][1]),
            item["words"],
            item["source"],
            tuple(
                PublishedRow(card, mode, int(batch), value)
                for card, modes in item["images_per_second"].items()
                for mode, batches in modes.items()
                for batch, value in batches.items()
            ),
        )
        for item in published_section("magicmind", folder)
    ]
