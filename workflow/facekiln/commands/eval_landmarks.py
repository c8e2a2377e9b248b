"""`facekiln eval landmarks`: landmark error of predictions on a declared dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_landmarks(verbs: Any) -> None:
    """Add the verb `landmarks`."""
    landmarks = add_verb(
        verbs,
        "landmarks",
        _landmarks,
        "landmark error (NME), failure rate, area under the error curve and pose error",
        "facekiln eval landmarks results/predictions/onnxruntime/onnx/ghostone_112.onnx/wflw",
    )
    landmarks.add_argument("predictions", type=Path, help="a folder of predictions of ours")
    landmarks.add_argument("--dataset", metavar="NAME", help="of datasets.yaml (default: the predictions')")
    landmarks.add_argument(
        "--normaliser",
        choices=["inter_ocular", "inter_pupil", "box"],
        help="of the main figures; NME by the others is told too (default: config.yaml's)",
    )
    landmarks.add_argument(
        "--failure-limit",
        type=float,
        metavar="SHARE",
        help="an error above it fails (default: config.yaml's)",
    )
    landmarks.add_argument("--output", type=Path, metavar="FILE", help="write an evaluation record here")
    landmarks.add_argument("--curves", type=Path, metavar="FILE", help="write the CED curve (.npz) here")
    add_config(landmarks)


def _landmarks(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.evaluation.landmarks_record import evaluate_folder, write_curve, write_record

    declared = load_config(options.config).landmarks
    limit = declared["failure_limit"] if options.failure_limit is None else options.failure_limit
    kind = options.normaliser or declared["normaliser"]
    figures, meta = evaluate_folder(options.predictions, options.dataset, options.config, kind, limit)
    if options.output:
        write_record(options.output, figures, meta)
    if options.curves:
        write_curve(options.curves, figures)
    for name, value in figures.results.items():
        sys.stdout.write(f"{name:16} {value:.5f}\n")
    counts = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in figures.details["counts"].items()
    )
    sys.stdout.write(f"by {kind.replace('_', '-')} distance, failure above {limit:g}; {counts}\n")
    for name, part in figures.details["subsets"].items():
        sys.stdout.write(
            f"  {name:14} {part['faces']:6.0f} faces: NME {part['nme']:.5f}, "
            f"failures {part['failure_rate']:.4f}, AUC {part['auc']:.4f}\n"
        )
