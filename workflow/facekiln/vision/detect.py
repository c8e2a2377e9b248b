"""Raw outputs to faces: decode, threshold, suppress. The same for every stage of every model."""

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

# The values per prior say which output is which, so that their names and order may be any.
ROLES = {4: "boxes", 2: "scores", 10: "landmarks"}


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, best first.

    Attributes:
        boxes: float32 [N, 4]: x1, y1, x2, y2 in pixels; not clipped to the picture.
        scores: float32 [N], 0..1.
        landmarks: float32 [N, 5, 2] of x, y in pixels (left eye, right eye, nose, left and right corner of
            the mouth, as seen in the picture); [N, 0, 2] where the model has none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def faces_from_outputs(
    outputs: Mapping[str, NDArray[np.float32]],
    model: Model,
    size: tuple[int, int],
    decode: Decode | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Faces:
    """Turn a detector's outputs for one picture into faces.

    The order is Pytorch_Retinaface's: score above the threshold, the `top_k` best, NMS
    (`extent`: `facekiln.vision.nms`), the `keep` best. A prior whose values are not finite is no face.

    Args:
        outputs: by name, float32 [1, N, 4], [1, N, 2] (background, face; after softmax) and, where the model
            has it, [1, N, 10]. Names and order may be any; others than `model.outputs` are ignored.
        model: its priors, variances and output names.
        size: (height, width) of the network's input, pixels.
        decode: thresholds; the model's own where None.
        scale: (x, y) pixels of the network's input per pixel of the picture, as `Fit` has them. Boxes come
            to the picture before NMS, as in the reference scripts: with `extent` 1 it is not the same after.

    Returns:
        Faces in pixels of the network's input; with `scale`, of the picture.

    Raises:
        KilnError: the model has no priors, an output is missing, or their lengths do not fit the priors.
    """
    if model.priors is None:
        raise KilnError(
            "the model has no priors, so it finds no faces", file=f"config/models/{model.name}.yaml"
        )
    decode = decode or model.decode
    priors = make_priors(model.priors, size)
    by_role = _by_role(outputs, model, size, len(priors))
    scores = by_role["scores"][:, 1]
    candidates = np.flatnonzero(scores > decode.score_threshold)
    best = np.argsort(-scores[candidates], kind="stable")[: decode.top_k]
    chosen = candidates[best]
    pixels = np.array([size[1], size[0]], np.float32)
    per_pixel = np.array(scale, np.float32)
    boxes = decode_boxes(by_role["boxes"][chosen], priors[chosen], model.priors.variances) * np.tile(
        pixels, 2
    )
    boxes /= np.tile(per_pixel, 2)
    finite = np.isfinite(boxes).all(axis=1)
    chosen, boxes = chosen[finite], boxes[finite]
    epsilon = decode.epsilon * size[0] * size[1] / (scale[0] * scale[1])
    kept = nms(boxes, scores[chosen], decode.nms_iou, decode.extent, epsilon, decode.keep)
    faces = chosen[kept]
    offsets = by_role["landmarks"][faces] if "landmarks" in by_role else np.zeros((len(faces), 0), np.float32)
    points = decode_landmarks(offsets, priors[faces], model.priors.variances) * pixels / per_pixel
    return Faces(boxes[kept].astype(np.float32), scores[faces].astype(np.float32), points.astype(np.float32))


def _by_role(
    outputs: Mapping[str, NDArray[np.float32]], model: Model, size: tuple[int, int], count: int
) -> dict[str, NDArray[np.float32]]:
    by_role = {}
    for name in model.outputs:
        if name not in outputs:
            raise KilnError(f"output '{name}' is missing", value=list(outputs), limit=list(model.outputs))
        value = outputs[name]
        if value.ndim != 3 or value.shape[0] != 1 or value.shape[2] not in ROLES:
            raise KilnError(
                f"output '{name}' is not of one picture's boxes, scores or landmarks",
                value=list(value.shape),
                limit="[1, N, 4], [1, N, 2] or [1, N, 10]",
            )
        if value.shape[1] != count:
            raise KilnError(
                f"output '{name}' does not fit the priors of model '{model.name}' at {size[0]}x{size[1]}",
                value=value.shape[1],
                limit=f"{count} priors",
                hint="is this the size that the stage was built for, and are the model's priors right?",
            )
        by_role[ROLES[value.shape[2]]] = value[0]
    for role in ("boxes", "scores"):
        if role not in by_role:
            raise KilnError(
                f"no output holds {role}", file=f"config/models/{model.name}.yaml", where="outputs"
            )
    return by_role
