"""Whether a quantised file still sees: a file that finds nothing must not be written as if it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import TmGraph
from facekiln.chips.tengine.settings import GateSettings
from facekiln.chips.tengine.simulate import Arrays, Simulation
from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.progress import log, progress_bar
from facekiln.vision.detect import faces_from_outputs


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    one, other = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm else float(not one.any() and not other.any())


def measure_sight(
    real: TmGraph,
    quantised: TmGraph,
    feeds: Sequence[NDArray[np.float32]],
    model: Model,
    size: tuple[int, int],
    names: dict[str, str],
) -> dict[str, Any]:
    """Run both files in the simulation and return how many faces each finds, and the least cosines.

    Args:
        real: the fp32 file.
        quantised: made from it.
        feeds: the network's inputs, float32 [1, C, H, W].
        model: whose faces are meant; a model without priors finds none.
        size: (height, width) of the input, pixels.
        names: the model's outputs by their names in the file.

    Returns:
        {"pictures", "faces": [fp32, quantised] or None, "cosine": {output: least over the pictures}}.
    """
    first, second = Simulation(real), Simulation(quantised)
    faces = [0, 0]
    cosines: dict[str, float] = {}
    with progress_bar(len(feeds), "gate", "picture") as bar:
        for feed in feeds:
            outputs: list[Arrays] = [
                {names.get(name, name): values for name, values in one.run(feed).items()}
                for one in (first, second)
            ]
            for name, values in outputs[0].items():
                cosines[name] = min(cosines.get(name, 1.0), _cosine(values, outputs[1][name]))
            if model.priors:
                for place, found in enumerate(outputs):
                    faces[place] += len(faces_from_outputs(found, model, size))
            bar.update(1)
    told = {name: round(value, 6) for name, value in cosines.items()}
    return {"pictures": len(feeds), "faces": faces if model.priors else None, "cosine": told}


def judge_sight(figures: dict[str, Any], settings: GateSettings, what: str) -> None:
    """Refuse a file that finds too few of the fp32 file's faces, or whose outputs are too unlike.

    Raises:
        GateError: it does; the hint says what helps.
    """
    hint = "quantise.algorithm minmax, or many more calibration pictures; KL on few pictures does this"
    if figures["faces"] is None:
        name, value = min(figures["cosine"].items(), key=lambda item: item[1])
        if value < settings.least_cosine:
            raise GateError(
                f"output '{name}' of the quantised file is unlike the fp32 file's",
                file=what,
                value=value,
                limit=settings.least_cosine,
                hint=hint,
            )
        return
    real, found = figures["faces"]
    if not real:
        log.warning(
            "%s: the fp32 file finds no face on the calibration pictures, so the gate proves nothing", what
        )
        return
    if found < settings.least_faces * real:
        raise GateError(
            "the quantised file has gone blind on its own calibration pictures",
            file=what,
            value=f"{found} of {real} faces",
            limit=f"{settings.least_faces:g} of them",
            hint=hint,
        )
