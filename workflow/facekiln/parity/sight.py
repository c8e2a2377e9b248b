"""Whether a quantised file sees what its fp32 file does: one that loses or invents faces is not written.

Counts do not tell: 141 faces for 95 may hold all 95, or few of them. So faces are matched as for parity.
Nor does a cosine of landmarks: whatever the picture, one mean face has 0.97 to 0.99 with the right one
(GhostOne on drawn faces). So landmark models are judged by what differs between pictures: by each output less
the fp32 file's mean over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.parity.agreement import agreement, faces_near_threshold
from facekiln.parity.measure import measure
from facekiln.parity.sight_limits import SightLimits
from facekiln.progress import log, progress_bar
from facekiln.vision.detect import Faces

Tensor = NDArray[np.float32]
Run = Callable[[Tensor], Mapping[str, Tensor]]
# Outputs that differ by less, as a share of their norm, say nothing of the picture.
_ALIKE = 1e-4


def measure_sight(
    real: Run, quantised: Run, feeds: Sequence[Tensor], model: Model, size: tuple[int, int]
) -> dict[str, Any]:
    """Run both files and return how their faces agree, and the least cosines.

    Args:
        real: runs the fp32 file: an input [1, 3, H, W] to the model's outputs by name.
        quantised: the same of the file made from it.
        feeds: inputs, float32 [1, 3, H, W].
        model: whose faces are meant; one without priors finds none.
        size: (height, width) of the input, pixels.

    Returns:
        {"pictures", "faces": of `parity.agreement.Agreement` or None, "cosine": {output: least over the
        pictures; of a model without priors, see `cosine_of_differences`}}.
    """
    pairs: list[tuple[Faces, Faces]] = []
    cosines: dict[str, float] = {}
    answers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with progress_bar(len(feeds), "gate", "picture") as bar:
        for feed in feeds:
            parent, child = dict(real(feed)), dict(quantised(feed))
            for name, value in parent.items():
                if model.priors:
                    cosines[name] = min(cosines.get(name, 1.0), measure(value, child[name]).cosine)
                else:
                    answers.setdefault(name, []).append((value, child[name]))
            if model.priors:
                pairs.append(
                    (faces_near_threshold(parent, model, size), faces_near_threshold(child, model, size))
                )
            bar.update(1)
    cosines |= {name: cosine_of_differences(several) for name, several in answers.items()}
    told = {name: round(value, 6) for name, value in cosines.items()}
    faces = None
    if model.priors:
        found = agreement(pairs, model.decode.score_threshold).as_dict()
        faces = {name: round(value, 4) for name, value in found.items()}
    return {"pictures": len(feeds), "faces": faces, "cosine": told}


def cosine_of_differences(answers: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the cosine of what differs between pictures in one output, which a constant answer has not.

    Args:
        answers: (parent, child) for each picture, of one shape.

    Returns:
        The cosine of both over all pictures, less the parent's mean over them; the least plain cosine where
        the parent answers all pictures alike (of one picture, always).
    """
    parents, children = (np.stack(part).astype(np.float64) for part in zip(*answers, strict=True))
    mean = parents.mean(axis=0)
    if np.linalg.norm(parents - mean) <= _ALIKE * np.linalg.norm(parents):
        return min(measure(parent, child).cosine for parent, child in answers)
    return measure(parents - mean, children - mean).cosine


def judge_sight(figures: Mapping[str, Any], limits: SightLimits, what: str, hint: str) -> None:
    """Refuse a file that loses or invents too many faces, or whose outputs are too unlike.

    Args:
        figures: of `measure_sight`.
        limits: of each.
        what: the file, for the message.
        hint: what helps in this vendor's settings.

    Raises:
        GateError: it is refused.
    """
    faces = figures["faces"]
    if faces is None:
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
    if faces["parent"] and (faces["found"] < limits.least_faces or not faces["child"]):
        raise GateError(
            "the quantised file has gone blind on its own calibration pictures",
            file=what,
            where="gate.least_faces",
            value=f"{faces['found']:.0%} of {faces['parent']} faces",
            limit=f"{limits.least_faces:.0%}",
            hint=hint,
        )
    if faces["invented"] > limits.most_invented:
        raise GateError(
            "the quantised file sees faces where the fp32 file sees none",
            file=what,
            where="gate.most_invented",
            value=f"{faces['invented']:.0%} of {faces['child']} faces",
            limit=f"{limits.most_invented:.0%}",
            hint=hint,
        )
    if not faces["parent"]:
        log.warning(
            "%s: the fp32 file finds no face on the calibration pictures, so the gate proves nothing", what
        )


def told_sight(figures: Mapping[str, Any]) -> str:
    """Return the figures for a person, in a line."""
    seen = figures["faces"]
    faces = (
        f"{seen['found']:.1%} of the fp32 file's {seen['parent']} faces, {seen['invented']:.1%} of"
        f" {seen['child']} invented; "
        if seen
        else ""
    )
    cosines = ", ".join(f"{name} {value:.5f}" for name, value in figures["cosine"].items())
    return f"{faces}on {figures['pictures']} calibration pictures; cosine {cosines}"
