"""What rules say of the calibration set: its command's options, and when a dataset behind it changed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.config import DEFAULT_FOLDER
from facekiln.data.declared import Declared, load_datasets
from facekiln.data.pictures import PROCEDURAL, picture_names
from facekiln.progress import log

DATASET = "dataset:"


def choice_options(calibration: Mapping[str, Any]) -> str:
    """Return config.yaml's `calibration` as options of `facekiln calibration make`, quoted for the shell."""
    words = [
        "--source",
        calibration["source"],
        "--count",
        calibration["count"],
        "--seed",
        calibration["seed"],
    ]
    words += ["--strata", *calibration["strata"], "--exclude", *calibration["exclude"]]
    return shlex.join(map(str, words))


def with_evaluation_sets(
    calibration: Mapping[str, Any], tables: Mapping[str, Any], config: Path | str = DEFAULT_FOLDER
) -> dict[str, Any]:
    """Return `calibration` with the datasets of `tables` among those that it must not touch.

    What is judged in a table is never calibrated on. Drawn scenes cannot equal photographs, so drawn datasets
    are added only where the source is one. A dataset that is not here judges nothing, and is left out with a
    warning.

    Args:
        calibration: config.yaml's section.
        tables: config.yaml's section.
        config: the config folder.

    Raises:
        KilnError: datasets.yaml is broken.
    """
    source = str(calibration["source"])
    if source == PROCEDURAL:
        return dict(calibration)  # its purpose is its own, no dataset draws those scenes
    declared = load_datasets(config)
    drawn = source.startswith(DATASET) and _is_drawn(declared, source.removeprefix(DATASET))
    exclude = list(calibration["exclude"])
    for table in tables.values():
        for evaluation in table["evaluations"]:
            name = str(evaluation).rsplit("/", 1)[-1].partition("@")[0]
            if name in exclude or name not in declared or _is_drawn(declared, name) != drawn:
                continue
            if not declared[name].is_here():
                log.warning("calibration: dataset '%s' of a table is not here, so no overlap is sought", name)
                continue
            exclude.append(name)
    return {**calibration, "exclude": exclude}


def _is_drawn(declared: Mapping[str, Declared], name: str) -> bool:
    return name in declared and declared[name].kind == PROCEDURAL


def sets_digest(calibration: Mapping[str, Any], config: Path | str = DEFAULT_FOLDER) -> str:
    """Return a hash over what a set is made from or against: it changes when a rule must choose anew.

    Of a dataset its declaration; of a folder names, sizes and times of its pictures. Empty where only scenes
    are drawn.

    Raises:
        KilnError: datasets.yaml is broken.
    """
    named = [str(calibration["source"]), *map(str, calibration["exclude"])]
    if named == [PROCEDURAL]:
        return ""
    declared = load_datasets(config)
    told = []
    for name in sorted(set(named) - {PROCEDURAL}):
        plain, folder = name.removeprefix(DATASET), Path(name)
        if plain in declared:
            told.append((plain, declared[plain].digest()))
        elif folder.is_dir():
            stats = [(item, (folder / item).stat()) for item in picture_names(folder)]
            files = [(item, stat.st_size, stat.st_mtime_ns) for item, stat in stats]
            told.append((name, sha256_of_text(repr(files))))
    return sha256_of_text(repr(told))[:16]
