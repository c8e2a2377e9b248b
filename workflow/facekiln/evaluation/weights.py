"""What kind of weights a table's figures are of."""

from __future__ import annotations

from pathlib import Path

from facekiln.config import Config
from facekiln.provenance import read_record


def weights_used(model: str, config: Config, results: Path) -> str:
    """Return what kind of weights a model has here: as its checkpoint's record says, else the config.

    The config alone does not tell: Snakemake's `--config weights=published` is not in the file.

    Args:
        model: its name.
        config: says it where there is no checkpoint.
        results: the folder that checkpoints lie below.
    """
    path = results / "checkpoints" / f"{model}.pth"
    record = read_record(path) if path.is_file() else None
    told = record.settings.get("weights") if record else None
    return str(told or config.weights_of(model))
