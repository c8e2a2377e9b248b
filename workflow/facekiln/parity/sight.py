"""Whether a quantised file still sees, beside its fp32 file: one that finds nothing is not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.parity.measure import measure
from facekiln.progress import log, progress_bar
from facekiln.vision.detect import faces_from_outputs

Tensor = NDArray[np.float32]
Run = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class SightLimits:
    """When a quantised file is refused: too few of the fp32 file's faces, or a cosine that is too low.

    Attributes:
        least_faces: share of the fp32 file's faces.
        least_cosine: of each output, for models that find no faces.
        pictures: how many of the calibration set are looked at.
    """

    least_faces: float
    least_cosine: float
    pictures: int


def measure_sight(
    real: Run, quantised: Run, feeds: Sequence[Tensor], model: Model, size: tuple[int, int]
) -> dict[str, Any]:
    """Run both files and return how many faces each finds, and the least cosines.

    Args:
        real: runs the fp32 file: an input [1, 3, H, W] to the model's outputs by name.
        quantised: the same of the file made from it.
        feeds: inputs, float32 [1, 3, H, W].
        model: whose faces are meant; one without priors finds none.
        size: (height, width) of the input, pixels.

    Returns:
        {"pictures", "faces": [fp32, quantised] or None, "cosine": {output: least over the pictures}}.
    """
    faces = [0, 0]
    cosines: dict[str, float] = {}
    with progress_bar(len(feeds), "gate", "picture") as bar:
        for feed in feeds:
            both = dict(real(feed)), dict(quantised(feed))
            for name, value in both[0].items():
                cosines[name] = min(cosines.get(name, 1.0), measure(value, both[1][name]).cosine)
            if model.priors:
                for place, outputs in enumerate(both):
                    faces[place] += len(faces_from_outputs(outputs, model, size))
            bar.update(1)
    told = {name: round(value, 6) for name, value in cosines.items()}
    return {"pictures": len(feeds), "faces": faces if model.priors else None, "cosine": told}


def judge_sight(figures: Mapping[str, Any], limits: SightLimits, what: str, hint: str) -> None:
    """Refuse a file that finds too few of the fp32 file's faces, or whose outputs are too unlike.

    Args:
        figures: of `measure_sight`.
        limits: the least of each.
        what: the file, for the message.
        hint: what helps in this vendor's settings.

    Raises:
        GateError: it is refused.
    """
    if figures["faces"] is None:
        name, value = min(figures["cosine"].items(), key=lambda item: item[1])
        if not value >= limits.least_cosine:
            raise GateError(
                f"output '{name}' of the quantised file is unlike the fp32 file's",
                file=what,
                value=value,
                limit=limits.least_cosine,
                hint=hint,
            )
        return
    real, found = figures["faces"]
    if not real:
        log.warning(
            "%s: the fp32 file finds no face on the calibration pictures, so the gate proves nothing", what
        )
    elif found < limits.least_faces * real or not found:
        raise GateError(
            "the quantised file has gone blind on its own calibration pictures",
            file=what,
            value=f"{found} of {real} faces",
            limit=f"{limits.least_faces:g} of them",
            hint=hint,
        )


def told_sight(figures: Mapping[str, Any]) -> str:
    """Return the figures for a person, in a line."""
    seen = figures["faces"]
    faces = f"{seen[1]} of the fp32 file's {seen[0]} faces; " if seen else ""
    cosines = ", ".join(f"{name} {value:.5f}" for name, value in figures["cosine"].items())
    return f"{faces}on {figures['pictures']} calibration pictures; cosine {cosines}"
