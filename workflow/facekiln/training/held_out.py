"""How well a trained detector does on pictures that it never saw."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import nn

from facekiln.config import Model
from facekiln.data.sample import Sample
from facekiln.evaluation.voc import average_precision
from facekiln.progress import progress_bar
from facekiln.training.crops import five_points
from facekiln.training.sources import Pool
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.nms import iou_matrix
from facekiln.vision.preprocess import fit, to_tensor

# Longer side of a face in pixels, each range up to the next.
_BOUNDS = (0, 16, 32, 64, 128, 256, 100000)


def find_faces(
    network: nn.Module, model: Model, sample: Sample, score_threshold: float, size: str | None = None
) -> Faces:
    """Return the faces that a network in evaluation mode finds, in the picture's pixels.

    Args:
        network: on any device.
        model: whose network it is.
        sample: the picture.
        score_threshold: of the faces.
        size: the size label that the picture is fitted to; None leaves it as it is.
    """
    picture = sample.load()
    policy = model.input.resize if size else "original"
    fitted, how = fit(picture, model.size(size) if size else (0, 0), policy)
    device = next(network.parameters()).device
    with torch.inference_mode():
        values = network(torch.from_numpy(to_tensor(fitted, model.input)).to(device))
    outputs = {name: value.float().cpu().numpy() for name, value in zip(model.outputs, values, strict=True)}
    decode = dataclasses.replace(model.decode, score_threshold=score_threshold)
    return how.back(faces_from_outputs(outputs, model, (fitted.shape[0], fitted.shape[1]), decode))


def _landmark_error(found: list[Faces], samples: list[Sample]) -> float | None:
    """Mean distance of the five points over the root of the box's area, of faces found with score > 0.5."""
    errors = []
    for faces, sample in zip(found, samples, strict=True):
        truth, points, sure = sample.boxes, five_points(sample), faces.scores > 0.5
        if not faces.landmarks.shape[1] or not len(truth) or not sure.any():
            continue
        overlap = iou_matrix(faces.boxes[sure], truth)
        for index, face in enumerate(overlap.argmax(axis=1).tolist()):
            if overlap[index, face] >= 0.5 and np.isfinite(points[face]).all():
                distance = faces.landmarks[sure][index] - points[face]
                area = float(np.prod(truth[face, 2:] - truth[face, :2]))
                errors.append(float(np.linalg.norm(distance, axis=1).mean()) / area**0.5)
    return round(float(np.mean(errors)), 4) if errors else None


def evaluate(
    network: nn.Module, model: Model, pool: Pool, score_threshold: float, size: str | None = None
) -> dict[str, Any]:
    """Return the figures of a network on held-out pictures: plain numbers, ready for JSON.

    `ap` counts every face that is not ignored at IoU 0.5 (`facekiln.evaluation.voc`); `ap_by_size` the same
    per range of the longer side, with how many faces it has; `landmark_error` is over the root of the box's
    area.
    """
    found, samples = [], [pool[index] for index in range(len(pool))]
    with progress_bar(len(samples), "held-out", "picture") as bar:
        for sample in samples:
            found.append(find_faces(network, model, sample, score_threshold, size))
            bar.update(1)
    detections = [(faces.boxes, faces.scores) for faces in found]
    truths, ignored = [sample.boxes for sample in samples], [sample.ignore for sample in samples]
    whole = average_precision(detections, truths, ignored=ignored)
    by_size = {}
    for low, high in itertools.pairwise(_BOUNDS):
        part = average_precision(detections, truths, ignored=ignored, sizes=(low, high))
        if part.truths:
            label = f"{low}..{high}" if high < _BOUNDS[-1] else f"{low}.."
            by_size[label] = {"ap": round(part.ap, 4), "faces": part.truths}
    return {
        "ap": round(whole.ap, 4) if whole.truths else 0.0,
        "iou": 0.5,
        "pictures": len(samples),
        "faces": whole.truths,
        "found": whole.found,
        "ap_by_size": by_size,
        "landmark_error": _landmark_error(found, samples),
    }
