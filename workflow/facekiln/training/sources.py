"""The samples that a recipe names: drawn scenes kept in memory, and declared datasets that were audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.artifact import read_json, sha256_of
from facekiln.config import DEFAULT_FOLDER, known
from facekiln.data.clean import cleaned
from facekiln.data.declared import Declared, load_datasets, open_dataset
from facekiln.data.procedural_set import scene_sample
from facekiln.data.report import REPORT
from facekiln.data.sample import Listing, Sample
from facekiln.errors import KilnError
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
    """Return the samples to train on and those held out; they share none.

    A dataset may serve both: its `validate.count` pictures are then left out of the training.

    Raises:
        KilnError: unknown dataset, not audited or refused, nothing left to train on, or held-out pictures of
            a training dataset without a `count`.
    """
    wanted, file = recipe.validate, f"recipe '{recipe.title}'"
    samples, record = _open(wanted.source, "held-out", recipe, places)
    name = wanted.source.dataset
    shared = name is not None and name in [source.dataset for source in recipe.train]
    if shared and (wanted.count is None or wanted.count >= len(samples)):
        raise KilnError(
            "this dataset is trained on, so only a part of it can be held out",
            file=file,
            where="validate.count",
            value=wanted.count,
            limit=f"1..{len(samples) - 1}",
        )
    if name is not None and wanted.count is not None:
        samples = _some(samples, wanted.count, recipe.seed)
    held_out = Pool([samples], None, [{**record, "pictures": len(samples)}])
    kept_back = {sample.source for sample in samples} if shared else set()

    train = Pool([], [source.share for source in recipe.train if source.share is not None] or None)
    for source in recipe.train:
        samples, record = _open(source, "train", recipe, places)
        if kept_back and source.dataset == name:
            samples = [sample for sample in samples if sample.source not in kept_back]
        if not len(samples):
            raise KilnError("no sample is left to train on", file=file, where=source.dataset)
        train.parts.append(samples)
        train.records.append({**record, "pictures": len(samples)})
    return train, held_out


def _open(source: Source, purpose: str, recipe: Recipe, places: Places) -> tuple[Samples, dict[str, Any]]:
    if source.drawn is not None:
        return _drawn(source.drawn, purpose, recipe)
    assert source.dataset is not None  # a recipe's source is one of the two
    return audited(source.dataset, places)


def _drawn(drawn: Drawn, purpose: str, recipe: Recipe) -> tuple[Samples, dict[str, Any]]:
    scenes = draw_pool(drawn, purpose, recipe.seed, recipe.threads)
    samples = [scene_sample(f"{purpose}_{index}", scene) for index, scene in enumerate(scenes)]
    record = {"source": "drawn", "purpose": purpose, "seed": recipe.seed, **asdict(drawn)}
    return samples, record | {"pictures": len(samples), "faces": sum(map(len, samples))}


def audited(name: str, places: Places) -> tuple[Samples, dict[str, Any]]:
    """Return a declared dataset as its audit left it, and what identifies it.

    Raises:
        KilnError: unknown dataset (with a suggestion), not audited as it is declared now, or refused.
    """
    datasets = load_datasets(places.config)
    declared: Declared = datasets[known(name, datasets, "dataset")]
    report = places.reports / name / REPORT
    if not report.is_file():
        raise KilnError(
            f"dataset '{name}' was not audited yet", file=report, hint=f"facekiln dataset check {name}"
        )
    value = read_json(report)
    samples = cleaned(declared, open_dataset(declared), value)
    record = {
        "source": "dataset",
        "name": name,
        "declaration": declared.digest(),
        "annotations": value["annotations"],
        "report_sha256": sha256_of(report),
        "licence": declared.licence,
        "pictures": len(samples),
        "faces": value["kept"]["faces"],
    }
    return samples, record


def _some(samples: Samples, count: int, seed: int) -> Samples:
    chosen = np.sort(np.random.default_rng([seed, 4]).permutation(len(samples))[:count])
    return [samples[int(index)] for index in chosen]
