"""Evaluation sets that calibration must not touch: their hashes, and what equals or resembles one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.config import DEFAULT_FOLDER
from facekiln.data.calibration_pool import is_missing, look, open_source
from facekiln.data.calibration_rule import DATASET
from facekiln.data.declared import load_datasets
from facekiln.data.near import CLOSE
from facekiln.data.sample import Sample
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

_THREADS = 2


@dataclass(frozen=True)
class Held:
    """One evaluation set.

    Attributes:
        name: of the dataset, or the folder.
        missing: annotated pictures that are not here, and so could not be compared.
        by_sha: sha256 -> the picture's name.
        hashes: difference hash and name of each picture with contrast.
    """

    name: str
    missing: int
    by_sha: dict[str, str]
    hashes: tuple[tuple[int, str], ...]

    def record(self) -> dict[str, Any]:
        """Return name, counts and a digest over the sorted hashes of the pictures, as JSON."""
        return {
            "set": self.name,
            "pictures": len(self.by_sha),
            "missing": self.missing,
            "digest": sha256_of_text("".join(sorted(self.by_sha)))[:16],
        }


@dataclass(frozen=True)
class Overlap:
    """A picture that is of an evaluation set: `kind` is "same" or "near"."""

    kind: str
    set: str
    picture: str


def hold_out(names: Iterable[str], config: Path | str = DEFAULT_FOLDER) -> list[Held]:
    """Hash every picture of the evaluation sets.

    Args:
        names: dataset names (with or without `dataset:`) or folders of pictures.
        config: the config folder.

    Raises:
        KilnError: a set is unknown, not here, or none of its pictures is: nothing could be promised.
    """
    held: dict[str, Held] = {}
    for name in names:
        plain = name.removeprefix(DATASET)
        if plain not in held:
            held[plain] = _hold(name, config)
    return list(held.values())


def _hold(name: str, config: Path | str) -> Held:
    if not name.startswith(DATASET) and not Path(name).is_dir():
        datasets = load_datasets(config)
        if name not in datasets:
            raise KilnError(
                f"evaluation set '{name}' is neither a dataset nor a folder",
                file=Path(config) / "config.yaml",
                where="calibration.exclude",
                limit=", ".join(datasets),
            )
        name = f"{DATASET}{name}"
    source = open_source(name, config)
    samples = list(source.samples or ())
    here = [sample for sample in samples if not is_missing(sample)]
    if not here:
        raise KilnError(
            f"none of the {len(samples)} pictures of evaluation set '{source.name}' is here, so no overlap "
            "can be found",
            where="calibration.exclude",
            hint="put its pictures in place, or take it out of `exclude`",
        )

    def facts(sample: Sample) -> tuple[str, str, int | None]:
        looked = look(sample)
        return looked.sha256, sample.source, looked.near

    by_sha: dict[str, str] = {}
    hashes = []
    with (
        progress_bar(len(here), f"hashing {source.name}", "picture") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for digest, picture, near in pool.map(facts, here):
            by_sha[digest] = picture
            if near is not None:
                hashes.append((near, picture))
            bar.update(1)
    return Held(source.name, len(samples) - len(here), by_sha, tuple(hashes))


def overlap(sha256: str, near: int | None, held: Sequence[Held], close: int = CLOSE) -> Overlap | None:
    """Return the evaluation picture that equals a picture, or else resembles it; None where none does.

    Args:
        sha256: the picture's.
        near: its difference hash, None without contrast (only equal files are found then).
        held: the evaluation sets.
        close: bits that two hashes may differ by.
    """
    for one in held:
        if sha256 in one.by_sha:
            return Overlap("same", one.name, one.by_sha[sha256])
    if near is not None:
        for one in held:
            for other, picture in one.hashes:
                if (near ^ other).bit_count() <= close:
                    return Overlap("near", one.name, picture)
    return None
