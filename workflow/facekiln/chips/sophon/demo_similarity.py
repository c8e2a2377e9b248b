"""How far a SOPHON file is from its float ONNX file: by the compilation's own checks, and by parity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.chips.sophon.artifacts import Artifact
from facekiln.errors import KilnError


@dataclass(frozen=True)
class Checks:
    """What the compilation's own checks measured: the least of all outputs, on the transform's pictures.

    Attributes:
        cosine: similarity of the quantised model to the float one.
        sqnr: of the same, dB; infinite where they are equal.
        simulated: cosine similarity of the file in the chip's C model to the quantised model.
    """

    cosine: float
    sqnr: float
    simulated: float


@dataclass(frozen=True)
class Similarity:
    """How a file's outputs resemble the ONNX file's by parity, the worst of all outputs and pictures.

    Attributes:
        reader: what ran the file.
        cosine: similarity.
        max_rel: greatest error as a share of the output's scale.
        found: share of the float faces that it finds; None for landmark models.
        passed: the parity gates.
    """

    reader: str
    cosine: float
    max_rel: float
    found: float | None
    passed: bool


def similarity_of(report: Mapping[str, Any]) -> Similarity:
    """Return the worst figures of a parity report: of the C model, where it has several readers.

    Raises:
        KilnError: it is no parity report.
    """
    try:
        reader = min(report["outputs"], key=lambda name: "cmodel" not in name)
        outputs = report["outputs"][reader].values()
        faces = report["faces"].get(reader)
        return Similarity(
            reader,
            min(value["cosine"] for value in outputs),
            max(value["max_rel"] for value in outputs),
            faces["found"] if faces and faces["parent"] else None,
            bool(report["passed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise KilnError(
            f"is no parity report: {error}", hint="make it again: facekiln parity compare"
        ) from error


def checks_of(facts: Mapping[str, Any]) -> Checks | None:
    """Return the checks in the facts of a bmodel's record, None where they hold none."""
    quantised, simulated = facts.get("quantised_against_float"), facts.get("simulated_against_quantised")
    if not quantised or not simulated:
        return None
    return Checks(float(quantised["cosine"]), float(quantised["sqnr"]), float(simulated["cosine"]))


def parity_report(results: Path, artifact: Artifact) -> Path | None:
    """Return an artifact's parity report, the failed one where there is no other."""
    report = results / "parity" / f"{artifact.path}.json"
    return next((path for path in (report, report.with_suffix(".failed.json")) if path.is_file()), None)
