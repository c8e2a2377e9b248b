"""What rules say of the calibration set: its command's options, and when a dataset behind it changed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.config import DEFAULT_FOLDER
from facekiln.data.declared import load_datasets

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


def sets_digest(calibration: Mapping[str, Any], config: Path | str = DEFAULT_FOLDER) -> str:
    """Return a hash over the declarations of the datasets that a set is made from or against.

    Empty where it names none.

    Raises:
        KilnError: datasets.yaml is broken.
    """
    named = {str(name).removeprefix(DATASET) for name in (calibration["source"], *calibration["exclude"])}
    if not calibration["exclude"] and not str(calibration["source"]).startswith(DATASET):
        return ""
    declared = load_datasets(config)
    return sha256_of_text(repr([(name, declared[name].digest()) for name in sorted(named & set(declared))]))[
        :16
    ]
