"""The samples that a recipe names: drawn scenes kept in memory, and declared datasets that were audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import read_json, sha256_of_text
from facekiln.config import DEFAULT_FOLDER
from facekiln.data.clean import cleaned
from facekiln.data.declared import declared_set, open_dataset
from facekiln.data.procedural_set import scene_sample
from facekiln.data.report import REPORT
from facekiln.data.sample import Listing, Sample
from facekiln.errors import KilnError
from facekiln.progress import log
from facekiln.training.pool import draw_pool
from facekiln.training.recipe import Drawn, Recipe, Source

Samples = Sequence[Sample] | Listing
REPORTS = Path("results/datasets")


@dataclass(frozen=True)
class Places:
    """Where datasets are declared, and where their audits lie (`facekiln dataset check`)."""

    config: Path = DEFAULT_FOLDER
    reports: Path = REPORTS


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples of several sources, numbered through.

    Attributes:
        parts: the samples of each source.
        shares: of the sources, None by their number of samples.
        records: what each source is, ready for JSON: enough to tell whether the data are the same.
    """

    parts: list[Samples]
    shares: list[float] | None = None
    records: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def counts(self) -> list[int]:
        """The number of samples of each source."""
        return [len(part) for part in self.parts]

    def __getitem__(self, index: int) -> Sample:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def open_pools(recipe: Recipe, places: Places) -> tuple[Pool, Pool]:
    """Return the samples to train on and those held out.

    A picture that is held out is never trained on, whatever the dataset and the file's name: by the hash that
    its audit took. So a dataset may serve both, if `validate.count` leaves something to train on.

    Raises:
        KilnError: unknown dataset, not audited or refused, nothing left to train on, or more held out than
            there is.
    """
    wanted, file = recipe.validate, f"recipe '{recipe.title}'"
    judged = _open(wanted.source, "held-out", recipe, places)
    if wanted.count is not None:
        if wanted.count > len(judged.samples):
            raise KilnError(
                "more pictures than the dataset has",
                file=file,
                where="validate.count",
                value=wanted.count,
                limit=len(judged.samples),
            )
        judged = judged.some(wanted.count, recipe.seed)
    held_out = Pool([judged.samples], None, [judged.told()])
    kept_back = {judged.hashes.get(sample.source) for sample in judged.samples} - {None}

    train = Pool([], [source.share for source in recipe.train if source.share is not None] or None)
    for source in recipe.train:
        part = _open(source, "train", recipe, places)
        count = len(part.samples)
        if kept_back and part.hashes:
            part = part.without(kept_back)
        if len(part.samples) < count:
            log.info("%s: %d pictures are held out", source.dataset, count - len(part.samples))
        if not len(part.samples):
            raise KilnError(
                "no picture is left to train on",
                file=file,
                where=source.dataset,
                hint="hold fewer out: `validate.count`, or another dataset",
            )
        train.parts.append(part.samples)
        train.records.append(part.told())
    return train, held_out


@dataclass(frozen=True, eq=False)
class _Opened:
    """One source: its samples, what identifies it, and the hashes of its pictures by name."""

    samples: Samples
    record: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)

    def some(self, count: int, seed: int) -> _Opened:
        chosen = np.sort(np.random.default_rng([seed, 4]).permutation(len(self.samples))[:count])
        return replace(self, samples=[self.samples[int(index)] for index in chosen])

    def without(self, hashes: set[str | None]) -> _Opened:
        left = [sample for sample in self.samples if self.hashes.get(sample.source) not in hashes]
        return self if len(left) == len(self.samples) else replace(self, samples=left)

    def told(self) -> dict[str, Any]:
        """Return the record with the number of pictures and of faces that count."""
        faces = sum(int((~sample.ignore).sum()) for sample in self.samples)
        return {**self.record, "pictures": len(self.samples), "faces": faces}


def _open(source: Source, purpose: str, recipe: Recipe, places: Places) -> _Opened:
    if source.drawn is not None:
        return _drawn(source.drawn, purpose, recipe)
    assert source.dataset is not None  # a recipe's source is one of the two
    return _audited(source.dataset, purpose, places)


def _drawn(drawn: Drawn, purpose: str, recipe: Recipe) -> _Opened:
    scenes = draw_pool(drawn, purpose, recipe.seed, recipe.threads)
    samples = [scene_sample(f"{purpose}_{index}", scene) for index, scene in enumerate(scenes)]
    return _Opened(samples, {"source": "drawn", "purpose": purpose, "seed": recipe.seed, **asdict(drawn)})


def _audited(name: str, purpose: str, places: Places) -> _Opened:
    """Return a declared dataset as its audit left it; what is judged keeps its small faces.

    Raises:
        KilnError: unknown dataset (with a suggestion), not audited as it is declared now, or refused.
    """
    declared = declared_set(name, places.config)
    report = places.reports / name / REPORT
    value = read_json(report) if report.is_file() else {}
    if "hashes" not in value:
        raise KilnError(
            f"dataset '{name}' was not audited yet", file=report, hint=f"facekiln dataset check {name}"
        )
    samples = cleaned(declared, open_dataset(declared), value, small_faces=purpose == "train")
    record = {
        "source": "dataset",
        "name": name,
        "declaration": declared.digest(),
        "annotations": value["annotations"],
        "pictures_sha256": sha256_of_text("".join(sorted(value["hashes"].values()))),
        "licence": declared.licence,
    }
    return _Opened(samples, record, value["hashes"])
