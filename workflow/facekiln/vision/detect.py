"""Raw outputs to faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Decode, Model
from facekiln.errors import KilnError
from facekiln.vision.decode import decode_boxes, decode_landmarks
from facekiln.vision.nms import nms
from facekiln.vision.priors import make_priors


@dataclass(frozen=True)
class Faces:
    """Faces of one picture, best score first.

    Attributes:
        boxes: float32 [M, 4]: x1, y1, x2, y2, pixels.
        scores: float32 [M].
        landmarks: float32 [M, P, 2]: x, y, pixels; P is 0 where the model has none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def faces_from_outputs(
    outputs: Mapping[str, NDArray[np.floating]], model: Model, size: tuple[int, int], decode: Decode | None = None
) -> Faces:
    """Decode one picture's outputs and suppress duplicates.

    Args:
        outputs: by name, each [1, N, values]: `loc` 4, `conf` 2 (softmaxed; the second is the face) and, where the
            model has it, `landms` 2 per point.
        model: for its priors.
        size: (height, width) of the network's input, pixels; results are in its pixels.
        decode: thresholds other than the model's own.

    Raises:
        KilnError: the model has no priors, or the number of priors is not that of the outputs.
    """
    if model.priors is None:
        raise KilnError("has no priors: it finds no faces", file=f"config/models/{model.name}.yaml")
    decode = decode or model.decode
    priors = make_priors(model.priors, size)
    scores = outputs["conf"][0, :, 1]
    if len(scores) != len(priors):
        raise KilnError(
            f"the outputs of '{model.name}' do not fit its priors at {size[0]}x{size[1]}",
            value=len(scores),
            limit=f"{len(priors)} priors",
            hint="check `priors` and the size in config/models",
        )
    chosen = np.flatnonzero(scores > decode.score_threshold)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")[: decode.top_k]]
    pixels = np.array([size[1], size[0]], dtype=np.float32)
    boxes = decode_boxes(outputs["loc"][0, chosen], priors[chosen], model.priors.variances) * np.tile(pixels, 2)
    if "landms" in outputs:
        points = decode_landmarks(outputs["landms"][0, chosen], priors[chosen], model.priors.variances) * pixels
    else:
        points = np.zeros((len(chosen), 0, 2), dtype=np.float32)
    kept = nms(boxes, scores[chosen], decode.nms_iou)[: decode.keep]
    return Faces(
        boxes=boxes[kept].astype(np.float32),
        scores=scores[chosen][kept].astype(np.float32),
        landmarks=points[kept].astype(np.float32),
    )
