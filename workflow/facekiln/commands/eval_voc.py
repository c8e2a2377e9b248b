"""`facekiln eval voc`: average precision on any declared dataset with boxes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_voc(verbs: Any) -> None:
    """Add the verb `voc`."""
    voc = add_verb(
        verbs,
        "voc",
        _voc,
        "average precision as PASCAL VOC counts it, on any declared dataset with boxes",
        "facekiln eval voc results/predictions/onnxruntime/onnx/retinaface_640.sim.onnx/procedural",
    )
    voc.add_argument("predictions", type=Path, help="a folder of predictions of ours")
    voc.add_argument("--dataset", metavar="NAME", help="of datasets.yaml (default: the predictions')")
    voc.add_argument("--iou", type=float, default=0.5, help="least overlap of a right box (default: 0.5)")
    voc.add_argument(
        "--boxes",
        choices=["float", "truncate", "floor_ceil"],
        help="how corners are written before they are judged (default: as config.yaml's box_rules say for "
        "the inference entry that made the predictions)",
    )
    voc.add_argument("--output", type=Path, metavar="FILE", help="write an evaluation record here")
    voc.add_argument("--curves", type=Path, metavar="FILE", help="write recall and precision (.npz) here")
    add_config(voc)


def _voc(options: argparse.Namespace) -> None:
    from facekiln.evaluation.voc_record import evaluate_voc
    from facekiln.evaluation.wider_record import box_rule_of

    boxes, why = options.boxes, "as told"
    if boxes is None:
        boxes, why = box_rule_of(options.predictions, options.config)
    figures = evaluate_voc(options.predictions, options.dataset, options.config, options.iou, boxes)
    if options.output:
        figures.write(options.output)
    if options.curves:
        figures.write_curves(options.curves)
    sys.stdout.write(
        f"AP at IoU {options.iou:g}: {figures.ap:.6f} ({figures.found} of {figures.truths} faces found by "
        f"{figures.detections} detections in {figures.stamp.images} pictures; protocol: voc "
        f"{figures.stamp.id()}; boxes: {boxes}, {why})\n"
    )
