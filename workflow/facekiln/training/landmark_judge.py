"""How well a landmark model does on faces that it never saw, cut out as in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facekiln.config import Model
from facekiln.evaluation.landmarks import curve, normaliser, point_errors, pose_errors, subsets
from facekiln.progress import progress_bar
from facekiln.training.landmark_crops import plain_crop
from facekiln.training.landmark_faces import FaceTable
from facekiln.training.sources import Pool
from facekiln.vision.preprocess import to_tensor

Floats = NDArray[np.float64]

_TOGETHER = 32  # crops
_ANGLES = ("yaw", "pitch", "roll")


def predict(
    network: nn.Module, model: Model, pool: Pool, faces: FaceTable, side: int
) -> tuple[Floats, Floats, Floats]:
    """Return points [N,98,2] and pose [N,3] that a network in evaluation mode gives, and the true points.

    Points are shares of the crop's side, angles radians.
    """
    device = next(network.parameters()).device
    points: list[Floats] = []
    pose: list[Floats] = []
    truth: list[Floats] = []
    with progress_bar(len(faces), "held-out", "face") as bar:
        for start in range(0, len(faces), _TOGETHER):
            crops = []
            for at in range(start, min(start + _TOGETHER, len(faces))):
                picture = pool[int(faces.samples[at])].load()
                crops.append(plain_crop(picture, faces.squares[at], faces.points[at], faces.pose[at], side))
            images = np.concatenate([to_tensor(crop.image, model.input) for crop in crops])
            with torch.inference_mode():
                values = network(torch.from_numpy(images).to(device))
            for value in values:
                row = value.double().cpu().numpy()
                (pose if row.shape[1] == 3 else points).append(row)
            truth.append(np.stack([crop.points for crop in crops]))
            bar.update(len(crops))
    placed = np.concatenate(points)
    return placed.reshape(len(faces), -1, 2), np.concatenate(pose), np.concatenate(truth)


def evaluate(network: nn.Module, model: Model, pool: Pool, faces: FaceTable, side: int) -> dict[str, Any]:
    """Return the figures of a network on held-out faces: plain numbers, ready for JSON.

    `nme`, `failure_rate` (error above 0.1) and `auc` are over the distance of the outer eye corners of the
    truth (`facekiln.evaluation.landmarks`); `nme_closed_eyes` and `nme_yaw_*` are of the faces with a closed
    eye, and by how far a face is turned; the angles' mean absolute errors are degrees. Of an annotation of 68
    points those count that the 98 have. None where no face tells.
    """
    points, pose, truth = predict(network, model, pool, faces, side)
    scale = normaliser(truth, np.zeros((len(faces), 4)), "98", "inter_ocular")
    errors = point_errors(points, truth) / scale
    whole = curve(errors)
    angles = pose_errors(pose, faces.pose)
    known = ~np.isnan(angles).any(axis=1)
    parts = {"closed_eyes": faces.closed, **subsets({}, faces.pose)}
    by_part = {f"nme_{name}": _figure(curve(errors[mask]).nme) for name, mask in parts.items()}
    by_angle = {
        f"{name}_mae_deg": _figure(angles[known, at].mean()) if known.any() else None
        for at, name in enumerate(_ANGLES)
    }
    return {
        **{name: _figure(value) for name, value in whole.figures().items()},
        "faces": whole.faces,
        **by_part,
        "closed_eyes": int(faces.closed.sum()),
        "pose_mae_deg": _figure(angles[known].mean()) if known.any() else None,
        **by_angle,
    }


def _figure(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
