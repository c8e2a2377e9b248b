"""Whether a quantised file still sees, in ncnn itself: one that finds nothing is not written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.runtime import NcnnNet
from facekiln.chips.ncnn.settings import GateSettings
from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.parity.measure import measure
from facekiln.progress import log, progress_bar
from facekiln.vision.detect import faces_from_outputs

_HINT = (
    "set quantise.method to mse or percentile, calibrate on more pictures, or name layers in"
    " quantise.keep_float; KL on few pictures does this"
)


def outputs_of(net: NcnnNet, feed: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return a network's outputs by name with the batch in front: [1, N, values] or [1, values]."""
    return {name: value[None] for name, value in net.run({net.inputs[0]: feed}).items()}


def measure_sight(
    real: NcnnNet, quantised: NcnnNet, feeds: Sequence[NDArray[np.float32]], model: Model, label: str
) -> dict[str, Any]:
    """Run both files and return how many faces each finds, and the least cosines.

    Args:
        real: the fp32 file.
        quantised: made from it.
        feeds: inputs, float32 [1, 3, H, W].
        model: whose faces are meant; one without priors finds none.
        label: the size's label.

    Returns:
        {"pictures", "faces": [fp32, quantised] or None, "cosine": {output: least over the pictures}}.
    """
    faces = [0, 0]
    cosines: dict[str, float] = {}
    with progress_bar(len(feeds), "gate", "picture") as bar:
        for feed in feeds:
            both = outputs_of(real, feed), outputs_of(quantised, feed)
            for name, value in both[0].items():
                cosines[name] = min(cosines.get(name, 1.0), measure(value, both[1][name]).cosine)
            if model.priors:
                for place, outputs in enumerate(both):
                    faces[place] += len(faces_from_outputs(outputs, model, model.size(label)))
            bar.update(1)
    told = {name: round(value, 6) for name, value in cosines.items()}
    return {"pictures": len(feeds), "faces": faces if model.priors else None, "cosine": told}


def judge_sight(figures: Mapping[str, Any], settings: GateSettings, what: str) -> None:
    """Refuse a file that finds too few of the fp32 file's faces, or whose outputs are too unlike.

    Raises:
        GateError: it does.
    """
    if figures["faces"] is None:
        name, value = min(figures["cosine"].items(), key=lambda item: item[1])
        if not value >= settings.least_cosine:
            raise GateError(
                f"output '{name}' of the quantised file is unlike the fp32 file's",
                file=what,
                value=value,
                limit=settings.least_cosine,
                hint=_HINT,
            )
        return
    real, found = figures["faces"]
    if not real:
        log.warning(
            "%s: the fp32 file finds no face on the calibration pictures, so the gate proves nothing", what
        )
    elif found < settings.least_faces * real or not found:
        raise GateError(
            "the quantised file has gone blind on its own calibration pictures",
            file=what,
            value=f"{found} of {real} faces",
            limit=f"{settings.least_faces:g} of them",
            hint=_HINT,
        )
