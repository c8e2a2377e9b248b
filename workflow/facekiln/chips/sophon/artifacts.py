"""Names of SOPHON artifacts, and what a chip lacks, refused before any work is done for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from facekiln.chips.sophon.settings import SophonSettings
from facekiln.config import Config, known
from facekiln.errors import KilnError

# As tpu_mlir calls them (`model_deploy --quantize`).
QUANTIZE = {"fp32": "F32", "fp16": "F16", "int8": "INT8"}
_WHY = {
    (
        "bm1684",
        "fp16",
    ): "its tensor units compute in float32 and int8 only, and tpu_mlir refuses",
}
_FILE = "config/chips/sophon.yaml"
_NAME = re.compile(
    r"(?P<model>\w+)_(?P<size>\d+)_(?P<precision>[a-z]+\d+)_(?P<batch>\d+)b(?:_(?P<cores>\d+)core)?\.bmodel"
)


@dataclass(frozen=True)
class Artifact:
    """What a .bmodel is: a model at a size label, for a chip, in a precision, for a batch, on cores."""

    chip: str
    model: str
    size: str
    precision: str
    batch: int
    cores: int = 1

    @property
    def stem(self) -> str:
        """Its file name without `.bmodel`."""
        tail = f"_{self.cores}core" if self.cores > 1 else ""
        return f"{self.model}_{self.size}_{self.precision}_{self.batch}b{tail}"

    @property
    def path(self) -> str:
        """Its path below results/."""
        return f"sophon/{self.chip}/{self.stem}.bmodel"


def artifact_of(path: Path | str, config: Config, settings: SophonSettings) -> Artifact:
    """Return what a path `.../{chip}/{model}_{size}_{precision}_{batch}b[_{n}core].bmodel` names.

    Raises:
        KilnError: it is not of that form, or names something that there is not (see `check_artifact`).
    """
    found = _NAME.fullmatch(Path(path).name)
    if not found:
        raise KilnError(
            "its name does not say what it is",
            file=path,
            limit="{chip}/{model}_{size}_{precision}_{batch}b.bmodel, _2core behind the batch",
            hint="rename it, e.g. bm1684x/retinaface_640_int8_1b.bmodel",
        )
    artifact = Artifact(
        Path(path).parent.name,
        found["model"],
        found["size"],
        found["precision"],
        int(found["batch"]),
        int(found["cores"] or 1),
    )
    check_artifact(artifact, config, settings)
    check_spelling(Path(path).name, artifact)
    return artifact


def check_spelling(name: str, artifact: Artifact) -> None:
    """Refuse a second name of one file, as `_01b` and `_1core` would be.

    Raises:
        KilnError: names the one that it has.
    """
    if name != f"{artifact.stem}.bmodel":
        raise KilnError(
            "is another name of a file that has one", file=name, hint=f"ask for results/{artifact.path}"
        )


def check_batch(batch: int, settings: SophonSettings) -> None:
    """Refuse a batch that files are not made for.

    Raises:
        KilnError: names the batches that they are made for.
    """
    if batch not in settings.batches:
        raise KilnError(
            f"no files are made for batches of {batch}",
            file=_FILE,
            where="batches",
            value=batch,
            limit=", ".join(map(str, settings.batches)),
            hint=f"ask for {_nearest(batch, settings.batches)}b, or add {batch} to `batches`",
        )


def check_artifact(artifact: Artifact, config: Config, settings: SophonSettings) -> None:
    """Refuse what cannot be: an unknown chip, model, size or precision, or what the chip lacks.

    Raises:
        KilnError: says why, and what to ask for instead.
    """
    chip = settings.chips[known(artifact.chip, settings.chips, "SOPHON chip")]
    config.model(artifact.model).size(artifact.size)
    known(artifact.precision, QUANTIZE, "SOPHON precision")
    asked = f"results/{artifact.path}"
    if artifact.precision not in chip.precisions:
        others = [name for name, other in settings.chips.items() if artifact.precision in other.precisions]
        why = _WHY.get((chip.name, artifact.precision), f"it is not among its `precisions` in {_FILE}")
        raise KilnError(
            f"{chip.name} has no {artifact.precision}: {why}",
            file=asked,
            limit=", ".join(chip.precisions),
            hint=f"ask for {' or '.join(chip.precisions)}"
            + (f", or for one of: {', '.join(others)}" if others else ""),
        )
    check_batch(artifact.batch, settings)
    if artifact.cores not in chip.cores:
        others = [name for name, other in settings.chips.items() if artifact.cores in other.cores]
        raise KilnError(
            f"{chip.name} has no {artifact.cores} cores to compile for",
            file=asked,
            limit=f"cores: {', '.join(map(str, chip.cores))}",
            hint="leave `_2core` out" + (f", or ask for one of: {', '.join(others)}" if others else ""),
        )


def _nearest(value: int, choices: tuple[int, ...]) -> int:
    return min(choices, key=lambda choice: abs(choice - value))
