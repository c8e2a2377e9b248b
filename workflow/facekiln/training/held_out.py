"""How well a trained detector does on drawn scenes that it never saw."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import nn

from facekiln.config import Model
from facekiln.data.procedural import Scene
from facekiln.evaluation.voc import average_precision
from facekiln.progress import progress_bar
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.nms import iou_matrix
from facekiln.vision.preprocess import to_tensor

# Longer side of a face in pixels, each range up to the next.
_BOUNDS = (0, 16, 32, 64, 128, 256, 100000)


def find_faces(network: nn.Module, model: Model, scene: Scene, score_threshold: float) -> Faces:
    """Return the faces that a network in evaluation mode finds in a scene, at the scene's own size."""
    tensor = torch.from_numpy(to_tensor(scene.image, model.input))
    with torch.inference_mode():
        values = network(tensor)
    outputs = {name: value.numpy() for name, value in zip(model.outputs, values, strict=True)}
    decode = dataclasses.replace(model.decode, score_threshold=score_threshold)
    return faces_from_outputs(outputs, model, scene.image.shape[:2], decode)


def _landmark_error(found: list[Faces], scenes: list[Scene]) -> float | None:
    """Mean distance of the five points over the root of the box's area, of faces found with score > 0.5."""
    errors = []
    for faces, scene in zip(found, scenes, strict=True):
        truth, sure = scene.boxes(), faces.scores > 0.5
        if faces.landmarks is None or not len(truth) or not sure.any():
            continue
        overlap = iou_matrix(faces.boxes[sure], truth)
        for index, face in enumerate(overlap.argmax(axis=1).tolist()):
            if overlap[index, face] >= 0.5:
                distance = faces.landmarks[sure][index] - scene.faces[face].landmarks5
                area = float(np.prod(truth[face, 2:] - truth[face, :2]))
                errors.append(float(np.linalg.norm(distance, axis=1).mean()) / area**0.5)
    return round(float(np.mean(errors)), 4) if errors else None


def evaluate(network: nn.Module, model: Model, scenes: list[Scene], score_threshold: float) -> dict[str, Any]:
    """Return the figures of a network on held-out scenes: plain numbers, ready for JSON.

    `ap` counts every face at IoU 0.5 (`facekiln.evaluation.voc`); `ap_by_size` the same per range of the
    longer side, with how many faces it has; `landmark_error` is over the root of the box's area.
    """
    found = []
    with progress_bar(len(scenes), "held-out", "scene") as bar:
        for scene in scenes:
            found.append(find_faces(network, model, scene, score_threshold))
            bar.update(1)
    detections = [(faces.boxes, faces.scores) for faces in found]
    truths = [scene.boxes() for scene in scenes]
    whole = average_precision(detections, truths)
    by_size = {}
    for low, high in itertools.pairwise(_BOUNDS):
        part = average_precision(detections, truths, sizes=(low, high))
        if part.truths:
            label = f"{low}..{high}" if high < _BOUNDS[-1] else f"{low}.."
            by_size[label] = {"ap": round(part.ap, 4), "faces": part.truths}
    return {
        "ap": round(whole.ap, 4) if whole.truths else 0.0,
        "iou": 0.5,
        "scenes": len(scenes),
        "faces": whole.truths,
        "found": whole.found,
        "ap_by_size": by_size,
        "landmark_error": _landmark_error(found, scenes),
    }
