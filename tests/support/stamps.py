"""A protocol of evaluation records; `dataclasses.replace` it where a test needs another."""

from __future__ import annotations

from facekiln.evaluation.stamp import Stamp

STAMP = Stamp(
    task="wider_ap",
    evaluator="port",
    evaluator_version="1",
    dataset="subset",
    dataset_digest="0" * 16,
    images=183,
    resize="letterbox",
    interpolation="linear",
    size=(640, 640),
    score_threshold=0.02,
    nms_iou=0.4,
    top_k=5000,
    keep=750,
    extent=1,
    boxes="float",
)
