"""Figures that others published about the same weights, and how far their protocol is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of
from facekiln.config import DEFAULT_FOLDER, check, read_yaml
from facekiln.evaluation.stamp import Evaluation
from facekiln.provenance import read_record

FILE = "published.yaml"
# A source that does not state these has not said what its figures mean.
_ESSENTIAL = ("evaluator", "dataset", "images", "resize", "size", "score_threshold", "nms_iou")
_ESSENTIAL_FOR_LANDMARKS = ("evaluator", "dataset", "images", "resize", "size")
# Our "port" and MATLAB's evaluators differ by up to 0.12 points, so the evaluator counts too.
_WORDS = {"score_threshold": "threshold", "nms_iou": "NMS", "top_k": "top-k", "images": "pictures"}


@dataclass(frozen=True)
class Figure:
    """One published row.

    Attributes:
        model: name in config/models/.
        weights: sha256 of the published file.
        task: as in a protocol stamp.
        precision: "float", "float16", "int16" or "int8".
        results: as published, 0..1.
        protocol: the stamp's fields that the source states.
        words: the protocol in the source's terms.
        source: where it is published.
        chip: its folder below results/, where the figure is of a chip.
    """

    model: str
    weights: str
    task: str
    precision: str
    results: dict[str, float]
    protocol: dict[str, Any]
    words: str
    source: str
    chip: str | None = None

    def differences(self, evaluation: Evaluation) -> list[str]:
        """Return in what it differs from one of ours, in words; empty where the protocols are the same."""
        own = {**evaluation.stamp.as_dict()}
        told = [
            f"other {_WORDS.get(name, name)} ({_short(value)}, here {_short(own[name])})"
            for name, value in self.protocol.items()
            if own[name] != value
        ]
        if self.precision != evaluation.subject["precision"]:
            told.append(f"other precision ({self.precision}, here {evaluation.subject['precision']})")
        essential = _ESSENTIAL if self.task != "landmarks" else _ESSENTIAL_FOR_LANDMARKS
        told += [f"{_WORDS.get(name, name)} not stated" for name in essential if name not in self.protocol]
        return told

    def note(self, evaluation: Evaluation) -> str:
        """Return how comparable it is: "same protocol", or what differs."""
        return "; ".join(self.differences(evaluation)) or "same protocol"


def _short(value: Any) -> str:
    if value is None:
        return "own"
    return "x".join(map(str, value)) if isinstance(value, list) else f"{value}"


def published_files(folder: Path | str = DEFAULT_FOLDER) -> list[Path]:
    """Return the file that `published_section` reads, or nothing where there is none."""
    file = Path(folder) / FILE
    return [file] if file.exists() else []


def published_section(name: str, folder: Path | str = DEFAULT_FOLDER) -> list[dict[str, Any]]:
    """Return a section of published.yaml of a config folder; empty where it or the file is not there.

    Raises:
        KilnError: the file is not YAML or breaks workflow/schemas/published.yaml.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return []
    return list(check(read_yaml(file), "published", file).get(name, []))


def load_published(folder: Path | str = DEFAULT_FOLDER) -> list[Figure]:
    """Return the figures of published.yaml (see `published_section`)."""
    return [Figure(**item) for item in published_section("figures", folder)]


def published_for(
    evaluation: Evaluation, figures: list[Figure], results: Path | str = "results"
) -> Figure | None:
    """Return the published row to show beside one of ours: of the same weights, and of the nearest protocol.

    Args:
        evaluation: ours.
        figures: all published rows.
        results: the folder that artifacts lie below; their sidecars say which weights they descend from.

    Returns:
        None where nothing is published of these weights, or where the artifact or its sidecars are gone, so
        that nobody can say which weights it has.
    """
    rows = [
        row
        for row in figures
        if row.task == evaluation.stamp.task and row.model == evaluation.subject["model"]
    ]
    if not rows:
        return None
    behind = ancestors(Path(results) / evaluation.subject["artifact"], evaluation.subject["artifact_sha256"])
    rows = [row for row in rows if row.weights in behind]
    return min(rows, key=lambda row: len(row.differences(evaluation)), default=None)


def ancestors(path: Path, sha256: str) -> set[str]:
    """Return the sha256 of an artifact and of everything that its sidecars say it was made from.

    Args:
        path: the artifact.
        sha256: of the artifact that is meant; a file that has changed since tells nothing.
    """
    found = {sha256}
    record = read_record(path) if path.is_file() and sha256_of(path) == sha256 else None
    for item in record.inputs if record else []:
        if item["sha256"] not in found:
            found |= ancestors(Path(item["path"]), item["sha256"])
    return found


def difference(ours: Mapping[str, float], published: Mapping[str, float]) -> dict[str, float]:
    """Return ours less theirs in points (hundredths), for the figures that both have."""
    return {name: 100 * (ours[name] - value) for name, value in published.items() if name in ours}
